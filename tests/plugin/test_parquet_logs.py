"""Exports to Parquet: there and back, from records and from a store's columns, and as `datasets` reads them."""

import random
from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhi_plugin import parquet_logs
from rlhi_plugin.errors import ConfigError, MissingExtraError, RecordError
from rlhi_plugin.parquet_logs import read_parquet, write_parquet, write_parquet_columns
from rlhi_plugin.records import Conversation, Message
from rlhi_plugin.stores import columnar, open_store

WHEN = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=-5)))


def conversations(count=40, seed=0):
    """Of zero to nine messages, with every field set in some and empty in others."""
    draw = random.Random(seed)

    def maybe(value):
        return draw.choice([value, None])

    def message(number):
        return Message(
            id=f"m{number}",
            role=draw.choice(["system", "user", "assistant", "tool"]),
            content=draw.choice(["", "x", "two\nlines", "\u4f60\U0001f600", "NUL \x00", "long " * 500]),
            created_at=maybe(WHEN + timedelta(seconds=number)),
            model=maybe("m"),
            adapter=maybe("a"),
            persona_digest=maybe("0" * 64),
            parent_id=maybe("p"),
            latency_s=maybe(0.125),
            input_tokens=maybe(3_000_000_000),
            output_tokens=maybe(0),
        )

    return [
        Conversation(
            conversation_id=f"c{i}",
            user_id=maybe("u_1"),
            messages=tuple(message(n) for n in range(draw.randrange(10))),
            started_at=maybe(WHEN),
            language=maybe("French"),
            toxic=draw.choice([True, False, None]),
            source=draw.choice(["live", "wildchat"]),
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("at_once", [1, 7, 2000])
def test_records_go_there_and_back(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(parquet_logs, "_CONVERSATIONS_AT_ONCE", at_once)
    some = conversations()
    assert write_parquet(tmp_path / "a.parquet", some) == len(some)
    assert list(read_parquet(tmp_path / "a.parquet")) == some
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_nothing_is_a_file_too(tmp_path):
    assert write_parquet(tmp_path / "a.parquet", []) == 0
    assert list(read_parquet(tmp_path / "a.parquet")) == []


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def store(request, tmp_path):
    url = f"sqlite:///{tmp_path}/a.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with open_store(url) as opened:
        yield opened


@pytest.mark.parametrize("at_once", [1, 13, 20_000])
def test_a_stores_columns_are_its_records(store, tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(columnar, "_MESSAGES_AT_ONCE", at_once)
    monkeypatch.setattr(columnar, "_NUMBERS_PER_STATEMENT", 3)
    for conversation in conversations():
        store.add(conversation)
    for user in (None, "u_1", "u_nobody"):
        expected = list(store.conversations(user_id=user))
        assert write_parquet_columns(tmp_path / "a.parquet", store.columns(user_id=user)) == len(expected)
        assert list(read_parquet(tmp_path / "a.parquet")) == expected


def test_columns_are_one_snapshot(store, monkeypatch):
    monkeypatch.setattr(columnar, "_MESSAGES_AT_ONCE", 2)
    for number in range(6):
        said = [Message(id="m", role="user", content="x", created_at=WHEN)]
        store.append(f"c{number}", user_id=f"u_{number}", messages=said)
    reading = store.columns()
    first = next(reading)
    store.append("later", user_id=None, messages=[Message(id="m", role="user", content="x")])
    rest = [name for batch in reading for name in batch.heads["conversation_id"]]
    assert [*first.heads["conversation_id"], *rest] == [f"c{number}" for number in range(6)]


@pytest.mark.slow
def test_datasets_reads_it(tmp_path):
    import datasets

    some = conversations()
    write_parquet(tmp_path / "a.parquet", some)
    rows = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "a.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert [Conversation.model_validate(row) for row in rows] == some


def test_a_row_that_is_no_conversation_is_named(tmp_path):
    good = {"conversation_id": "c", "messages": [{"id": "m", "role": "user", "content": "x"}]}
    bad = {"conversation_id": "c", "messages": [{"id": "m", "role": "robot", "content": "x"}]}
    pq.write_table(pa.Table.from_pylist([good, bad, good]), tmp_path / "a.parquet")
    first, problem, third = read_parquet(tmp_path / "a.parquet")
    assert first == third == Conversation.model_validate(good)
    assert isinstance(problem, RecordError)
    assert problem.line == 2
    assert "messages.0.role" in str(problem)


def test_other_files_are_mistakes(tmp_path):
    with pytest.raises(ConfigError, match="Give the path"):
        read_parquet(tmp_path / "absent.parquet")
    (tmp_path / "a.txt").write_text("no Parquet")
    with pytest.raises(ConfigError, match="Give the path"):
        read_parquet(tmp_path / "a.txt")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ConfigError, match="does not hold conversations"):
        read_parquet(tmp_path / "other.parquet")
    with pytest.raises(ConfigError, match="Create the folder"):
        write_parquet(tmp_path / "absent" / "a.parquet", [])


def test_a_later_schema_is_refused(tmp_path):
    write_parquet(tmp_path / "a.parquet", conversations(1))
    table = pq.read_table(tmp_path / "a.parquet")
    pq.write_table(table.replace_schema_metadata({parquet_logs.VERSION_KEY: b"99"}), tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match="schema 99"):
        read_parquet(tmp_path / "b.parquet")


def test_a_failed_export_leaves_the_old_one(tmp_path):
    write_parquet(tmp_path / "a.parquet", conversations(3))
    before = (tmp_path / "a.parquet").read_bytes()

    def failing():
        yield conversations(1)[0]
        raise OSError("the source broke")

    with pytest.raises(OSError, match="the source broke"):
        write_parquet(tmp_path / "a.parquet", failing())
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]
    assert (tmp_path / "a.parquet").read_bytes() == before


def test_a_missing_pyarrow_names_its_extra(tmp_path, monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(parquet_logs, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"rlhi\[parquet\]"):
        write_parquet(tmp_path / "a.parquet", [])


def test_times_come_back_in_utc(tmp_path):
    write_parquet(tmp_path / "a.parquet", [Conversation(conversation_id="c", messages=(), started_at=WHEN)])
    (found,) = read_parquet(tmp_path / "a.parquet")
    assert found.started_at == WHEN
    assert found.started_at.utcoffset() == UTC.utcoffset(None)
