"""What ended processes left, when that is much: the start does not wait for it, and nothing overtakes or is lost."""

import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from moody_store import contents, until

from rlhi_plugin.durability import DurableWriter, WriterOptions, background
from rlhi_plugin.durability.backlog import Backlog
from rlhi_plugin.durability.journal import Journal
from rlhi_plugin.durability.replay import replay
from rlhi_plugin.durability.turn_file import JournalledTurn, Write, blank, decode, encode, files_in, key_of, refused_in
from rlhi_plugin.errors import StoreError
from rlhi_plugin.records import FeedbackEvent, Message
from rlhi_plugin.stores import open_store


def turn(conversation, text, user=None):
    said = Message(id=text, role="user", content=text)
    return JournalledTurn(conversation_id=conversation, user_id=user, messages=(said,))


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as opened:
        yield opened


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "journal"


WINDOW = 40


@pytest.fixture(autouse=True)
def window(monkeypatch):
    monkeypatch.setattr("rlhi_plugin.durability.backlog.WINDOW", WINDOW)


def leave(folder, *turns):
    """A file of a process that ended."""
    journal = Journal(folder)
    for one in turns:
        journal.append(one)
    journal.close()
    return files_in(folder)[-1]


def put_into(store):
    def put(one):
        store.append(one.conversation_id, user_id=one.user_id, messages=one.messages)

    return put


def say(writer, conversation, text):
    return writer.write(conversation, user_id=None, messages=[Message(id=text, role="user", content=text)])


@pytest.fixture
def surveys(monkeypatch):
    """Every journal is a large one, and its survey waits until it may go on."""
    go_on, survey = threading.Event(), Backlog.survey

    def waits(backlog, stopped):
        while not go_on.wait(0.01):
            if stopped():
                return None
        return survey(backlog, stopped)

    monkeypatch.setattr(background, "SURVEYED_AT_ONCE", -1)
    monkeypatch.setattr(Backlog, "survey", waits)
    return go_on


@pytest.mark.parametrize("user", [None, "u_1", "w_a-b.c:d"])
@pytest.mark.parametrize("name", ["t", 'say "hi"', "Zoë\n\\", "\u2028", "日本", '","user_id":"u_2', "x" * 256])
def test_a_key_is_read_without_what_was_said(name, user):
    event = FeedbackEvent(event_id="e", conversation_id=name, user_id=user, kind="copy")
    said = Message(id="1", role="user", content='{"conversation_id":"other","user_id":"u_3"}')
    for line in (Write(name, user, [said]), Write(name, user, []), Write(name, user, feedback=event)):
        raw = encode(line)
        assert key_of(raw) == (name, user) == (decode(raw, 0).turn.conversation_id, decode(raw, 0).turn.user_id)
        assert key_of(raw[:-1]) is None
        assert key_of(raw.replace(b"}\n", b"]\n")) is None
    assert key_of(blank(200)) == ("-", None)


def test_the_start_does_not_wait_and_nothing_overtakes(folder, store, surveys):
    leave(folder, turn("t", "1"), turn("t", "2"), turn("other", "x"))
    writer = DurableWriter(store, WriterOptions(journal=folder))
    status = writer.status()
    assert (status.reading, status.waiting, status.journalled) == (True, 1, 0)
    # Nobody knows yet who waits, so everybody does.
    assert not writer.begin("new", user_id=None, messages=[Message(id="n", role="user", content="n")])
    assert all([say(writer, "t", "3"), say(writer, "new", "n")])
    assert contents(store) == {}
    assert writer.status().waiting == 3
    surveys.set()
    until(lambda: not writer.status().waiting)
    assert contents(store) == {"t": ["1", "2", "3"], "other": ["x"], "new": ["n"]}
    status = writer.status()
    assert (status.reading, status.journalled, status.replayed) == (False, 5, 5)
    assert say(writer, "t", "4")
    assert contents(store)["t"] == ["1", "2", "3", "4"]
    assert files_in(folder) == []
    writer.close()


def test_closing_in_the_middle_of_a_survey_loses_nothing(folder, store, surveys):
    leave(folder, turn("t", "1"), turn("t", "2"))
    writer = DurableWriter(store, WriterOptions(journal=folder))
    say(writer, "t", "3")
    started = time.monotonic()
    writer.close()
    assert time.monotonic() - started < 1.5
    surveys.set()
    following = DurableWriter(store, WriterOptions(journal=folder))
    until(lambda: not following.status().waiting)
    assert contents(store) == {"t": ["1", "2", "3"]}
    following.close()


def test_what_a_survey_finds_after_the_journal_was_closed_is_somebody_elses(folder, store, surveys):
    leave(folder, turn("t", "1"))
    journal = Journal(folder)
    journal.adopt()
    surveying = threading.Thread(target=journal.survey)
    surveying.start()
    journal.close()
    following = Journal(folder)
    following.adopt()
    surveys.set()
    surveying.join()
    assert (len(journal), journal.holds(("t", None)), journal.entries()) == (0, False, [])
    assert following.survey().turns == 1
    assert replay(following, put_into(store)).replayed == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_that_is_forked_in_the_middle_of_a_survey_has_no_part_in_it(folder, tmp_path):
    leave(folder, turn("t", "1"))
    program = """
    import os, sys, threading
    from pathlib import Path
    from rlhi_plugin.durability import DurableWriter, WriterOptions, background
    from rlhi_plugin.durability.backlog import Backlog
    from rlhi_plugin.records import Message
    from rlhi_plugin.stores import open_store
    go_on, survey = threading.Event(), Backlog.survey
    background.SURVEYED_AT_ONCE = -1
    Backlog.survey = lambda backlog, stopped: go_on.wait(30) and survey(backlog, stopped)
    store = open_store(f"sqlite:///{sys.argv[1]}/a.db")
    writer = DurableWriter(store, WriterOptions(journal=Path(sys.argv[1], "journal")))
    def say(text):
        return writer.write(text, user_id=None, messages=[Message(id=text, role="user", content=text)])
    child = os.fork()
    if not child:
        status = writer.status()
        os._exit(0 if (status.waiting, status.reading) == (0, False) and say("child") else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert writer.status().reading
    go_on.set()
    while writer.status().waiting:
        pass
    print({c.conversation_id for c in store.conversations()} == {"child", "t"})
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), tmp_path],
        check=False, capture_output=True, text=True, timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@pytest.fixture
def unreadable(monkeypatch):
    """Paths whose files cannot be opened for reading."""
    paths, opens = set(), Path.open

    def open_unless(path, *given, **named):
        if path in paths:
            raise OSError(5, "Input/output error")
        return opens(path, *given, **named)

    monkeypatch.setattr(Path, "open", open_unless)
    return paths


def test_a_file_that_cannot_be_read_is_said_and_left_and_keeps_no_other(folder, store, unreadable, caplog):
    lost = leave(folder, turn("t", "1"))
    leave(folder, turn("other", "x"))
    unreadable.add(lost)
    with caplog.at_level(logging.ERROR, "rlhi.middleware"):
        writer = DurableWriter(store, WriterOptions(journal=folder))
    assert "cannot be read" in caplog.text
    until(lambda: not writer.status().waiting)
    assert (contents(store), writer.status().journalled) == ({"other": ["x"]}, 1)
    assert "Input/output error" in writer.status().last_error
    assert say(writer, "third", "y")
    assert writer.status().waiting == 0
    unreadable.clear()
    # It was given up, so whoever comes next has it; this process need not end first.
    following = DurableWriter(store, WriterOptions(journal=folder))
    until(lambda: not following.status().waiting)
    assert contents(store)["t"] == ["1"]
    following.close()
    writer.close()


def test_a_disk_that_fails_later_holds_up_its_own_conversations_alone(folder, store, unreadable):
    file = leave(folder, turn("t", "1"), turn("t", "2"))
    journal = Journal(folder)
    assert journal.take_over().turns == 2
    journal.append(turn("t", "3"))
    journal.append(turn("new", "n"))
    unreadable.add(file)
    done = replay(journal, put_into(store))
    assert (done.replayed, done.left) == (1, 3)
    assert "Input/output error" in str(done.error)
    unreadable.clear()
    while len(journal):
        assert replay(journal, put_into(store)).error is None
    assert contents(store) == {"new": ["n"], "t": ["1", "2", "3"]}


def test_a_file_that_becomes_shorter_is_said_and_ends(folder, store, caplog):
    file = leave(folder, turn("t", "1"), turn("t", "2"), turn("s", "3"))
    journal = Journal(folder)
    assert journal.take_over().turns == 3
    os.truncate(file, len(encode(turn("t", "1"))) + 5)
    with caplog.at_level(logging.ERROR, "rlhi.middleware"):
        done = replay(journal, put_into(store))
    assert (done.replayed, done.left, len(journal)) == (1, 0, 0)
    assert "held 3 turn(s) at first, and 1 later" in caplog.text
    assert not journal.holds(("s", None))
    assert files_in(folder) == []


def test_a_damaged_line_for_which_there_is_no_room_waits(folder, store, monkeypatch):
    file = leave(folder, turn("t", "aaaa"), turn("t", "bbbb"))
    file.write_bytes(file.read_bytes().replace(b'"content":"aaaa"', b'"content":"axaa"'))
    journal = Journal(folder)
    with monkeypatch.context() as patch:

        def full(*_):
            raise OSError(28, "No space left on device")

        patch.setattr("rlhi_plugin.durability.backlog.set_aside", full)
        found = journal.take_over()
    assert (found.turns, found.refused) == (2, 0)
    done = replay(journal, put_into(store))
    assert (done.replayed, done.refused, done.left) == (1, 1, 0)
    assert b"axaa" in refused_in(folder)[0].read_bytes()
    assert contents(store) == {"t": ["bbbb"]}


def test_a_long_journal_is_read_a_window_at_a_time(folder, store):
    turns = 3 * WINDOW
    file = leave(folder, *(turn(f"t{number % 5}", str(number)) for number in range(turns)))
    with file.open("ab") as stream:
        stream.write(b'{"crc32":')
    journal = Journal(folder)
    found = journal.take_over()
    assert (found.turns, found.torn, len(journal)) == (turns, 1, turns)
    # Ours follow theirs, where they are of one conversation.
    journal.append(turn("t0", "last"))
    journal.append(turn("new", "n"))
    assert len(journal.entries()) == WINDOW + 1
    sizes = []
    while len(journal):
        sizes.append(len(journal.entries()))
        replay(journal, put_into(store))
    assert sizes == [WINDOW + 1, WINDOW, WINDOW, 1]
    expected = {f"t{i}": [str(n) for n in range(i, turns, 5)] for i in range(5)} | {"new": ["n"]}
    expected["t0"].append("last")
    assert contents(store) == expected
    assert list(folder.iterdir()) == []


def test_bad_lines_do_not_fill_the_window(folder, store):
    leave(
        folder,
        turn("good", "0"),
        *(turn(f"bad{number % 2}", str(number)) for number in range(2 * WINDOW)),
        turn("good", "1"),
    )

    def put(one):
        if one.conversation_id.startswith("bad"):
            raise StoreError("integer out of range")
        put_into(store)(one)

    journal = Journal(folder)
    journal.take_over()
    for _ in range(3):
        done = replay(journal, put)
    assert contents(store) == {"good": ["0", "1"]}
    assert (done.left, journal.unread) == (2 * WINDOW, False)


def test_how_far_a_long_journal_is_done_is_noted(folder, store):
    leave(folder, *(turn("t", str(number)) for number in range(4 * WINDOW)))
    journal = Journal(folder)
    journal.take_over()
    for _ in range(3):
        replay(journal, put_into(store))
    journal.close()
    following = Journal(folder)
    assert WINDOW <= following.take_over().turns < 2 * WINDOW
    following.close()


def test_other_folders_come_after_and_are_emptied_too(folder, store, tmp_path):
    leave(tmp_path / "old", turn("a", "1"))
    leave(folder, turn("b", "2"))
    writer = DurableWriter(store, WriterOptions(journal=folder, inherits=(tmp_path / "old",)))
    assert writer.status().journalled == 2
    until(lambda: not writer.status().waiting)
    assert contents(store) == {"b": ["2"], "a": ["1"]}
    assert files_in(tmp_path / "old") == files_in(folder) == []
    writer.close()
