"""Log files: our export there and back, WildChat rows, and lines that cannot be used."""

import gzip
import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhi_plugin.errors import ConfigError, RecordError
from rlhi_plugin.logs import read_conversations, write_conversations
from rlhi_plugin.records import Conversation, Message

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
times = st.builds(
    lambda seconds, hours: datetime.fromtimestamp(seconds, timezone(timedelta(hours=hours))),
    st.integers(0, 2**32).map(lambda micros: micros / 7),
    st.integers(-12, 14),
)
messages = st.builds(
    Message,
    id=st.integers().map(str),
    role=st.sampled_from(["user", "assistant", "tool", "system"]),
    content=texts,
    created_at=st.none() | times,
    model=st.none() | texts,
)
conversations = st.builds(
    Conversation,
    conversation_id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    user_id=st.none() | st.just("u_1"),
    messages=st.lists(messages, max_size=4, unique_by=lambda m: m.id).map(tuple),
    toxic=st.none() | st.booleans(),
    language=st.none() | st.just("French"),
)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.lists(conversations, max_size=4))
def test_export_reads_back_equal(said, name, tmp_path):
    assert write_conversations(tmp_path / name, said) == len(said)
    assert list(read_conversations(tmp_path / name)) == said


def test_the_same_conversations_give_the_same_bytes(tmp_path):
    said = [Conversation(conversation_id="c", messages=(Message(id="1", role="user", content="hi"),))]
    for name in ("a.gz", "b.gz"):
        write_conversations(tmp_path / name, said)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_a_failed_export_leaves_the_old_file(tmp_path):
    (tmp_path / "a.jsonl").write_text("old")

    def failing():
        yield Conversation(conversation_id="c", messages=())
        raise RuntimeError("store gone")

    with pytest.raises(RuntimeError):
        write_conversations(tmp_path / "a.jsonl", failing())
    assert (tmp_path / "a.jsonl").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]


def test_missing_files_and_folders_are_the_users_mistake(tmp_path):
    with pytest.raises(ConfigError, match="Give the path"):
        read_conversations(tmp_path / "absent.jsonl")
    with pytest.raises(ConfigError, match="Create the folder"):
        write_conversations(tmp_path / "absent" / "a.jsonl", [])


def turn(role, content="text", **more):
    return {"role": role, "content": content, **more}


def row(*turns, **more):
    return {"conversation_hash": "h", "model": "gpt-4", "conversation": list(turns), **more}


def read_row(tmp_path, value):
    (tmp_path / "w.jsonl").write_text(json.dumps(value) + "\n")
    (found,) = read_conversations(tmp_path / "w.jsonl")
    return found


def test_wildchat_row(tmp_path):
    header = {"accept-language": "fr", "user-agent": "x"}
    value = row(
        turn("user", "bonjour", timestamp="2023-04-09T00:02:53+00:00", hashed_ip="abc", header=header, toxic=False),
        turn("assistant", "salut", timestamp=None, toxic=True),
        timestamp="2023-04-09T00:05:00+00:00",
        language="French",
    )
    found = read_row(tmp_path, value)
    assert found.conversation_id == "h"
    assert [m.id for m in found.messages] == ["h:0", "h:1"]
    assert [m.model for m in found.messages] == [None, "gpt-4"]
    assert found.started_at.isoformat() == "2023-04-09T00:02:53+00:00"
    assert (found.language, found.toxic, found.source) == ("French", True, "wildchat")
    assert found.user_id.startswith("u_")


def test_wildchat_users_are_address_and_headers(tmp_path):
    said = (turn("user"), turn("assistant"))

    def user(**more):
        return read_row(tmp_path, row(*said, **more)).user_id

    one = user(hashed_ip="abc", header={"accept-language": "fr", "user-agent": "x"})
    assert one == user(hashed_ip="abc", header={"user-agent": "x", "accept-language": "fr"})
    assert one != user(hashed_ip="abc", header={"accept-language": "en", "user-agent": "x"})
    assert one != user(hashed_ip="abd", header={"accept-language": "fr", "user-agent": "x"})
    assert user(hashed_ip=None) is None
    assert user() is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2023-04-09T00:02:53", "2023-04-09T00:02:53+00:00"),
        (1681000000, "2023-04-09T00:26:40+00:00"),
        (1681000000000, "2023-04-09T00:26:40+00:00"),
    ],
)
def test_times_without_a_zone_are_utc(tmp_path, value, expected):
    found = read_row(tmp_path, row(turn("user"), turn("assistant"), timestamp=value))
    assert found.started_at.isoformat() == expected


OWN = {"conversation_id": "c", "messages": []}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (row(turn("assistant"), turn("user")), "message 0 has the role 'assistant'"),
        (row(turn("user"), turn("user")), "message 1 has the role 'user'"),
        (row(turn("user"), turn("assistant", "  ")), r"message 1 \(assistant\) is empty"),
        (row(turn("user", None)), r"message 0 \(user\) is empty"),
        (row(), "there is no user message"),
        (row(turn("user"), timestamp="yesterday"), "'yesterday' cannot be read"),
        (row(turn("user"), timestamp=True), "cannot be read"),
        (row(turn("user")) | {"conversation_hash": None}, "conversation_hash is missing"),
        ({"conversation_hash": "h", "conversation": "text"}, "not a list"),
        ({"question": "?"}, "neither an RLHI export"),
        ([1], "not a JSON object"),
        (OWN | {"schema": 99}, "schema 99"),
        (OWN | {"user_id": "with space"}, "user_id"),
        (OWN | {"extra": 1}, "extra"),
        (OWN | {"messages": [{"id": "1", "role": "user", "content": "a"}] * 2}, "two messages share an id"),
        (b'{"conversation_id": "\xff"}', "not UTF-8 at byte 21"),
        (b'{"half": ', "not JSON: Expecting value at column 9"),
        (b'{"a": "b\tc"}', "not JSON: Invalid control character at column 9$"),
        (b'{"a": "b', "not JSON: Unterminated string starting at column 7$"),
        (b'{"conversation_id":"c","messages":[{"id":"1","role":"user","content":"\\ud800"}]}', "lone surrogate"),
        (b"[" * 100_000, "recursion"),
    ],
)
def test_a_bad_line_is_named_and_stops_nothing(tmp_path, line, why):
    file = tmp_path / "log.jsonl"
    bad = line if isinstance(line, bytes) else json.dumps(line).encode()
    good = json.dumps(OWN).encode()
    file.write_bytes(good + b"\n\n" + bad + b"\n" + good + b"\n")
    first, error, last = read_conversations(file)
    assert isinstance(error, RecordError)
    assert (error.path, error.line) == (file, 3)
    assert str(error).startswith(f"{file}:3: ")
    with pytest.raises(RecordError, match=why):
        raise error
    assert isinstance(first, Conversation)
    assert isinstance(last, Conversation)


def test_a_truncated_gzip_gives_what_is_whole(tmp_path):
    line = json.dumps(OWN | {"messages": [{"id": "1", "role": "user", "content": os.urandom(5000).hex()}]}) + "\n"
    whole = gzip.compress(line.encode() * 20)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line.encode())[:-20])
    *_, error = read_conversations(tmp_path / "a.jsonl.gz")
    assert isinstance(error, RecordError)
    assert "damaged" in str(error)
    (tmp_path / "b.jsonl.gz").write_bytes(whole)
    assert len(list(read_conversations(tmp_path / "b.jsonl.gz"))) == 20


def wildchat_file() -> Path:
    root = Path(__file__).parents[2]
    return Path(os.environ.get("RLHI_TEST_DATA", root.parent / "shared" / "data")) / "wildchat" / "wildchat_dev.jsonl"


@pytest.mark.skipif(not wildchat_file().is_file(), reason="the WildChat sample is absent; set RLHI_TEST_DATA")
def test_real_wildchat_rows():
    found = list(read_conversations(wildchat_file()))
    errors = [record for record in found if isinstance(record, RecordError)]
    rows = [json.loads(line) for line in wildchat_file().read_text("utf-8").splitlines()]
    roles = [[turn["role"] for turn in row["conversation"]] for row in rows]
    usable = [
        all(role == ("user", "assistant")[i % 2] for i, role in enumerate(said))
        and all(turn["content"].strip() for turn in row["conversation"])
        for row, said in zip(rows, roles, strict=True)
    ]
    assert [isinstance(record, Conversation) for record in found] == usable
    assert 0 < len(errors) < len(found) / 10
    good = [record for record in found if isinstance(record, Conversation)]
    assert sum(c.started_at is not None for c in good) == sum(
        row["timestamp"] is not None for row, ok in zip(rows, usable, strict=True) if ok
    )
    assert any(c.language == "English" for c in good)
