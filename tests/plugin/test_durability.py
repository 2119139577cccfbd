"""The writer: what it acknowledges is on disk, whatever the store does, and nobody waits long for it."""

import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from rlhi_plugin.durability import DurableWriter, TimedPersonas, WriterOptions
from rlhi_plugin.durability.folders import read_folder
from rlhi_plugin.durability.location import may_outlive
from rlhi_plugin.durability.turn_file import files_in, refused_in
from rlhi_plugin.errors import ConfigError, OwnerMismatchError, StoreError, StoreTimeoutError
from rlhi_plugin.records import Message
from rlhi_plugin.stores import open_store

_spec = spec_from_file_location("moody_store", Path(__file__).with_name("moody_store.py"))
moody = module_from_spec(_spec)
_spec.loader.exec_module(moody)
until, contents = moody.until, moody.contents


@pytest.fixture
def store(tmp_path):
    made = moody.MoodyStore(f"sqlite:///{tmp_path}/a.db")
    yield made
    made.close()


@pytest.fixture
def writer_of(store, tmp_path):
    made = []

    def make(**options):
        options = {"journal": tmp_path / "journal", "store_timeout_s": 0.3} | options
        made.append(DurableWriter(store, WriterOptions(**options)))
        return made[-1]

    yield make
    store.mend()
    for writer in made:
        writer.close()


def say(writer, conversation, text, user=None):
    return writer.write(conversation, user_id=user, messages=[Message(id=text, role="user", content=text)])


def test_a_turn_is_in_the_store_on_return(writer_of, store):
    writer = writer_of()
    assert say(writer, "t", "a")
    assert contents(store) == {"t": ["a"]}
    status = writer.status()
    assert (status.mode, status.store_ok, status.waiting, status.dropped) == ("sync", True, 0, 0)


@pytest.mark.parametrize("error", [StoreError("down"), OSError(28, "disk full"), MemoryError(), ValueError("bug")])
def test_a_store_that_raises_loses_nothing(writer_of, store, error, tmp_path):
    writer = writer_of()
    say(writer, "t", "a")
    store.fail(error)
    assert all(say(writer, "t", text) for text in "bcd")
    assert read_folder(tmp_path / "journal").waiting == 3
    status = writer.status()
    assert (status.store_ok, status.waiting, status.journalled) == (False, 3, 3)
    assert str(error) in status.last_error
    store.mend()
    until(lambda: writer.status().waiting == 0)
    assert contents(store) == {"t": list("abcd")}
    assert (writer.status().replayed, writer.status().store_ok) == (3, True)
    assert files_in(tmp_path / "journal") == []


def test_an_open_breaker_does_not_ask_the_store(writer_of, store):
    writer = writer_of()
    store.fail()
    say(writer, "t", "first")
    before = store.appends
    started = time.monotonic()
    for number in range(20):
        say(writer, f"t{number}", "x")
    probes = 3 + 2 * (time.monotonic() - started) / 0.1
    assert store.appends - before <= probes


def test_a_store_that_hangs_keeps_a_turn_for_the_time_limit_and_later_ones_not_at_all(writer_of, store):
    writer = writer_of()
    say(writer, "t", "a")
    store.hang()
    started = time.monotonic()
    assert say(writer, "t", "b")
    assert 0.3 <= time.monotonic() - started < 1.5
    started = time.monotonic()
    assert all(say(writer, f"t{n}", "c") for n in range(20))
    assert time.monotonic() - started < 0.3
    assert "did not answer within 0.3 s" in writer.status().last_error
    store.mend()
    until(lambda: writer.status().waiting == 0)
    # The append that was given up happened too; each message is stored once all the same.
    assert contents(store) == {"t": ["a", "b"]} | {f"t{n}": ["c"] for n in range(20)}


def test_a_disk_that_hangs_is_not_waited_for_where_the_journal_is_on_another(tmp_path, monkeypatch):
    go_on = threading.Event()
    with open_store(f"sqlite:///{tmp_path}/a.db") as inner:
        append = inner._sqlite.append
        monkeypatch.setattr(inner._sqlite, "append", lambda *given: go_on.wait(30) and append(*given))
        monkeypatch.setattr("rlhi_plugin.durability.writer.may_outlive", lambda *_: True)
        writer = DurableWriter(inner, WriterOptions(journal=tmp_path / "journal", store_timeout_s=0.3))
        started = time.monotonic()
        assert say(writer, "t", "a")
        assert time.monotonic() - started < 1.5
        assert writer.status().journalled == 1
        go_on.set()
        until(lambda: writer.status().waiting == 0)
        assert contents(inner) == {"t": ["a"]}
        writer.close()


def test_a_journal_outlives_the_file_of_a_store_on_another_disk_only(tmp_path):
    file = f"sqlite:///{tmp_path}/new/a.db"
    assert not may_outlive(tmp_path / "journal", file)
    assert may_outlive(Path("/proc/journal"), file)
    assert may_outlive(None, file)
    assert not may_outlive(None, "postgresql://somewhere/base")
    assert not may_outlive(None, "memory of its own:")
    assert not may_outlive(None, object())


def test_later_turns_of_a_waiting_conversation_do_not_overtake_it(writer_of, store):
    writer = writer_of()
    holding = threading.Event()
    append = store.append

    def holds_one(conversation_id, *, user_id, messages):
        if conversation_id == "slow" and not holding.is_set():
            raise StoreError("not this one")
        return append(conversation_id, user_id=user_id, messages=messages)

    store.append = holds_one
    say(writer, "slow", "1")
    say(writer, "other", "x")
    until(lambda: "other" in contents(store))
    # The store works again by now, but a part of this conversation waits.
    assert say(writer, "slow", "2")
    assert say(writer, "other", "y")
    assert "slow" not in contents(store)
    holding.set()
    until(lambda: writer.status().waiting == 0, 30)
    assert contents(store) == {"slow": ["1", "2"], "other": ["x", "y"]}


def test_a_refused_turn_is_set_aside_with_its_reason(writer_of, store, tmp_path):
    store.fail(OwnerMismatchError("belongs to somebody else"))
    writer = writer_of()
    assert say(writer, "t", "a")
    assert (writer.status().refused, writer.status().waiting, writer.status().store_ok) == (1, 0, True)
    assert b"belongs to somebody else" in refused_in(tmp_path / "journal")[0].read_bytes()


def test_two_users_of_one_thread_are_two_conversations_after_a_replay_too(writer_of, store):
    writer = writer_of()
    say(writer, "t", "a", "u_1")
    store.fail()
    say(writer, "t", "b", "u_2")
    store.mend()
    until(lambda: writer.status().waiting == 0)
    say(writer, "t", "c", "u_2")
    assert contents(store) == {"t": ["a"], "t@u_2": ["b", "c"]}


def test_without_a_journal_a_failure_is_counted_and_the_store_is_tried_again(writer_of, store, caplog):
    writer = writer_of(journal=None)
    store.fail()
    with caplog.at_level(logging.ERROR, "rlhi.middleware"):
        assert not any(say(writer, "t", str(n)) for n in range(50))
    assert writer.status().dropped == 50
    assert writer.status().journal is None
    assert 2 <= len(caplog.records) < 10
    store.mend()
    until(lambda: say(writer, "t", "back"))
    assert contents(store) == {"t": ["back"]}


def test_a_journal_that_cannot_be_written_is_counted(writer_of, store, tmp_path):
    (tmp_path / "journal").write_text("a file where the folder should be")
    writer = writer_of()
    store.fail()
    assert not say(writer, "t", "a")
    assert writer.status().dropped == 1
    store.mend()
    until(lambda: say(writer, "t", "b"))
    assert contents(store) == {"t": ["b"]}


def test_the_next_process_replays_before_new_turns_of_the_conversation(writer_of, store):
    first = writer_of()
    store.fail()
    say(first, "t", "1")
    first.close()
    second = writer_of()
    assert second.status().journalled == 1
    say(second, "t", "2")
    store.mend()
    until(lambda: second.status().waiting == 0)
    assert contents(store) == {"t": ["1", "2"]}


def test_many_threads_through_an_outage(writer_of, store):
    writer = writer_of()

    def talk(thread):
        for number in range(30):
            assert say(writer, f"t{thread}", f"{thread}-{number}")
            if thread == 0 and number == 10:
                store.fail()
            if thread == 0 and number == 20:
                store.mend()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(talk, range(16)))
    store.mend()
    until(lambda: writer.status().waiting == 0)
    assert contents(store) == {f"t{t}": [f"{t}-{n}" for n in range(30)] for t in range(16)}


# async


def test_async_returns_at_once_and_flush_waits(writer_of, store):
    writer = writer_of(durability="async", store_timeout_s=30)
    store.hang()
    started = time.monotonic()
    assert all(say(writer, "t", str(n)) for n in range(10))
    assert time.monotonic() - started < 0.3
    assert writer.status().queued == 10
    assert not writer.flush(0.05)
    store.mend()
    assert writer.flush(10)
    assert contents(store) == {"t": [str(n) for n in range(10)]}
    assert writer.status().queued == 0


def test_async_drops_are_counted_and_logged_once_in_a_while(writer_of, store, caplog):
    writer = writer_of(durability="async", store_timeout_s=30, queue_size=5)
    store.hang()
    with caplog.at_level(logging.ERROR, "rlhi.middleware"):
        taken = [say(writer, "t", str(n)) for n in range(50)]
    assert sum(taken) in (5, 6)
    assert writer.status().dropped == taken.count(False)
    assert len(caplog.records) == 1
    store.mend()
    assert writer.close()
    assert contents(store) == {"t": [str(n) for n, was in enumerate(taken) if was]}


def test_async_goes_to_the_journal_too(writer_of, store):
    writer = writer_of(durability="async")
    store.fail()
    say(writer, "t", "a")
    assert writer.flush(10)
    assert writer.status().waiting == 1
    store.mend()
    until(lambda: writer.status().waiting == 0)
    assert contents(store) == {"t": ["a"]}


def _run(program, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


WRITES = """
    import sys
    from pathlib import Path
    from rlhi_plugin.durability import DurableWriter, WriterOptions
    from rlhi_plugin.records import Message
    from rlhi_plugin.stores import open_store

    def say(writer, text):
        return writer.write("t", user_id=None, messages=[Message(id=text, role="user", content=text)])
"""


@pytest.mark.parametrize("closed", ["", "writer.close()"], ids=["open", "closed-before"])
def test_the_end_of_the_program_writes_what_is_queued(tmp_path, closed):
    program = (
        WRITES
        + f"""
    store = open_store(f"sqlite:///{{sys.argv[1]}}/a.db")
    writer = DurableWriter(store, WriterOptions(durability="async", journal=Path(sys.argv[1], "journal")))
    {closed}
    for number in range(200):
        say(writer, str(number))
    """
    )
    _run(program, tmp_path)
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        assert contents(store) == {"t": [str(n) for n in range(200)]}


def test_a_hanging_store_does_not_keep_a_program_from_ending(tmp_path):
    program = (
        WRITES
        + """
    import time
    class Hangs:
        def append(self, conversation_id, *, user_id, messages): time.sleep(600)
        def conversations(self, *, user_id=None): return iter(())
        def close(self): pass
    options = WriterOptions(journal=Path(sys.argv[1], "journal"), store_timeout_s=0.2)
    print(say(DurableWriter(Hangs(), options), "a"))
    """
    )
    started = time.monotonic()
    assert _run(program, tmp_path) == "True\n"
    assert time.monotonic() - started < 30
    assert read_folder(tmp_path / "journal").waiting == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_a_journal_of_its_own(tmp_path):
    program = (
        WRITES
        + """
    import os
    class Down:
        def append(self, conversation_id, *, user_id, messages): raise RuntimeError("down")
        def conversations(self, *, user_id=None): return iter(())
        def close(self): pass
    writer = DurableWriter(Down(), WriterOptions(journal=Path(sys.argv[1], "journal")))
    assert say(writer, "parent")
    child = os.fork()
    if not child:
        os._exit(0 if say(writer, "child") and writer.status().waiting == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert writer.status().waiting == 1
    from rlhi_plugin.durability.folders import read_folder
    report = read_folder(Path(sys.argv[1], "journal"))
    print([(file.owned, file.turns) for file in report.files])
    """
    )
    assert _run(program, tmp_path) == "[(True, 1), (False, 1)]\n"


# personas


def test_nobody_waits_for_a_persona_longer_than_the_limit(store):
    personas = TimedPersonas(store, timeout_s=0.2)
    assert personas.get_persona("u_1") is None
    store.hang()
    started = time.monotonic()
    for _ in range(5):
        with pytest.raises(StoreTimeoutError):
            personas.get_persona("u_1")
    assert 0.2 <= time.monotonic() - started < 1.0
    store.mend()


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"durability": "fast"}, "'sync' or 'async'"),
        ({"store_timeout_s": 0}, "more than 0"),
        ({"queue_size": 0}, "1 or"),
    ],
)
def test_wrong_options_name_a_remedy(options, remedy):
    with pytest.raises(ConfigError, match=remedy):
        WriterOptions(**options)
