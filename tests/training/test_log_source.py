"""Logs of every kind and in every condition: what can be used is used, and the rest is named by file and place."""

from __future__ import annotations

import gzip
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhi_plugin.errors import ConfigError, RecordError, UserError
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.logs import write_conversations
from rlhi_plugin.parquet_logs import write_parquet
from rlhi_plugin.privacy.tombstones import append_tombstones
from rlhi_plugin.records import Conversation, Tombstone
from rlhi_training.hub_rows import HubDataset, hub_dataset
from rlhi_training.log_source import LogSource, log_source
from rlhi_training.pipeline import Pipeline
from rlhi_training.recipe import Recipe, ScreensSection, SplitSection
from rlhi_training.run_directory import RunDirectory
from rlhi_training.stages.ingest import CONVERSATIONS, ingest

ASKED = "Could you tell me how the harbour of my town came about?"


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("RLHI_KEY", "0123456789abcdef")


def _row(name: str, *said: str, user: str | None = "aa", agent: str = "Firefox", **more) -> dict:
    """A row as WildChat-1M has it."""
    time = datetime(2023, 5, 1, 10, tzinfo=UTC)
    turns = [
        {
            "role": "assistant" if i % 2 else "user",
            "content": text,
            "hashed_ip": None if i % 2 else user,
            "header": None if i % 2 else {"accept-language": "en", "user-agent": agent},
            "timestamp": time,
            "language": "English",
            "toxic": False,
            "turn_identifier": i,
        }
        for i, text in enumerate(said)
    ]
    row = {
        "conversation_hash": name,
        "model": "gpt-4",
        "timestamp": time,
        "conversation": turns,
        "turn": len(said) // 2,
    }
    moderation = [{"flagged": False, "categories": {"hate": False}}]
    row |= {"language": "English", "openai_moderation": moderation, "toxic": False, "redacted": False}
    return row | {"hashed_ip": user, "header": {"accept-language": "en", "user-agent": agent}} | more


ROWS = [
    _row("h1", ASKED, "By trade."),
    _row("h2", ASKED + " And who built it?", "Monks."),
    _row("h3", "Write a poem about rain, please.", "It rains.", agent="Safari"),
    _row("h4", "What is a good name for a grey cat?", "Ash.", user=None),
]


def _jsonl(path: Path, rows=ROWS) -> Path:
    path.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows))
    return path


def _parquet(path: Path, rows=ROWS) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return path


def _read(name) -> list[Conversation | RecordError]:
    return list(log_source(name).conversations())


def test_wildchat_is_the_same_from_jsonl_parquet_and_a_stream_of_datasets(tmp_path):
    folder = tmp_path / "hub"
    folder.mkdir()
    _parquet(folder / "train-00000.parquet")
    found = [
        _read(_jsonl(tmp_path / "rows.jsonl")),
        _read(_parquet(tmp_path / "rows.parquet")),
        _read(f"hf://datasets/{folder}"),
    ]
    assert found[0] == found[1] == found[2]
    assert [talk.conversation_id for talk in found[0]] == ["h1", "h2", "h3", "h4"]
    users = [talk.user_id for talk in found[0]]
    # One address with two browsers is two people; the published address cannot be found without the key.
    assert users == [pseudonym("wildchat\0aa\0en\0Firefox")] * 2 + [pseudonym("wildchat\0aa\0en\0Safari"), None]


def test_a_local_data_set_of_json_lines_streams_with_its_bad_rows(tmp_path):
    _jsonl(tmp_path / "train.jsonl", [*ROWS[:1], _row("bad", "", "Yes."), ROWS[1]])
    first, bad, second = _read(f"hf://datasets/{tmp_path}?split=train")
    assert (first.conversation_id, second.conversation_id) == ("h1", "h2")
    assert isinstance(bad, RecordError)
    assert (bad.line, bad.unit) == (2, "record")


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("hf://datasets/allenai/WildChat-1M", HubDataset("allenai/WildChat-1M")),
        ("hf:/datasets/allenai/WildChat-1M", HubDataset("allenai/WildChat-1M")),
        ("hf://datasets/a/b@main?split=test", HubDataset("a/b", "main", "test")),
        ("logs.jsonl", None),
        ("./hf.jsonl", None),
    ],
)
def test_addresses(address, found):
    assert hub_dataset(address) == found


def test_what_is_no_address_or_cannot_be_reached_says_what_to_do(tmp_path):
    for wrong in ("hf://datasets/", "hf://models/a/b", "hf://datasets/a/b?part=train"):
        with pytest.raises(ConfigError, match="hf://datasets/OWNER/NAME"):
            log_source(wrong)
    # The tests never reach a hub.
    source = log_source("hf://datasets/allenai/WildChat-1M")
    for ask in (source.conversations, source.digest):
        with pytest.raises(ConfigError, match=r"allenai/WildChat-1M.*HF_HUB_OFFLINE.*give its folder"):
            list(ask())
    with pytest.raises(ConfigError, match="give its folder"):
        list(log_source(f"hf://datasets/{tmp_path}/none").conversations())
    with pytest.raises(UserError, match="does not exist"):
        LogSource(str(tmp_path / "none")).require()


def test_a_run_reads_a_data_set_and_notices_when_it_changes(tmp_path):
    folder = tmp_path / "hub"
    folder.mkdir()
    _parquet(folder / "train.parquet")
    recipe = Recipe(name="x", summary="-", split=SplitSection(held_out_users=0.0))

    def run():
        said: list[object] = []
        pipeline = Pipeline(f"hf://datasets/{folder}", recipe, RunDirectory(tmp_path / "run"), say=said.append)
        return pipeline, pipeline.run(until="ingest").stages["ingest"], said

    _, entry, said = run()
    assert entry.passed == 4
    assert any("1 carry no user" in str(line) for line in said)
    assert run()[0].reused == ["ingest"]
    _parquet(folder / "train.parquet", [*ROWS, _row("h5", "Tell me a story about a lamp.", "Once.")])
    again, entry, _ = run()
    assert again.reused == []
    assert entry.passed == 5


def test_a_folder_of_mixed_logs_is_one_log_and_honours_its_tombstones(tmp_path, conversation):
    _parquet(tmp_path / "a.parquet", ROWS[:2])
    write_parquet(tmp_path / "b.parquet", [conversation("ours", [ASKED, "By trade."], user="ann")])
    write_conversations(tmp_path / "c.jsonl.gz", [conversation("gone", [ASKED, "By trade."], user="bob")])
    stone = Tombstone(user_id="bob", forgotten_at=datetime(2030, 1, 1, tzinfo=UTC))
    append_tombstones(tmp_path / "c.jsonl.gz", [stone])
    (tmp_path / "notes.txt").write_text("not a log")
    source = log_source(tmp_path)
    result = ingest(source.conversations(), Recipe(name="x", summary="-"), source.tombstones())
    assert {c.conversation_id for c in result.files[CONVERSATIONS]} <= {"h1", "h2", "ours"}
    assert {drop.key: drop.reason for drop in result.dropped}["gone"] == "forgotten"


# Bad input: each is an error with its place, or dropped with a reason; the good rows beside it are used.


def _kept_and_dropped(name, **screens):
    recipe = Recipe(
        name="x",
        summary="-",
        screens=ScreensSection(near_duplicates=0, template_users=0, **screens),
        split=SplitSection(held_out_users=0.0),
    )
    result = ingest(log_source(name).conversations(), recipe)
    assert result.inputs == result.passed + len(result.dropped)
    return [c.conversation_id for c in result.files[CONVERSATIONS]], result.dropped


def _good(*names: str) -> list[dict]:
    return [_row(name, f"{ASKED} {name}", "By trade.") for name in names]


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
def test_truncated_parquet(tmp_path, cut):
    whole = _parquet(tmp_path / "whole.parquet", _good("a", "b", "c", "d")).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: int(cut * len(whole))])
    kept, dropped = _kept_and_dropped(tmp_path / "cut.parquet")
    assert kept == []
    assert [drop.reason for drop in dropped] == ["malformed"]
    assert "cut.parquet: record 1" in dropped[0].detail
    assert "damaged" in dropped[0].detail


def test_parquet_with_a_damaged_page_gives_the_rows_before_it(tmp_path):
    rows = [_row(f"h{i}", f"{ASKED} {i}" * 20, "By trade.") for i in range(400)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "log.parquet", row_group_size=100, compression="none")
    data = bytearray((tmp_path / "log.parquet").read_bytes())
    middle = len(data) * 3 // 4
    data[middle : middle + 4000] = b"\xff" * 4000
    (tmp_path / "log.parquet").write_bytes(bytes(data))
    kept, dropped = _kept_and_dropped(tmp_path / "log.parquet", max_conversations_per_user=0)
    assert len(kept) >= 100
    assert dropped
    assert all("log.parquet: record" in drop.detail for drop in dropped)


def test_truncated_gzip(tmp_path):
    whole = gzip.compress("".join(json.dumps(row, default=str) + "\n" for row in _good(*map(str, range(500)))).encode())
    (tmp_path / "log.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    kept, dropped = _kept_and_dropped(tmp_path / "log.jsonl.gz", max_conversations_per_user=0)
    assert kept
    assert [drop.reason for drop in dropped] == ["malformed"]
    assert f"log.jsonl.gz:{len(kept) + 1}" in dropped[0].detail


def test_mixed_schemas_roles_out_of_order_empty_turns_and_bytes_that_are_no_text(tmp_path):
    first, last = _good("first", "last")
    disordered = _row("disordered", "a", "b", "c")
    disordered["conversation"] = disordered["conversation"][1:]
    other_type = first | {"conversation_hash": "typed", "conversation": {"role": "user"}}
    lines = [
        json.dumps(first, default=str).encode(),
        json.dumps({"conversation_id": "ours", "messages": [{"id": "0", "role": "user", "content": ASKED}]}).encode(),
        b'{"conversation_hash": "latin", "conversation": [{"role": "user", "content": "caf\xe9"}]}',
        json.dumps(disordered, default=str).encode(),
        json.dumps(_row("hollow", ASKED, ""), default=str).encode(),
        json.dumps(other_type, default=str).encode(),
        b'{"neither": "this", "nor": "that"}',
        b'{"conversation_hash": "half", "conversation": [',
        b"[1, 2]",
        json.dumps(last, default=str).encode(),
    ]
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    kept, dropped = _kept_and_dropped(tmp_path / "log.jsonl")
    assert kept == ["first", "last"]
    assert {drop.key: drop.reason for drop in dropped} == {"ours": "no_reply"} | {
        f"log.jsonl:{line}": "malformed" for line in (3, 4, 5, 6, 7, 8, 9)
    }
    detail = {drop.key: drop.detail for drop in dropped}
    assert "not UTF-8 at byte" in detail["log.jsonl:3"]
    assert "'assistant', expected 'user'" in detail["log.jsonl:4"]
    assert "message 1 (assistant) is empty" in detail["log.jsonl:5"]
    assert "Known: " in detail["log.jsonl:7"]


def test_a_turn_of_a_megabyte_is_dropped_and_named(tmp_path):
    rows = [*_good("a"), _row("huge", "x" * (1 << 20), "Long."), *_good("b")]
    kept, dropped = _kept_and_dropped(_jsonl(tmp_path / "log.jsonl", rows))
    assert kept == ["a", "b"]
    assert [(drop.key, drop.reason) for drop in dropped] == [("huge", "turn_too_long")]
    assert len(dropped[0].detail) < 400


@pytest.mark.slow
def test_a_user_with_50000_conversations(tmp_path):
    said = [f"{ASKED} {i}" for i in range(50_000)]
    rows = (_row(f"h{i}", text, "By trade.") for i, text in enumerate(said))
    with (tmp_path / "log.jsonl").open("w") as file:
        file.writelines(json.dumps(row, default=str) + "\n" for row in rows)
    kept, dropped = _kept_and_dropped(tmp_path / "log.jsonl")
    assert len(kept) == 200
    assert {drop.reason for drop in dropped} == {"user_over_limit"}
    assert len(dropped) == 49_800


@pytest.mark.slow
@pytest.mark.parametrize("template", ["refuses", "ignores"])
def test_a_template_without_a_system_role_stops_the_run_before_it_begins(
    tmp_path, tiny_model_dir, four_users, template
):
    from transformers import AutoTokenizer

    base = tmp_path / "base"
    shutil.copytree(tiny_model_dir, base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    said = "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['content'] }}{% endif %}{% endfor %}"
    tokenizer.chat_template = (refuses if template == "refuses" else "") + said
    tokenizer.save_pretrained(base)
    write_conversations(tmp_path / "logs.jsonl", four_users)
    recipe = Recipe(name="x", summary="-", model={"base": str(base)})
    directory = RunDirectory(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"system message.*train without personas"):
        Pipeline(tmp_path / "logs.jsonl", recipe, directory, say=lambda _: None).run()
    assert directory.manifest() is None, "nothing was begun"
