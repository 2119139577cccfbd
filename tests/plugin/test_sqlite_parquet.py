"""Exports of a store on SQLite by way of Arrow: the same values as by way of rows, from one state of the store."""

import os
import resource
import sqlite3
import sys
import threading
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq
import pytest

from rlhi_plugin import sqlite_parquet
from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.export_job import export_store
from rlhi_plugin.parquet_logs import read_parquet
from rlhi_plugin.privacy.exclusions import exclusion
from rlhi_plugin.records import ConsentDecision, Conversation, Message, Purpose
from rlhi_plugin.sqlite_parquet import ExportCounts, Selection, write_store
from rlhi_plugin.stores import open_store

WHEN = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
ODD = [
    "",
    "two\nlines",
    "\u4f60\U0001f600",
    "NUL \x00 within",
    "\x00",
    "'quoted'; --",
    "[email_bcdfgh]",
    "long " * 3000,
]
FULL = {
    "created_at": WHEN,
    "model": "m\u00fc",
    "adapter": "a",
    "persona_digest": "0" * 64,
    "parent_id": "m0",
    "latency_s": 1 / 3,
    "input_tokens": 2**63 - 1,
    "output_tokens": 0,
    "finish": "incomplete",
}

pytestmark = pytest.mark.skipif(
    not sqlite_parquet.find_spec("adbc_driver_sqlite"), reason="adbc-driver-sqlite is not installed"
)


@pytest.fixture
def store(tmp_path):
    # Such a name means something else in a URI; in the store's own URL %25 is a percent sign.
    folder = tmp_path / "odd #1 %41 \u00e9"
    folder.mkdir()
    with open_store(f"sqlite:///{tmp_path}/odd #1 %2541 \u00e9/a.db") as opened:
        assert (folder / "a.db").is_file()
        yield opened


def said(*texts, **fields):
    return tuple(
        Message(id=f"m{n}", role="assistant" if n % 2 else "user", content=text, **fields)
        for n, text in enumerate(texts)
    )


def fill(store):
    """Columns that are empty for long and then are not, and all the values that make trouble."""
    store.add(Conversation(conversation_id="bare", messages=said(*ODD)))
    store.add(Conversation(conversation_id="none", user_id="u_9", messages=()))
    for number in range(60):
        store.append(f"c{number}", user_id=None, messages=said("x", "y"))
    full = Conversation(
        conversation_id="full \u4f60",
        user_id="u_1",
        messages=said(*ODD, **FULL),
        started_at=WHEN - timedelta(days=9000),
        language="fran\u00e7ais",
        toxic=False,
        source="wildchat",
    )
    store.add(full)
    store.add(full.model_copy(update={"conversation_id": "toxic", "toxic": True, "user_id": "u_2", "started_at": None}))


def by_rows(store, out, purpose=None):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_parquet, "find_spec", lambda _: None)
        return export_store(store, out, purpose)


def assert_same(store, tmp_path, purpose=None):
    """Both ways give the same; what that is."""
    with pytest.MonkeyPatch.context() as patch:
        ways = []
        patch.setattr(
            "rlhi_plugin.export_job.write_store", lambda *a, **k: ways.append(write_store(*a, **k)) or ways[-1]
        )
        counts = export_store(store, tmp_path / "arrow.parquet", purpose)
    assert ways == [counts], "it did not go by way of Arrow"
    assert counts == by_rows(store, tmp_path / "rows.parquet", purpose)
    found, expected = (pq.read_table(tmp_path / f"{way}.parquet") for way in ("arrow", "rows"))
    assert found.schema.equals(expected.schema, check_metadata=True)
    assert found.equals(expected)
    return counts, list(read_parquet(tmp_path / "arrow.parquet"))


@pytest.mark.parametrize("at_once", [{}, {"_MESSAGES_AT_ONCE": 3, "_ROWS_PER_READ": 2}, {"_BYTES_AT_ONCE": 1}])
def test_both_ways_give_the_same_values(store, tmp_path, monkeypatch, at_once):
    for name, value in at_once.items():
        monkeypatch.setattr(sqlite_parquet, name, value)
    fill(store)
    counts, found = assert_same(store, tmp_path)
    assert found == [c for c in store.conversations() if c.messages]
    assert counts == ExportCounts(63)


def test_nothing_is_a_file_too(store, tmp_path):
    assert assert_same(store, tmp_path) == (ExportCounts(0), [])


def test_who_stays_out_is_counted(store, tmp_path):
    for user in ("u_a", "u_b", "u_c", None):
        for name in ("t1", "t2"):
            store.append(f"{user} {name}", user_id=user, messages=said("x", created_at=WHEN))
    store.put_consent(ConsentDecision(user_id="u_a", purpose=Purpose.TRAIN, granted=False, decided_at=WHEN))
    # Refused already; somebody else's; and two that count, one of them under the name that a taken name becomes.
    for name, user in [("u_a t1", "u_a"), ("u_b t1", "u_c"), ("u_b t2", "u_b"), ("None t1", None)]:
        store.record_feedback(exclusion(name, user, WHEN))
    store.forget("u_c")
    store.append("back", user_id="u_c", messages=said("x", created_at=datetime.now(UTC) + timedelta(hours=1)))
    counts, found = assert_same(store, tmp_path, Purpose.TRAIN)
    assert [c.conversation_id for c in found] == ["u_b t1", "None t2", "back"]
    assert counts == ExportCounts(written=3, refused=2, excluded=2)
    assert (tmp_path / "arrow.parquet.tombstones").read_text() == (tmp_path / "rows.parquet.tombstones").read_text()
    counts, _ = assert_same(store, tmp_path)
    assert counts == ExportCounts(written=4, excluded=3)


def test_anonymous_conversations_go_by_the_policy(store, tmp_path, monkeypatch):
    monkeypatch.setenv("RLHI_CONSENT_ANONYMOUS", "log")
    for user in ("u_a", None):
        store.append(f"{user}", user_id=user, messages=said("x"))
    counts, found = assert_same(store, tmp_path, Purpose.TRAIN)
    assert [c.conversation_id for c in found] == ["u_a"]
    assert counts.refused == 1


def test_a_user_who_came_later_is_left_out(store, tmp_path):
    store.append("t", user_id="u_later", messages=said("x"))
    assert write_store(store, tmp_path / "a.parquet", Selection(users={None: True})) == ExportCounts()


def test_what_should_be_forgotten_is_looked_at_record_by_record(store, tmp_path):
    store.append("t", user_id="u_a", messages=said("old", created_at=WHEN))
    with raw(store) as driver:
        driver.execute("INSERT INTO rlhi_tombstones VALUES ('u_a', '2026-06-01T00:00:00.000000+00:00')")
    assert write_store(store, tmp_path / "a.parquet", Selection(forgotten={"u_a": "2026-06-01T00:00:00+00:00"})) is None
    assert export_store(store, tmp_path / "a.parquet").written == 0


@contextmanager
def raw(store):
    with closing(sqlite3.connect(store._engine.url.database, isolation_level=None)) as driver:
        yield driver


def test_what_is_written_meanwhile_is_of_no_export(store, tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite_parquet, "_MESSAGES_AT_ONCE", 2)
    monkeypatch.setattr(sqlite_parquet, "_READERS", 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    store.append("first", user_id=None, messages=said("x"))
    for number in range(50):
        store.append(f"c{number}", user_id=None, messages=said("x"))
    store.append("last", user_id=None, messages=said("x"))
    over = threading.Event()

    def write():
        number = 1
        while not over.is_set():
            for name in ("first", "last"):
                store.append(name, user_id=None, messages=[Message(id=f"n{number}", role="user", content="x")])
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        export_store(store, tmp_path / "a.parquet")
    finally:
        over.set()
        writer.join()
    lengths = {c.conversation_id: len(c.messages) for c in read_parquet(tmp_path / "a.parquet")}
    assert lengths["first"] - lengths["last"] in (0, 1)
    assert len(next(c for c in store.conversations() if c.conversation_id == "last").messages) > lengths["last"]


def test_a_long_write_of_another_process_stops_nobody(store, tmp_path):
    fill(store)
    with raw(store) as driver:
        driver.execute("BEGIN IMMEDIATE")
        driver.execute("DELETE FROM rlhi_messages")
        assert write_store(store, tmp_path / "a.parquet", Selection()) == ExportCounts(63)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        ("UPDATE rlhi_messages SET content = CAST(x'ff' AS TEXT)", "UTF8"),
        ("UPDATE rlhi_messages SET input_tokens = 'many' WHERE conversation = 2", "int64"),
        ("UPDATE rlhi_messages SET created_at = 'noon'", "noon"),
        ("DELETE FROM rlhi_conversations WHERE number = 2", "malformed"),
    ],
)
def test_a_damaged_row_is_an_error_and_leaves_no_file(store, tmp_path, damage, match):
    for number in range(3):
        store.append(f"c{number}", user_id=None, messages=said("x"))
    with raw(store) as driver:
        driver.execute(damage)
    with pytest.raises(StoreError, match=match):
        write_store(store, tmp_path / "a.parquet", Selection())
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


@pytest.mark.parametrize("program", ["/bin/false", "/bin/echo", "/nowhere/python"])
def test_without_a_second_process_rows_are_read(store, tmp_path, monkeypatch, program):
    fill(store)
    monkeypatch.setattr(sys, "executable", program)
    assert export_store(store, tmp_path / "a.parquet") == ExportCounts(63)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a.parquet"]


def test_interrupted_it_leaves_nothing(store, tmp_path, monkeypatch):
    fill(store)
    started = []
    popen = sqlite_parquet.subprocess.Popen
    monkeypatch.setattr(
        sqlite_parquet.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[0]
    )

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_store(store, tmp_path / "a.parquet", Selection(), advance=interrupt)
    assert started[0].returncode is not None
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_no_room_for_the_file_is_said(store, tmp_path):
    for number in range(20):
        store.append(f"c{number}", user_id=None, messages=said(os.urandom(50_000).hex()))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(ConfigError, match="Free some space"):
            write_store(store, tmp_path / "a.parquet", Selection())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with pytest.raises(ConfigError, match="Create the folder"):
        write_store(store, tmp_path / "absent" / "a.parquet", Selection())
    assert not [path for path in tmp_path.iterdir() if path.is_file()]
