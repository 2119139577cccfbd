"""Replay in groups: what one by one would do, in fewer transactions, and what fails in a group fails alone."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from moody_store import MoodyStore, contents, until

from rlhi_plugin.durability import DurableWriter, WriterOptions
from rlhi_plugin.durability.folders import read_folder, replay_folder
from rlhi_plugin.durability.journal import Journal
from rlhi_plugin.durability.owned import OwnedAppends
from rlhi_plugin.durability.readmission import Readmission
from rlhi_plugin.durability.replay import GROUP, GROUP_BYTES, replay
from rlhi_plugin.durability.turn_file import JournalledTurn, files_in
from rlhi_plugin.errors import OwnerMismatchError, StoreError, StoreTimeoutError
from rlhi_plugin.records import ConsentDecision, FeedbackEvent, Message, Purpose
from rlhi_plugin.stores import SQLStore, open_store

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def turn(conversation, *texts, user=None, at=NOW):
    messages = tuple(Message(id=text[:99], role="user", content=text, created_at=at) for text in texts)
    return JournalledTurn(conversation_id=conversation, user_id=user, messages=messages)


def click(conversation, name, user=None):
    event = FeedbackEvent(event_id=name, conversation_id=conversation, user_id=user, kind="copy", created_at=NOW)
    return JournalledTurn(conversation_id=conversation, user_id=user, feedback=event)


class Counting(SQLStore):
    """Knows the groups that it wrote, and is told what to do before and after each."""

    def __init__(self, engine, before=lambda parts: None, after=lambda groups: None):
        super().__init__(engine)
        self.groups, self.before, self.after = [], before, after

    def _append_together(self, parts, limit_s):
        self.before(parts)
        done = super()._append_together(parts, limit_s)
        self.groups.append(len(parts))
        self.after(self.groups)
        return done


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as opened:
        yield Counting(opened._engine)


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path / "journal")
    yield made
    made.close()


def offer(journal, store, **options):
    readmission = Readmission(store, OwnedAppends(store))
    return replay(journal, readmission.put, readmission.put_together, **options)


def test_many_turns_are_few_transactions_in_order_and_once(journal, store):
    for number in range(300):
        journal.append(turn(f"t{number % 20}", str(number), user=f"u_{number % 20}"))
    assert offer(journal, store).replayed == 300
    assert contents(store) == {f"t{i}": [str(n) for n in range(i, 300, 20)] for i in range(20)}
    # The first one alone finds out that the store takes turns.
    assert len(store.groups) <= 2 + 299 // GROUP
    assert len(journal) == 0


def test_a_group_of_long_turns_is_a_small_one(journal, store):
    for number in range(6):
        journal.append(turn(f"t{number}", f"{number} " + "x" * (GROUP_BYTES // 2 - 5_000)))
    assert offer(journal, store, alive=True).replayed == 6
    assert store.groups == [2, 2, 2]


def test_all_that_can_happen_in_one_group(journal, store, tmp_path):
    store.append("taken", user_id="u_1", messages=[Message(id="0", role="user", content="theirs")])
    store.append("both", user_id="u_1", messages=[Message(id="0", role="user", content="theirs")])
    store.append("both@u_2", user_id="u_1", messages=[Message(id="0", role="user", content="theirs")])
    store.put_consent(ConsentDecision(user_id="u_gone", purpose=Purpose.LOG, granted=False, decided_at=NOW))
    for one in (
        turn("a", "a1"),
        turn("broken", "words"),
        turn("taken", "t1", user="u_2"),
        turn("both", "b1", user="u_2"),
        turn("w", "w1", user="u_gone"),
        click("a", "c1"),
        turn("bad", "bad1"),
        turn("a", "a2"),
        turn("bad", "bad2"),
        turn("taken", "t2", user="u_2"),
        JournalledTurn(conversation_id="-"),
        turn("c", "c1", "c2"),
    ):
        journal.append(one)
    (file,) = files_in(tmp_path / "journal")
    file.write_bytes(file.read_bytes().replace(b'"content":"words"', b'"content":"wards"'))

    def refuse(parts):
        if any(part.head.conversation_id == "bad" for part in parts):
            raise StoreError("integer out of range")

    store.before = refuse
    done = offer(journal, store, alive=True)
    assert (done.replayed, done.refused, done.withheld, done.left) == (7, 2, 1, 2)
    found = contents(store)
    assert (found["a"], found["taken@u_2"], found["c"]) == (["a1", "a2"], ["t1", "t2"], ["c1", "c2"])
    assert [event.event_id for event in store.feedback()] == ["c1"]
    assert not found.keys() & {"bad", "w", "broken"}
    assert read_folder(tmp_path / "journal").withheld == {"withdrawn": 1}
    store.before = lambda parts: None
    assert offer(journal, store).replayed == 2
    assert contents(store)["bad"] == ["bad1", "bad2"]


def test_a_later_turn_does_not_overtake_one_that_fails_in_its_group(journal, store):
    failures = iter([StoreError("not this time")] * 2)

    def fail(parts):
        if any(message.id == "a1" for part in parts for message in part.offered) and (error := next(failures, None)):
            raise error

    store.before = fail
    for one in (turn("b", "b1"), turn("a", "a1"), turn("a", "a2"), turn("b", "b2")):
        journal.append(one)
    done = offer(journal, store, alive=True)
    assert (done.replayed, done.left) == (2, 2)
    assert contents(store) == {"b": ["b1", "b2"]}
    offer(journal, store)
    assert contents(store)["a"] == ["a1", "a2"]


def test_a_store_that_takes_nothing_is_offered_no_groups(journal):
    offers = []

    def put(one):
        offers.append(one)
        raise StoreError("down")

    for number in range(40):
        journal.append(turn(f"t{number}", "x"))
    for _ in range(3):
        assert replay(journal, put, lambda turns: pytest.fail(f"{len(turns)} turns together")).left == 40
    assert len(offers) == 9


def test_a_store_that_goes_down_in_a_group_ends_the_round_as_soon_as_ever(journal):
    offers = []

    def put(one):
        offers.append(1)
        raise StoreError("down")

    def put_together(turns):
        offers.append(len(turns))
        raise StoreError("down")

    for number in range(40):
        journal.append(turn(f"t{number}", "x"))
    done = replay(journal, put, put_together, alive=True)
    assert (done.left, done.refused, offers) == (40, 0, [40, 1, 1, 1])


def test_what_makes_the_store_hang_is_found_out_alone_and_holds_up_no_other(journal, store):
    def put(one):
        if one.conversation_id == "heavy":
            raise StoreTimeoutError("no answer")
        store.append(one.conversation_id, user_id=one.user_id, messages=one.messages)

    def put_together(turns):
        if any(one.conversation_id == "heavy" for one in turns):
            raise StoreTimeoutError("no answer")
        return OwnedAppends(store).put_together(turns)

    for name in ("a", "b", "heavy", "c", "d"):
        journal.append(turn(name, name))
    # The group hangs, then the heavy one alone; each ends its round.
    assert [replay(journal, put, put_together, alive=True).replayed for _ in range(3)] == [0, 2, 2]
    assert contents(store) == {name: [name] for name in "abcd"}
    assert [entry.key[0] for entry in journal.entries()] == ["heavy"]


def test_a_store_without_submit_gets_one_turn_at_a_time(tmp_path):
    store = MoodyStore(f"sqlite:///{tmp_path}/a.db")
    assert not Readmission(store, OwnedAppends(store)).together
    journal = Journal(tmp_path / "journal")
    for number in range(100):
        journal.append(turn(f"t{number % 7}", str(number)))
    journal.close()
    writer = DurableWriter(store, WriterOptions(journal=tmp_path / "journal"))
    until(lambda: not writer.status().waiting)
    assert store.appends == 100
    assert contents(store) == {f"t{i}": [str(n) for n in range(i, 100, 7)] for i in range(7)}
    writer.close()
    store.close()


def test_consent_that_is_withdrawn_between_two_groups_counts_for_the_second(journal, store):
    def withdraw(groups):
        if len(groups) == 1:
            decision = {"user_id": "u_0", "purpose": Purpose.LOG, "granted": False, "decided_at": NOW}
            store.put_consent(ConsentDecision.model_validate(decision))

    store.after = withdraw
    for number in range(3 * GROUP):
        journal.append(turn(f"t{number % 4}", str(number), user=f"u_{number % 4}"))
    done = offer(journal, store, alive=True)
    assert (done.withheld, done.replayed) == (GROUP // 2, 3 * GROUP - GROUP // 2)
    assert [len(said) for said in contents(store).values()] == [GROUP // 4, *[3 * GROUP // 4] * 3]


def test_a_class_that_decides_otherwise_is_asked_itself(journal, store):
    class Strict(SQLStore):
        def consents(self, user_id):
            no = ConsentDecision(user_id=user_id, purpose=Purpose.LOG, granted=False, decided_at=NOW)
            return {Purpose.LOG: no}

    for number in range(10):
        journal.append(turn(f"t{number}", "x", user=f"u_{number}"))
    assert offer(journal, Strict(store._engine), alive=True).withheld == 10
    assert contents(store) == {}


def test_many_users_are_asked_about_in_one_question(store):
    decided = [f"u_{number}" for number in (0, 499, 500, 1_299)]
    for number, user in enumerate(decided + decided[:2]):
        decision = {"user_id": user, "purpose": "log", "granted": number % 2 == 0, "decided_at": NOW}
        store.put_consent(ConsentDecision.model_validate(decision))
    found = store.consents_of([f"u_{number}" for number in range(1_300)])
    assert found == {user: store.consents(user) for user in decided}
    assert [found[user][Purpose.LOG].granted for user in decided] == [True, False, True, False]
    assert store.consents("u_nobody") == {}


# in groups, and one by one


def _random_lines(draw):
    conversations = [f"c{number}" for number in range(12)]
    for number in range(120):
        conversation = draw.choice(conversations)
        user = draw.choice([None, "u_1", "u_2", "u_gone", "u_forgotten"])
        if draw.random() < 0.1:
            yield click(conversation, f"e{draw.randrange(30)}", user)
            continue
        messages = []
        for part in range(draw.choice([0, 1, 2, 2, 2, 11])):
            at = draw.choice([None, NOW - timedelta(hours=1), NOW + timedelta(days=2000)])
            again = draw.random() < 0.1
            name = f"m{draw.randrange(number + 1)}-0" if again else f"m{number}-{part}"
            messages.append(Message(id=name, role="user", content=name, created_at=at))
        yield JournalledTurn(conversation_id=conversation, user_id=user, messages=tuple(messages))


@pytest.mark.parametrize("seed", range(3))
def test_groups_leave_in_the_store_what_one_by_one_does(tmp_path, seed):
    lines = list(_random_lines(random.Random(seed)))
    left = []
    for way in ("groups", "alone"):
        folder = tmp_path / way
        folder.mkdir()
        with open_store(f"sqlite:///{folder}/a.db") as store:
            store.append("c0", user_id="u_other", messages=[Message(id="0", role="user", content="x")])
            store.append("c1@u_1", user_id="u_other", messages=[Message(id="0", role="user", content="x")])
            store.put_consent(ConsentDecision(user_id="u_gone", purpose="log", granted=False, decided_at=NOW))
            store.forget("u_forgotten")
            journal = Journal(folder / "journal")
            for line in lines:
                journal.append(line)
            readmission = Readmission(store, OwnedAppends(store))
            together = readmission.put_together if way == "groups" else None
            done = replay(journal, readmission.put, together, alive=True)
            # Conversations may begin in another order: those whose name is taken come after their group.
            said = {one.conversation_id: one for one in store.conversations()}
            left.append((done, said, list(store.feedback()), read_folder(folder / "journal").withheld))
    for groups, alone in zip(*left, strict=True):
        assert groups == alone
    assert left[0][0].withheld > 5
    assert left[0][0].left == 0


# real servers, real kills


def test_groups_on_a_server(postgres_url, tmp_path):
    journal = Journal(tmp_path / "journal")
    for number in range(400):
        journal.append(turn(f"t{number % 9}", str(number), user=f"u_{number % 9}"))
    journal.close()
    with open_store(postgres_url) as store:
        store.append("t3", user_id="u_other", messages=[Message(id="x", role="user", content="x")])
        store.put_consent(ConsentDecision(user_id="u_5", purpose="log", granted=False, decided_at=NOW))
        writer = DurableWriter(store, WriterOptions(journal=tmp_path / "journal"))
        until(lambda: not writer.status().waiting, 60)
        status = writer.status()
        writer.close()
        expected = {f"t{i}" if i != 3 else "t3@u_3": [str(n) for n in range(i, 400, 9)] for i in range(9) if i != 5}
        assert contents(store) == expected | {"t3": ["x"]}
    assert (status.withheld, status.replayed, status.refused) == (44, 356, 0)


REPLAYS = """
    import os, signal, sys
    from pathlib import Path
    from rlhi_plugin.durability import DurableWriter, WriterOptions
    from rlhi_plugin.stores import SQLStore, open_store

    folder, groups = sys.argv[1], int(sys.argv[2])

    class Dies(SQLStore):
        "Is killed when so many groups are in the file, before anybody hears of the last."
        written = 0
        def _append_together(self, parts, limit_s):
            done = super()._append_together(parts, limit_s)
            self.written += 1
            if self.written == groups:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

    with open_store(f"sqlite:///{folder}/a.db") as opened:
        writer = DurableWriter(Dies(opened._engine), WriterOptions(journal=Path(folder, "journal")))
        os.write(1, f"{writer.status().journalled}\\n".encode())
        while writer.status().waiting:
            pass
"""


@pytest.mark.slow
def test_kills_in_the_middle_of_a_group_double_and_lose_nothing(tmp_path):
    journal, turns = Journal(tmp_path / "journal"), 6 * GROUP
    for number in range(turns):
        journal.append(turn(f"t{number % 11}", str(number), user="u_1"))
    journal.close()
    found = []
    # The first turn goes alone, so each process ends with one group that the journal still holds.
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(REPLAYS), str(tmp_path), "2"],
            check=False, capture_output=True, text=True, timeout=60,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr
        found.append(int(done.stdout))
    # Nothing was noted yet, so what the store has is offered again: it is known there, and does no harm.
    assert found == [turns, turns]
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        assert store.counts().messages == 1 + GROUP
        assert replay_folder(tmp_path / "journal", store).replayed == turns
        assert contents(store) == {f"t{i}": [str(n) for n in range(i, turns, 11)] for i in range(11)}


@pytest.mark.slow
def test_kills_at_any_moment_get_on(tmp_path):
    journal, turns, draw = Journal(tmp_path / "journal"), 2_000, random.Random(3)
    for number in range(turns):
        journal.append(turn(f"t{number % 64}", str(number), user=f"u_{number % 64}"))
    journal.close()
    found = []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(REPLAYS), str(tmp_path), "0"],
            stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        found.append(int(process.stdout.readline()))
        time.sleep(draw.uniform(0.05, 0.3))
        process.kill()
        process.communicate()
    # Progress is noted as it is made, group by group.
    assert found[0] == turns
    assert found == sorted(found, reverse=True)
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        assert replay_folder(tmp_path / "journal", store).left == 0
        assert contents(store) == {f"t{i}": [str(n) for n in range(i, turns, 64)] for i in range(64)}
    assert list((tmp_path / "journal").iterdir()) == []


def test_a_refusal_of_one_part_says_nothing_about_others(store):
    outcomes = OwnedAppends(store).put_together([turn("a", "1", user="u_1"), turn("a", "2"), turn("b", "3")])
    kinds = Counter(type(outcome) for outcome in outcomes)
    assert kinds == {type(None): 2, OwnerMismatchError: 1}
