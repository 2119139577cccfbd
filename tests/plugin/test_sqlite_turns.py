"""Turns in one statement: as many as come together, all of them or none, and none that needs another look."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi_plugin.errors import OwnerMismatchError
from rlhi_plugin.records import Message
from rlhi_plugin.stores import open_store
from rlhi_plugin.stores.appending import Head, Opening, Part

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def said(*ids):
    return tuple(Message(id=i, role="user", content=f"says {i}", created_at=NOW) for i in ids)


def part(name, messages, *, user="u_1", opens=False):
    return Part(Head(name, user, NOW), messages, opens)


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as opened:
        opened.append("warm", user_id=None, messages=said("m"))
        yield opened


class Told:
    """A connection that notes what it is told."""

    def __init__(self, driver):
        self._driver, self.seen = driver, []

    def execute(self, statement, *values):
        self.seen.append(statement.split()[0])
        return self._driver.execute(statement, *values)


@pytest.fixture
def statements(store):
    """What the connection that appends is told."""
    kept = store._sqlite._kept
    kept.driver = kept.turns._driver = Told(kept.driver)
    return kept.driver.seen


def stored(store):
    return {c.conversation_id: [m.id for m in c.messages] for c in store.conversations() if c.conversation_id != "warm"}


def warmed(store, statements, size=2):
    """Have the views made for so many messages."""
    ids = [f"m{number}" for number in range(size)]
    store.submit_new("w", user_id=None, messages=said(*ids)).result()
    store.append("w", user_id=None, messages=said(*(f"n{number}" for number in range(size))))
    store.forget("nobody")
    statements.clear()


def test_a_thread_begins_and_goes_on_in_one_statement_each(store, statements):
    warmed(store, statements)
    assert store.submit_new("t", user_id="u_1", messages=said("a", "b")).result() == 2
    assert store.append("t", user_id="u_1", messages=said("c", "d")) == 2
    assert statements == ["INSERT", "INSERT"]
    assert stored(store)["t"] == ["a", "b", "c", "d"]


def test_threads_that_begin_together_are_one_statement(store, statements):
    warmed(store, statements)
    parts = [part(f"t{number}", said("a", "b"), user=f"u_{number}", opens=True) for number in range(40)]
    assert store._append_group(parts[:16]) == [2] * 16
    assert statements == ["INSERT"]
    statements.clear()
    assert store._append_group(parts[16:]) == [2] * 24
    assert statements == ["BEGIN", "INSERT", "INSERT", "COMMIT"]
    assert [(c.conversation_id, c.user_id, len(c.messages)) for c in store.conversations()][2:] == [
        (f"t{number}", f"u_{number}", 2) for number in range(40)
    ]


def test_of_many_together_only_those_beside_one_that_is_there_are_written_alone(store, statements):
    store.append("t20", user_id="u_1", messages=said("x"))
    warmed(store, statements)
    parts = [part(f"t{number}", said("a", "b"), opens=True) for number in range(48)]
    assert store._append_group(parts) == [0 if number == 20 else 2 for number in range(48)]
    assert stored(store)["t20"] == ["x"]
    assert statements[:3] == ["BEGIN", "INSERT", "INSERT"]


def test_one_that_is_there_already_leaves_the_others_alone(store):
    store.append("t1", user_id="u_1", messages=said("x"))
    parts = [part(f"t{number}", said("a", "b"), opens=True) for number in range(3)]
    assert store._append_group(parts) == [2, 0, 2]
    assert stored(store) == {"t1": ["x"], "t0": ["a", "b"], "t2": ["a", "b"]}


def test_threads_that_go_on_together_with_one_that_is_somebody_elses(store):
    for name, user in (("t0", "u_1"), ("t1", "u_2"), ("t2", None)):
        store.append(name, user_id=user, messages=said("a"))
    outcomes = store._append_group([part(f"t{number}", said("b")) for number in range(3)] + [part("t3", said("b"))])
    assert outcomes[0] == outcomes[3] == 1
    assert [type(outcome) for outcome in outcomes[1:3]] == [OwnerMismatchError] * 2
    assert stored(store) == {"t0": ["a", "b"], "t1": ["a"], "t2": ["a"], "t3": ["b"]}


def test_who_was_forgotten_says_only_what_is_newer(store):
    store.append("t", user_id="u_1", messages=said("a"))
    store.forget("u_1")
    later = tuple(m.model_copy(update={"created_at": datetime.now(UTC)}) for m in said("c"))
    assert store.submit_new("t", user_id="u_1", messages=said("a", "b")).result() == 0
    assert store.append("t", user_id="u_1", messages=said("b")) == 0
    assert store.submit_new("t", user_id="u_1", messages=later).result() == 1
    assert stored(store) == {"t": ["c"]}


def test_messages_that_share_an_id_or_are_stored_are_stored_once(store):
    assert store.submit_new("t", user_id=None, messages=said("a", "a")).result() == 1
    assert store.append("t", user_id=None, messages=said("a", "b")) == 1
    assert store.append("t", user_id=None, messages=said("a", "b")) == 0
    assert stored(store) == {"t": ["a", "b"]}


def test_turns_of_one_thread_that_come_together_keep_their_order(store):
    parts = [part("t", said("a", "b")), part("t", said("c")), part("s", said("a")), part("t", said("d", "e", "a"))]
    assert store._append_group(parts) == [2, 1, 1, 2]
    assert stored(store) == {"t": ["a", "b", "c", "d", "e"], "s": ["a"]}


def test_a_statement_that_fails_halfway_leaves_nothing(store):
    store.append("t1", user_id="u_1", messages=said("x"))
    store._sqlite._kept.driver.execute("BEGIN")  # what the group is to be written in stays out of reach
    with pytest.raises(Exception, match="within a transaction"):
        store._append_group([part("t0", said("a")), part("t1", said("x"))])
    assert stored(store) == {"t1": ["x"]}
    assert store._append_group([part("t0", said("a")), part("t1", said("x"))]) == [1, 0]


TURN = st.tuples(
    st.integers(0, 3), st.sampled_from(["u_1", "u_2", None]), st.lists(st.integers(0, 5), min_size=1, max_size=10)
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("turns")
    with open_store(f"sqlite:///{folder}/a.db") as quick, open_store(f"sqlite:///{folder}/b.db") as careful:
        yield quick, careful, count()


@settings(max_examples=25, deadline=None)
@given(groups=st.lists(st.lists(st.tuples(TURN, st.booleans()), min_size=1, max_size=5), max_size=3))
def test_any_groups_are_stored_as_one_after_the_other_would_be(pair, groups):
    """Against the way that every database is written, which looks before it writes."""
    quick, careful, examples = pair
    example = next(examples)
    for group in groups:
        parts = [
            part(f"{example}-{name}", said(*(f"m{i}" for i in ids)), user=user, opens=opens)
            for (name, user, ids), opens in group
        ]
        found = quick._append_group(parts)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("rlhi_plugin.stores.sqlite_turns.SQLiteTurns.write", lambda *_: False)
            wanted = [careful._append_group([one])[0] for one in parts]
        assert [str(one) for one in found] == [str(one) for one in wanted]
    assert stored(quick) == stored(careful)


def test_many_threads_with_turns_of_many_sizes(store):
    def talk(number):
        new = Opening(said(*(f"{number}-{i}" for i in range(number % 11 + 1))))
        begun = store.submit_new(f"t{number}", user_id=f"u_{number}", messages=new).result()
        return begun + store.append(f"t{number}", user_id=f"u_{number}", messages=said(f"{number}-last"))

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(talk, range(64))) == [number % 11 + 2 for number in range(64)]
    assert store.counts().messages == 1 + sum(number % 11 + 2 for number in range(64))
