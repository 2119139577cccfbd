"""Real faults around a real agent and a real SQLite file: kills, full disks, garbage, locks."""

import os
import shutil
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver

from rlhi_plugin import RLHIMiddleware
from rlhi_plugin.durability.folders import read_folder
from rlhi_plugin.stores import open_store


def _beside(name):
    spec = spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


until, contents = _beside("moody_store").until, _beside("moody_store").contents


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("RLHI_KEY", "0123456789abcdef")


@contextmanager
def assistant(folder, saver=None, **options):
    """A function that says something in a thread, and the middleware that logs it."""
    middleware = RLHIMiddleware(store=f"sqlite:///{folder}/rlhi.db", **options)
    model = GenericFakeChatModel(messages=iter(lambda: AIMessage("ok"), None))
    agent = create_agent(model, middleware=[middleware], checkpointer=saver or InMemorySaver())

    def talk(text, thread="t"):
        config = {"configurable": {"thread_id": thread, "user_id": "u"}}
        return agent.invoke({"messages": [("user", text)]}, config=config)["messages"][-1].content

    try:
        yield talk, middleware
    finally:
        middleware.close()
        middleware.store.close()


@pytest.mark.slow
def test_fifteen_kills_lose_nothing(tmp_path):
    result = _beside("fault_harness").harness(15, tmp_path, seed=1)
    assert result.problems == []
    assert result.killed == result.rounds == 15
    assert result.acknowledged > 100
    assert result.journalled > 0


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no right to mount; RLIMIT_FSIZE stands in for a full disk in the next test")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def _fill(folder):
    with (folder / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"x" * 1024)
        except OSError:
            return


def test_a_full_disk_under_the_store(small_disk, tmp_path):
    with assistant(small_disk, journal=tmp_path / "journal") as (talk, middleware):
        assert talk("before") == "ok"
        _fill(small_disk)
        for number in range(5):
            assert talk("during " + "x" * 20_000, f"t{number}") == "ok"
        assert middleware.status().waiting > 0
        assert "full" in middleware.status().last_error
        (small_disk / "filler").unlink()
        until(lambda: not middleware.status().waiting, 20)
        assert talk("after") == "ok"
        assert middleware.dropped == 0
        found = contents(middleware.store)
        assert found["t"] == ["before", "ok", "after", "ok"]
        assert [len(found[f"t{n}"]) for n in range(5)] == [2] * 5


def test_a_full_disk_under_store_and_journal_is_counted_and_healed_by_the_next_turn(small_disk):
    with assistant(small_disk) as (talk, middleware):
        assert talk("before") == "ok"
        _fill(small_disk)
        big = "during " + "x" * 50_000
        assert talk(big) == "ok"
        assert middleware.dropped == 2
        (small_disk / "filler").unlink()
        time.sleep(0.5)
        assert talk("after", "other") == "ok"
        assert contents(middleware.store)["other"] == ["after", "ok"]
        # What was dropped was not forgotten: offered again, it is stored.
        assert talk("and now") == "ok"
        assert contents(middleware.store)["t"] == ["before", "ok", big, "ok", "and now", "ok"]


def test_a_limit_on_file_sizes(tmp_path):
    program = """
    import resource, sys
    sys.path[:0] = sys.argv[2:]
    from pathlib import Path
    from rlhi_plugin.durability import DurableWriter, WriterOptions
    from rlhi_plugin.records import Message
    from rlhi_plugin.stores import open_store
    store = open_store(f"sqlite:///{sys.argv[1]}/rlhi.db")
    writer = DurableWriter(store, WriterOptions(journal=Path(sys.argv[1], "journal")))
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    taken = []
    for number in range(60):
        said = Message(id=str(number), role="user", content=f"{number} " + "x" * 20_000)
        if writer.write(f"t{number}", user_id=None, messages=[said]):
            taken.append(number)
    status = writer.status()
    assert status.waiting > 0 and status.dropped > 0 and not status.store_ok, status
    assert status.dropped == 60 - len(taken), status
    writer.close()
    print(taken)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), tmp_path, *sys.path],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    taken = [int(n) for n in done.stdout.strip("[]\n").split(",")]
    with assistant(tmp_path, journal=tmp_path / "journal") as (_, middleware):
        until(lambda: not middleware.status().waiting)
        assert set(contents(middleware.store)) == {f"t{n}" for n in taken}


def test_a_database_replaced_by_garbage(tmp_path):
    with assistant(tmp_path) as (talk, middleware):
        assert talk("before") == "ok"
        middleware.store.close()  # a backup of a database at rest
        backup = shutil.copy(tmp_path / "rlhi.db", tmp_path / "backup.db")
        for suffix in ("-wal", "-shm"):
            (tmp_path / f"rlhi.db{suffix}").unlink(missing_ok=True)
        (tmp_path / "rlhi.db").write_bytes(os.urandom(50_000))
        assert all(talk(f"during {n}") == "ok" for n in range(3))
        assert middleware.status().waiting == 3
        assert "not a database" in middleware.status().last_error
        middleware.store.close()
        Path(backup).replace(tmp_path / "rlhi.db")
        until(lambda: not middleware.status().waiting, 20)
        assert talk("after") == "ok"
        assert contents(middleware.store) == {
            "t": ["before", "ok", "during 0", "ok", "during 1", "ok", "during 2", "ok", "after", "ok"]
        }
        assert middleware.dropped == 0


def test_a_database_locked_for_longer_than_the_limit(tmp_path):
    with assistant(tmp_path, store_timeout_s=0.3) as (talk, middleware):
        assert talk("before") == "ok"
        program = (
            "import sqlite3, sys, time\n"
            "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "connection.execute('BEGIN IMMEDIATE')\n"
            "print('locked', flush=True)\n"
            "sys.stdin.read()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, tmp_path / "rlhi.db"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as locker:  # fmt: skip
            assert locker.stdout.readline() == "locked\n"
            started = time.monotonic()
            assert talk("during 0") == "ok"
            assert time.monotonic() - started < 2
            started = time.monotonic()
            assert all(talk(f"during {n}") == "ok" for n in range(1, 6))
            assert time.monotonic() - started < 1
            assert read_folder(tmp_path / "rlhi.db.journal").waiting == 6
            locker.stdin.close()
        until(lambda: not middleware.status().waiting, 30)
        assert talk("after") == "ok"
        texts = ["before", *[f"during {n}" for n in range(6)], "after"]
        assert contents(middleware.store)["t"] == [part for text in texts for part in (text, "ok")]


def test_a_store_that_is_down_at_the_start_of_the_next_process(tmp_path):
    saver = InMemorySaver()
    with assistant(tmp_path, saver) as (talk, middleware):
        talk("first")
        middleware.store.submit = lambda *_, **__: 1 / 0
        talk("second")
    assert read_folder(tmp_path / "rlhi.db.journal").waiting == 1
    with assistant(tmp_path, saver) as (talk, middleware):
        talk("third")
        until(lambda: not middleware.status().waiting)
        assert contents(middleware.store) == {"t": ["first", "ok", "second", "ok", "third", "ok"]}
    with open_store(f"sqlite:///{tmp_path}/rlhi.db") as store:
        assert store.counts().messages == 6
