"""Forgetting on the file itself: no byte of what a user said is left, also after pages were split and merged."""

import random
import sqlite3
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import ConsentDecision, Evidence, FeedbackEvent, Message, Persona, PersonaStatement
from rlhi_plugin.stores import dialects, open_store

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def secret(user):
    """Text that stands in everything of one user, and in nobody else's."""
    return f"<<{user} said this>>"


def fill(store, draw, users, turns):
    for number in range(turns):
        user = draw.choice(users)
        text = secret(user) * draw.choice([1, 3, 40, 400])
        said = Message(
            id=f"{secret(user)}{draw.random()}", role="user", content=text, created_at=NOW, model=secret(user)
        )
        name = f"{secret(user)}-{draw.randrange(4)}"
        store.append(name, user_id=user, messages=[said])
        if number % 5 == 0:
            evidence = (Evidence(conversation_id=name, message_id=said.id, quote=secret(user)),)
            statements = (PersonaStatement(text=f"{secret(user)} {number}", evidence=evidence),)
            store.put_persona(Persona(user_id=user, statements=statements, covers_until=NOW, builder="test"))
            event = FeedbackEvent(
                event_id=f"{secret(user)}{number}",
                conversation_id=name,
                user_id=user,
                kind="edit",
                value=secret(user),
                created_at=NOW,
            )
            store.record_feedback(event)
            store.put_consent(ConsentDecision(user_id=user, purpose="train", granted=True, decided_at=NOW))


def bytes_of(folder):
    """Everything in the store's files: the database, its write-ahead log and that one's index."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob("a.db*")))


@pytest.mark.parametrize("seed", range(3))
def test_no_byte_is_left_in_the_files(tmp_path, seed):
    draw, users = random.Random(seed), [f"u_user{i:02}" for i in range(12)]
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        # Pages are split and merged by the others' coming and going.
        for _ in range(4):
            fill(store, draw, users, 60)
            gone = users.pop(draw.randrange(len(users)))
            assert secret(gone).encode() in bytes_of(tmp_path)
            assert store.forget(gone).erased
            assert secret(gone).encode() not in bytes_of(tmp_path)
            # The pseudonym itself is left once: in the tombstone.
            assert bytes_of(tmp_path).count(gone.encode()) <= 2
        left = {user for conversation in store.conversations() if (user := conversation.user_id)}
        assert left == set(users)
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_purging_empties_the_log_too(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        fill(store, random.Random(0), ["u_a"], 20)
        assert store.purge(before=NOW + timedelta(seconds=1)) == 20
        assert (tmp_path / "a.db-wal").stat().st_size == 0
        assert store.counts().conversations == 0


def test_a_persona_goes_with_the_last_of_its_users_words(tmp_path):
    now = datetime.now(UTC)
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        for user, ages in (("u_silent", [9]), ("u_there", [9, 1])):
            said = [
                Message(id=f"m{days}", role="user", content="x", created_at=now - timedelta(days=days)) for days in ages
            ]
            store.append(user, user_id=user, messages=said)
            cited = Evidence(conversation_id=user, message_id="m9", quote=secret(user))
            statements = (PersonaStatement(text=secret(user), evidence=(cited,)),)
            store.put_persona(Persona(user_id=user, statements=statements, covers_until=NOW, builder="test"))
        store.purge(before=now - timedelta(days=5))
        assert store.get_persona("u_silent") is not None, "it is younger than the limit"
        assert store.purge(before=datetime.now(UTC), user_id="u_there") == 1
        assert store.get_persona("u_silent") is not None, "another user was purged"
        assert store.get_persona("u_there") is None
        store.purge(before=datetime.now(UTC))
        assert store.get_persona("u_silent") is None
    assert secret("u_silent").encode() not in bytes_of(tmp_path)


def test_a_reader_in_the_way_is_said_and_the_next_time_erases(tmp_path, monkeypatch):
    monkeypatch.setattr(dialects, "BUSY_TIMEOUT_MS", 50)
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        fill(store, random.Random(0), ["u_a", "u_b"], 20)
        with closing(sqlite3.connect(tmp_path / "a.db")) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM rlhi_messages").fetchall()
            gone = store.forget("u_a")
            assert gone.messages > 0
            assert not gone.erased
            reader.execute("ROLLBACK")
        assert not list(store.conversations(user_id="u_a"))
        assert store.forget("u_a").erased
        assert secret("u_a").encode() not in bytes_of(tmp_path)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request, tmp_path):
    return f"sqlite:///{tmp_path}/a.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


def test_what_is_under_way_while_a_user_is_forgotten_does_not_survive(url):
    """Two stores on one database, as two processes have: one appends without end, the other forgets."""
    with open_store(url) as writer, open_store(url) as other:
        stop, said, failures = threading.Event(), [], []

        def write():
            try:
                while not stop.is_set():
                    message = Message(id=f"m{len(said)}", role="user", content="x", created_at=datetime.now(UTC))
                    writer.append(f"c{len(said) % 3}", user_id="u_a", messages=[message])
                    said.append(message)
            except Exception as error:  # noqa: BLE001 - reported below
                failures.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        for rounds in range(1, 6):
            while len(said) < rounds * 20 and not failures:
                time.sleep(0.001)
            at = other.forget("u_a").tombstone.forgotten_at
            kept = {m.id for c in other.conversations() for m in c.messages}
            times = {m.id: m.created_at for m in list(said)}
            assert all(times.get(name, at + timedelta(1)) > at for name in kept)
        stop.set()
        thread.join()
        assert failures == []
        kept = {m.id for c in other.conversations() for m in c.messages}
        assert kept == {m.id for m in said if m.created_at > at}


@pytest.mark.parametrize("user", [None, "u_a"])
def test_a_limit_without_a_time_zone_is_a_mistake(tmp_path, user):
    with open_store(f"sqlite:///{tmp_path}/a.db") as store, pytest.raises(ConfigError, match="aware time"):
        store.purge(before=datetime(2026, 1, 1), user_id=user)  # noqa: DTZ001 - that is the mistake


def test_a_clock_that_goes_backwards_brings_nothing_back(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        first = store.forget("u_a").tombstone
        with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
            later = (first.forgotten_at + timedelta(days=1)).isoformat(timespec="microseconds")
            connection.execute("UPDATE rlhi_tombstones SET forgotten_at = ?", (later,))
            connection.commit()
        assert store.forget("u_a").tombstone.forgotten_at == first.forgotten_at + timedelta(days=1)
