"""Who was forgotten stays forgotten in exports, imports and training, without the store."""

import gzip
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_plugin.errors import ConfigError, RecordError
from rlhi_plugin.logs import read_conversations, write_conversations
from rlhi_plugin.privacy.tombstones import append_tombstones, by_user, read_tombstones, remembered, without_forgotten
from rlhi_plugin.records import Conversation, Message, Tombstone

THEN = datetime(2026, 3, 1, tzinfo=UTC)
STONE = Tombstone(user_id="u_1", forgotten_at=THEN)


def talk(name, user_id, *hours, started=None):
    """One message for each number of hours before (negative) or after the forgetting; None has no time."""
    said = [
        Message(
            id=str(i), role="user", content=f"{i}", created_at=None if h is None else THEN + timedelta(hours=h),
            parent_id=str(i - 1) if i else None,
        )
        for i, h in enumerate(hours)
    ]  # fmt: skip
    return Conversation(conversation_id=name, user_id=user_id, messages=tuple(said), started_at=started)


TALKS = [talk("mine", "u_1", -2, -1), talk("theirs", "u_2", -2), talk("nobody", None, -2), talk("back", "u_1", 1, 2)]


def test_only_what_the_user_said_before_goes():
    kept = list(without_forgotten(TALKS, [STONE]))
    assert kept == TALKS[1:]
    assert all(a is b for a, b in zip(kept, TALKS[1:], strict=True))


def test_a_thread_that_went_on_keeps_its_end():
    kept = remembered(talk("t", "u_1", -1, 0, 1, 2, started=THEN - timedelta(hours=1)), by_user([STONE]))
    assert [m.id for m in kept.messages] == ["2", "3"]
    assert [m.parent_id for m in kept.messages] == [None, "2"]
    assert kept.started_at == THEN + timedelta(hours=1)


def test_a_message_without_a_time_counts_with_the_beginning():
    assert remembered(talk("t", "u_1", None), by_user([STONE])) is None
    assert remembered(talk("t", "u_1", None, started=THEN), by_user([STONE])) is None
    later = talk("t", "u_1", None, started=THEN + timedelta(seconds=1))
    assert remembered(later, by_user([STONE])) is later


def test_the_latest_tombstone_counts():
    later = Tombstone(user_id="u_1", forgotten_at=THEN + timedelta(hours=5))
    for order in ([STONE, later], [later, STONE]):
        assert remembered(TALKS[3], by_user(order)) is None


@given(st.lists(st.one_of(st.none(), st.integers(-3, 3)), max_size=6), st.sampled_from(["u_1", "u_2", None]))
def test_nothing_from_before_is_left(hours, user_id):
    kept = remembered(talk("t", user_id, *hours), by_user([STONE]))
    if user_id != "u_1":
        assert len(kept.messages) == len(hours)
    else:
        later = [THEN + timedelta(hours=h) for h in hours if h is not None and h > 0]
        assert ([m.created_at for m in kept.messages] if kept else []) == later


@pytest.mark.parametrize("name", ["logs.jsonl", "logs.jsonl.gz"])
def test_an_export_carries_its_tombstones(tmp_path, name):
    file = tmp_path / name
    assert write_conversations(file, TALKS, [STONE]) == 4
    assert list(read_conversations(file)) == TALKS
    assert read_tombstones(file) == [STONE]


@pytest.mark.parametrize("name", ["logs.jsonl", "logs.jsonl.gz"])
def test_an_old_export_gets_them_afterwards(tmp_path, name):
    file = tmp_path / name
    write_conversations(file, TALKS)
    assert read_tombstones(file) == []
    append_tombstones(file, [STONE])
    append_tombstones(file, [])
    assert read_tombstones(file) == [STONE]
    assert list(read_conversations(file)) == TALKS


def test_a_file_without_a_last_newline(tmp_path):
    file = tmp_path / "logs.jsonl"
    write_conversations(file, TALKS[:1])
    file.write_bytes(file.read_bytes().rstrip(b"\n"))
    append_tombstones(file, [STONE])
    assert list(read_conversations(file)) == TALKS[:1]
    assert read_tombstones(file) == [STONE]


def test_parquet_has_them_beside_it(tmp_path):
    file = tmp_path / "logs.parquet"
    file.write_bytes(b"PAR1")
    append_tombstones(file, [STONE])
    assert file.read_bytes() == b"PAR1"
    assert read_tombstones(file) == [STONE]
    assert (tmp_path / "logs.parquet.tombstones").is_file()


def test_damage_is_never_passed_over(tmp_path):
    file = tmp_path / "logs.jsonl"
    file.write_text('{"tombstone":{"user_id":"u_1"}}\n')
    with pytest.raises(ConfigError, match=r"logs\.jsonl:1: the tombstone is damaged"):
        read_tombstones(file)
    with pytest.raises(ConfigError, match="cannot read"):
        read_tombstones(tmp_path / "absent.jsonl")


def test_a_cut_archive_is_named_by_who_reads_it(tmp_path):
    file = tmp_path / "logs.jsonl.gz"
    write_conversations(file, TALKS * 50, [STONE])
    file.write_bytes(file.read_bytes()[:-20])
    assert read_tombstones(file) == [STONE]
    assert isinstance(list(read_conversations(file))[-1], RecordError)


def test_gzip_members_are_one_file(tmp_path):
    file = tmp_path / "logs.jsonl.gz"
    write_conversations(file, TALKS)
    append_tombstones(file, [STONE])
    assert gzip.decompress(file.read_bytes()).count(b'{"tombstone":') == 1
