"""The journal: lines that survive, files that change hands, replay in order, and what is set aside."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
from typer.testing import CliRunner

from rlhi_plugin.durability.commands import journal_app
from rlhi_plugin.durability.folders import erase_user, read_folder, replay_folder
from rlhi_plugin.durability.journal import Journal
from rlhi_plugin.durability.location import journal_folder
from rlhi_plugin.durability.replay import replay
from rlhi_plugin.durability.turn_file import JournalledTurn, decode, encode, files_in, refused_in
from rlhi_plugin.errors import OwnerMismatchError, StoreError
from rlhi_plugin.records import Message
from rlhi_plugin.stores import open_store


def turn(conversation, text, user=None):
    return JournalledTurn(
        conversation_id=conversation, user_id=user, messages=(Message(id=text, role="user", content=text),)
    )


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as opened:
        yield opened


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path / "journal")
    yield made
    made.close()


def put_into(store):
    def put(one):
        store.append(one.conversation_id, user_id=one.user_id, messages=one.messages)

    return put


def stored(store):
    return {c.conversation_id: [m.content for m in c.messages] for c in store.conversations()}


def test_a_line_comes_back_and_a_flipped_bit_does_not():
    raw = encode(turn("t", 'Zoë says\n\u2028 {"a": 1}'))
    assert raw.count(b"\n") == 1
    assert json.loads(raw)["turn"]["conversation_id"] == "t"
    assert decode(raw, 0).turn == turn("t", 'Zoë says\n\u2028 {"a": 1}')
    for at in range(len(raw) - 1):
        broken = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        assert decode(broken, 0).turn is None, at
    assert all(decode(raw[:cut], 0).torn for cut in range(1, len(raw)))


def test_turns_are_replayed_in_order_and_the_file_goes(journal, store, tmp_path):
    for number in range(20):
        journal.append(turn(f"t{number % 3}", str(number)))
    assert journal.holds(("t1", None))
    assert len(read_folder(tmp_path / "journal").files) == 1
    done = replay(journal, put_into(store))
    assert (done.replayed, done.left, len(journal)) == (20, 0, 0)
    assert stored(store) == {f"t{i}": [str(n) for n in range(20) if n % 3 == i] for i in range(3)}
    assert not journal.holds(("t1", None))
    assert files_in(tmp_path / "journal") == []


def test_the_files_of_this_user_are_private(journal, tmp_path):
    journal.append(turn("t", "a"))
    (file,) = files_in(tmp_path / "journal")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_a_living_owner_keeps_its_file(journal, tmp_path, store):
    journal.append(turn("t", "a"))
    other = Journal(tmp_path / "journal")
    assert other.take_over().turns == 0
    assert [file.owned for file in read_folder(tmp_path / "journal").files] == [True]
    assert replay_folder(tmp_path / "journal", store).replayed == 0
    journal.close()
    assert other.take_over().turns == 1
    other.close()


def test_the_file_of_a_killed_process_is_taken_over(tmp_path, store):
    program = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from rlhi_plugin.durability.journal import Journal
        from rlhi_plugin.durability.turn_file import JournalledTurn
        from rlhi_plugin.records import Message
        journal = Journal(Path(sys.argv[1]))
        for n in range(5):
            said = Message(id=str(n), role="user", content=str(n))
            journal.append(JournalledTurn(conversation_id="t", messages=(said,)))
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "journal"], check=False)
    assert done.returncode == -9
    journal = Journal(tmp_path / "journal")
    assert journal.take_over().turns == 5
    replay(journal, put_into(store))
    assert stored(store) == {"t": list("01234")}


def test_a_torn_last_line_is_tolerated_and_reported(tmp_path, journal, store):
    for text in ("a", "b"):
        journal.append(turn("t", text))
    (file,) = files_in(tmp_path / "journal")
    journal.close()
    file.write_bytes(file.read_bytes()[:-9])
    found = Journal(tmp_path / "journal")
    assert found.take_over().torn == 1
    assert replay(found, put_into(store)).replayed == 1
    assert stored(store) == {"t": ["a"]}


def test_a_damaged_line_is_set_aside_and_blocks_nothing(tmp_path, journal, store):
    for text in ("aaaa", "bbbb", "cccc"):
        journal.append(turn("t", text))
    (file,) = files_in(tmp_path / "journal")
    journal.close()
    file.write_bytes(file.read_bytes().replace(b'"content":"bbbb"', b'"content":"bbxb"'))
    found = Journal(tmp_path / "journal")
    taken = found.take_over()
    assert (taken.turns, taken.refused) == (2, 1)
    replay(found, put_into(store))
    assert stored(store) == {"t": ["aaaa", "cccc"]}
    (aside,) = refused_in(tmp_path / "journal")
    assert "checksum" in json.loads(aside.read_bytes())["reason"]
    assert "bbxb" in json.loads(aside.read_bytes())["line"]


def test_what_the_store_refuses_for_good_is_set_aside_once_and_can_be_offered_again(tmp_path, journal, store):
    def put(one):
        if one.conversation_id == "bad":
            raise OwnerMismatchError("somebody else's")
        put_into(store)(one)

    for conversation in ("a", "bad", "b"):
        journal.append(turn(conversation, conversation))
    done = replay(journal, put)
    assert (done.replayed, done.refused, done.left) == (2, 1, 0)
    assert read_folder(tmp_path / "journal").set_aside == 1
    again = replay_folder(tmp_path / "journal", store, refused=True)
    assert (again.replayed, again.refused) == (1, 0)
    assert set(stored(store)) == {"a", "b", "bad"}
    assert refused_in(tmp_path / "journal") == []


def test_a_conversation_that_fails_does_not_block_others_nor_overtake_itself(journal, store):
    failures = iter([StoreError("not now")])

    def put(one):
        if one.messages[0].content == "a1" and (error := next(failures, None)):
            raise error
        put_into(store)(one)

    for conversation, text in (("a", "a1"), ("b", "b1"), ("a", "a2"), ("b", "b2")):
        journal.append(turn(conversation, text))
    first = replay(journal, put)
    assert (first.replayed, first.left) == (2, 2)
    assert stored(store) == {"b": ["b1", "b2"]}
    replay(journal, put)
    assert stored(store)["a"] == ["a1", "a2"]


def test_a_line_that_alone_fails_again_and_again_is_set_aside(journal, store):
    def put(one):
        if one.conversation_id == "bad":
            raise StoreError("integer out of range")
        put_into(store)(one)

    journal.append(turn("bad", "x"))
    for number in range(3):
        journal.append(turn("good", str(number)))
        done = replay(journal, put, strikes=3, strikes_s=0)
    assert (done.refused, len(journal)) == (1, 0)


def test_nothing_is_set_aside_while_the_store_is_down(journal):
    def put(one):
        raise StoreError("down")

    for number in range(5):
        journal.append(turn(f"t{number}", "x"))
    for _ in range(5):
        done = replay(journal, put, strikes=1, strikes_s=0)
    assert (done.refused, done.left) == (0, 5)


@pytest.mark.parametrize("every", [4, 7, 13])
def test_a_store_that_goes_up_and_down_makes_no_line_bad(journal, store, every):
    puts = []

    def put(one):
        puts.append(one)
        if len(puts) // every % 2:
            raise StoreError("down again")
        put_into(store)(one)

    for number in range(60):
        journal.append(turn(f"t{number % 20}", str(number)))
    refused = rounds = 0
    while len(journal):
        done = replay(journal, put, strikes_s=0)
        refused, rounds = refused + done.refused, rounds + 1
        assert rounds < 200
    assert refused == 0
    assert stored(store) == {f"t{i}": [str(i), str(i + 20), str(i + 40)] for i in range(20)}


def test_a_round_ends_soon_when_the_store_goes_down(journal):
    puts = []

    def put(one):
        puts.append(one)
        if len(puts) > 1:
            raise StoreError("down")

    for number in range(40):
        journal.append(turn(f"t{number}", "x"))
    done = replay(journal, put)
    assert (done.replayed, done.refused, done.left, len(puts)) == (1, 0, 39, 4)


def test_bad_lines_do_not_stand_in_the_way_however_many_there_are(journal, store):
    def put(one):
        if one.conversation_id.startswith("bad"):
            raise StoreError("integer out of range")
        put_into(store)(one)

    for number in range(12):
        journal.append(turn(f"bad{number}", "x"))
    journal.append(turn("good", "x"))
    rounds = 0
    while "good" not in stored(store):
        replay(journal, put)
        rounds += 1
        assert rounds <= 5
    assert len(journal) == 12


def test_a_file_made_by_a_clock_that_went_back_comes_last(tmp_path, monkeypatch):
    first, second = Journal(tmp_path), Journal(tmp_path)
    first.append(turn("t", "1"))
    monkeypatch.setattr("time.time_ns", lambda: 5)
    second.append(turn("t", "2"))
    names = files_in(tmp_path)
    assert [b'"1"' in file.read_bytes() for file in names] == [True, False]
    first.close()
    second.close()


def test_a_crash_in_the_middle_of_a_replay_does_not_begin_it_again(tmp_path, journal, store):
    for number in range(120):
        journal.append(turn("t", str(number)))
    entries = journal.entries()
    journal.done(*entries[:110])
    journal.close()
    found = Journal(tmp_path / "journal")
    assert found.take_over().turns == read_folder(tmp_path / "journal").waiting <= 60
    replay(found, put_into(store))
    assert stored(store)["t"][-10:] == [str(n) for n in range(110, 120)]
    assert list((tmp_path / "journal").iterdir()) == []


def test_a_note_of_progress_that_fits_no_line_is_not_believed(tmp_path, journal):
    for number in range(3):
        journal.append(turn("t", str(number)))
    (file,) = files_in(tmp_path / "journal")
    journal.close()
    for note in ("7", "99999999", "-4", "x", ""):
        file.with_suffix(".done").write_text(note)
        assert read_folder(tmp_path / "journal").waiting == 3


def test_a_failed_write_leaves_no_half_line(tmp_path, journal, monkeypatch):
    journal.append(turn("t", "a"))
    whole, write = files_in(tmp_path / "journal")[0].stat().st_size, os.write

    def short(descriptor, data):
        if len(data) > 20:
            return write(descriptor, data[:20])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: short(descriptor, data[:21]))
        with pytest.raises(OSError, match="No space"):
            journal.append(turn("t", "b"))
    assert files_in(tmp_path / "journal")[0].stat().st_size == whole
    assert len(journal) == 1
    journal.append(turn("t", "c"))
    lines = files_in(tmp_path / "journal")[0].read_bytes().splitlines(keepends=True)
    assert [decode(raw, 0).problem for raw in lines] == [None, None]


def test_erasing_a_user_leaves_the_others(tmp_path, journal):
    for user in ("u_1", "u_2", None, "u_1"):
        journal.append(turn(f"of-{user}", f"text of {user}", user))
    assert erase_user(tmp_path / "journal", "u_1") == (0, files_in(tmp_path / "journal"))
    journal.close()
    assert erase_user(tmp_path / "journal", "u_1") == (2, [])
    (file,) = files_in(tmp_path / "journal")
    assert b"u_1" not in file.read_bytes()
    assert read_folder(tmp_path / "journal").waiting == 2


def test_every_store_has_a_journal_of_its_own(tmp_path):
    assert journal_folder(f"sqlite:///{tmp_path}/rlhi.db") == tmp_path / "rlhi.db.journal"
    with open_store(f"sqlite:///{tmp_path}/rlhi.db") as store:
        assert journal_folder(store) == tmp_path / "rlhi.db.journal"
    urls = ["postgresql://u:secret@h/a", "postgresql://u:secret@h/b", "postgresql://u@other/a"]
    folders = [journal_folder(url) for url in urls]
    assert len(set(folders)) == 3
    assert not any("secret" in str(folder) for folder in folders)
    assert journal_folder("postgresql+psycopg://u:x@h/a") == folders[0]
    assert journal_folder(object()) != journal_folder(object())


def test_the_commands_show_and_replay(tmp_path, journal):
    url, folder = f"sqlite:///{tmp_path}/a.db", str(tmp_path / "journal")
    runner = CliRunner()
    assert "nothing waits" in runner.invoke(journal_app, ["status", "--store", url]).output
    journal.append(turn("t", "a"))
    shown = runner.invoke(journal_app, ["status", "--store", url, "--journal", folder], env={"COLUMNS": "200"})
    assert "running" in shown.output
    journal.close()
    done = runner.invoke(journal_app, ["replay", "--store", url, "--journal", folder])
    assert "1 turn(s) replayed, 0 refused, 0 left" in done.output
    with open_store(url) as store:
        assert stored(store) == {"t": ["a"]}
