"""The SQL store: the conformance kit, idempotence as a property, and what goes wrong at opening."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.records import Conversation, Message
from rlhi_plugin.stores import (
    ConsentStore,
    ConversationStore,
    FeedbackStore,
    ForgettingStore,
    PersonaStore,
    SQLStore,
    checkpoints,
    open_store,
)
from rlhi_plugin.stores.conformance import (
    CONSENT_CHECKS,
    CONVERSATION_CHECKS,
    FEEDBACK_CHECKS,
    FORGETTING_CHECKS,
    PERSONA_CHECKS,
    ConformanceError,
)
from rlhi_plugin.stores.conformance.conversations import keeps_messages_as_they_are
from rlhi_plugin.stores.schema import STORE_SCHEMA

ALL_CHECKS = [*CONVERSATION_CHECKS, *PERSONA_CHECKS, *FEEDBACK_CHECKS, *CONSENT_CHECKS, *FORGETTING_CHECKS]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request, tmp_path):
    """An empty storage on each database."""
    return f"sqlite:///{tmp_path}/a.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.mark.parametrize("check", ALL_CHECKS, ids=lambda check: check.__name__)
def test_sql_store_conforms(check, url):
    opened = []

    def open_one():
        opened.append(open_store(url))
        return opened[-1]

    check(open_one)
    for store in opened:
        store.close()


def test_sql_store_is_all_protocols(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        for protocol in (ConversationStore, PersonaStore, FeedbackStore, ConsentStore, ForgettingStore):
            assert isinstance(store, protocol)


class Forgetful:
    """A store that breaks one rule: it takes every message as new."""

    def __init__(self, store: SQLStore) -> None:
        self._store, self._n = store, 0

    def append(self, conversation_id, *, user_id, messages):
        self._n += 1
        fresh = [m.model_copy(update={"id": f"{m.id}-{self._n}"}) for m in messages]
        return self._store.append(conversation_id, user_id=user_id, messages=fresh)

    def conversations(self, *, user_id=None):
        return self._store.conversations(user_id=user_id)

    def close(self):
        self._store.close()


def test_the_kit_finds_a_broken_store(tmp_path):
    caught = set()
    for number, check in enumerate(CONVERSATION_CHECKS):
        try:
            check(lambda number=number: Forgetful(open_store(f"sqlite:///{tmp_path}/{number}.db")))
        except ConformanceError:
            caught.add(check.__name__)
    assert {"stores_each_message_once", "keeps_the_first_version", "keeps_messages_as_they_are"} <= caught


class Losing(Forgetful):
    """A store that keeps one field of messages for nobody."""

    def __init__(self, store: SQLStore, field: str) -> None:
        super().__init__(store)
        self._field = field

    def append(self, conversation_id, *, user_id, messages):
        return self._store.append(conversation_id, user_id=user_id, messages=messages)

    def conversations(self, *, user_id=None):
        blank = {self._field: "user" if self._field == "role" else None}
        for found in self._store.conversations(user_id=user_id):
            kept = tuple(message.model_copy(update=blank) for message in found.messages)
            yield found.model_copy(update={"messages": kept})


@pytest.mark.parametrize("field", sorted(Message.model_fields.keys() - {"id", "content"}))
def test_the_kit_finds_a_store_that_loses_a_field(tmp_path, field):
    with pytest.raises(ConformanceError, match="came back changed"):
        keeps_messages_as_they_are(lambda: Losing(open_store(f"sqlite:///{tmp_path}/a.db"), field))


ids = st.lists(st.integers(0, 12), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(ids, min_size=1, max_size=6))
def test_append_is_idempotent_whatever_is_sent_again(calls, store, request):
    name = f"c{request.node.examples_run}"
    request.node.examples_run += 1
    expected: list[int] = []
    for call in calls:
        new = [i for i in dict.fromkeys(call) if i not in expected]
        said = [Message(id=str(i), role="user", content=f"text {i}") for i in call]
        assert store.append(name, user_id=None, messages=said) == len(new)
        expected += new
    found = next(c for c in store.conversations() if c.conversation_id == name)
    assert [int(m.id) for m in found.messages] == expected


@pytest.fixture
def store(tmp_path, request):
    request.node.examples_run = 0
    with open_store(f"sqlite:///{tmp_path}/a.db") as opened:
        yield opened


def test_sqlite_is_durable(store):
    with store._writer.begin() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_writers_with_connections_of_their_own_wait_for_each_other(tmp_path):
    def write(writer):
        with open_store(f"sqlite:///{tmp_path}/a.db") as own:
            for i in range(15):
                own.append("c", user_id=None, messages=[Message(id=f"{writer}-{i}", role="user", content="x")])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        assert len(next(store.conversations()).messages) == 60


def test_more_messages_than_a_statement_binds(store):
    said = [Message(id=str(i), role="user", content="x") for i in range(1_203)]
    assert store.append("c", user_id=None, messages=said) == 1_203
    assert store.append("c", user_id=None, messages=said) == 0
    assert [m.id for m in next(store.conversations()).messages] == [m.id for m in said]


def test_add_keeps_what_an_import_knows(store):
    conversation = Conversation(
        conversation_id="c",
        user_id="w_1",
        messages=(Message(id="1", role="user", content="bonjour"),),
        started_at="2024-05-01T10:00:00+02:00",
        language="French",
        toxic=False,
        source="wildchat",
    )
    assert store.add(conversation) == 1
    assert store.add(conversation) == 0
    assert next(store.conversations()) == conversation


def test_counts(store):
    turn = [Message(id=str(i), role=role, content="x") for i, role in enumerate(("user", "assistant", "user", "user"))]
    store.append("a", user_id="u_1", messages=turn)
    store.append("b", user_id=None, messages=turn[:2])
    counts = store.counts()
    assert (counts.users, counts.conversations, counts.anonymous, counts.messages) == (1, 2, 1, 6)
    assert (counts.user_turns, counts.follow_ups, counts.personas) == (4, 2, 0)
    assert store.user_ids() == ["u_1"]


def test_reading_while_writing_sees_one_snapshot(store):
    for name in "ab":
        store.append(name, user_id=None, messages=[Message(id="1", role="user", content=name)])
    reading = store.conversations()
    first = next(reading)
    store.append("c", user_id=None, messages=[Message(id="1", role="user", content="c")])
    assert [first.conversation_id, *(c.conversation_id for c in reading)] == ["a", "b"]


@pytest.mark.parametrize("conversation_id", ["", "x" * 257])
def test_unusable_conversation_ids_are_refused(store, conversation_id):
    with pytest.raises(StoreError, match="Give an id of 1 to 256 characters"):
        store.append(conversation_id, user_id=None, messages=[Message(id="1", role="user", content="c")])


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("rlhi.db", "Write it as sqlite:///"),
        ("postgresql://localhost", "names no database"),
        ("mysql://localhost/rlhi", "only SQLite"),
        ("sqlite://", "outlive the process"),
        ("sqlite:///:memory:", "outlive the process"),
        ("sqlite://host/rlhi.db", "outlive the process"),
        ("", "is not a store URL"),
        ("sqlite:///a\0.db", "holds a NUL"),
        (None, "a NoneType is not a store URL"),
        (Path("a.db"), "is not a store URL"),
    ],
)
def test_wrong_urls_name_a_remedy(url, remedy):
    with pytest.raises(ConfigError, match=remedy):
        open_store(url)


def test_relative_urls_are_relative_to_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_store("sqlite:///here.db").close()
    assert (tmp_path / "here.db").is_file()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\. Create it"):
        open_store(f"sqlite:///{tmp_path}/absent/a.db")


def test_nothing_is_created_where_that_would_hide_a_typo(tmp_path):
    with pytest.raises(ConfigError, match="there is no store"):
        open_store(f"sqlite:///{tmp_path}/typo.db", create=False)
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database, and long enough to be looked at " * 20)
    with pytest.raises(StoreError, match="give another path"):
        open_store(f"sqlite:///{tmp_path}/notes.txt")


def test_a_newer_schema_is_refused(tmp_path):
    open_store(f"sqlite:///{tmp_path}/a.db").close()
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("UPDATE rlhi_meta SET value = ?", (str(STORE_SCHEMA + 1),))
    connection.close()
    with pytest.raises(StoreError, match=r"newer RLHI.*Upgrade"):
        open_store(f"sqlite:///{tmp_path}/a.db")


def test_an_apps_own_tables_are_left_alone(tmp_path):
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("CREATE TABLE messages (x)")
        connection.execute("INSERT INTO messages VALUES (1)")
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        store.append("c", user_id=None, messages=[Message(id="1", role="user", content="c")])
    assert connection.execute("SELECT * FROM messages").fetchall() == [(1,)]
    connection.close()


def test_a_damaged_row_is_named(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        store.append("c7", user_id=None, messages=[Message(id="1", role="user", content="c")])
        with sqlite3.connect(tmp_path / "a.db") as connection:
            connection.execute("UPDATE rlhi_messages SET role = 'robot'")
        connection.close()
        with pytest.raises(StoreError, match="'c7' in the store is damaged"):
            list(store.conversations())


def test_the_log_of_sqlite_begins_anew_while_turns_go_on(tmp_path, monkeypatch):
    """A checkpoint that others write during would leave a rest, and SQLite goes on behind it, for ever."""
    monkeypatch.setattr(checkpoints, "COMMITS", 10)
    move, numbers, log = checkpoints._move, iter(range(10_000)), tmp_path / "a.db-wal"

    with open_store(f"sqlite:///{tmp_path}/a.db") as store:

        def append():
            store.append("c", user_id=None, messages=[Message(id=str(next(numbers)), role="user", content="c" * 4000)])

        def move_while_others_write(driver):
            move(driver)
            if not store._write_lock.locked():
                append()

        monkeypatch.setattr(checkpoints, "_move", move_while_others_write)
        sizes = []
        for _ in range(8):
            for _ in range(10):
                append()
            store._sqlite._checkpoints.wait()
            sizes.append(log.stat().st_size)
    assert sizes[-1] == sizes[2]
