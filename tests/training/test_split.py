"""The split by user and time: nothing that evaluation sees was learned from, whatever the log looks like."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi_plugin.errors import ConfigError, RecordError
from rlhi_plugin.records import Conversation, Message
from rlhi_plugin.split import SplitEntry, SplitPart, read_split
from rlhi_training.recipe import Recipe, SplitSection
from rlhi_training.run_directory import check_conservation, write_records
from rlhi_training.split import Splitter, span_of, split_by_user
from rlhi_training.stages.ingest import CONVERSATIONS, HELD_OUT, SPLIT, ingest

START = datetime(2026, 1, 1, tzinfo=UTC)


def _talk(number: int, user: str | None, begins: int | None, minutes: list[int | None]) -> Conversation:
    start = None if begins is None else START + timedelta(minutes=begins)
    messages = tuple(
        Message(
            id=f"{number}-{i}",
            role="assistant" if i % 2 else "user",
            content=f"message {i} of {number}, which is long enough",
            created_at=None if start is None or after is None else start + timedelta(minutes=after),
        )
        for i, after in enumerate(minutes)
    )
    return Conversation(conversation_id=f"c{number}", user_id=user, messages=messages, started_at=start)


@st.composite
def logs(draw) -> list[Conversation]:
    """Threads of a few users that overlap, lack times, or begin at once."""
    shapes = st.tuples(
        st.none() | st.sampled_from([f"u{i}" for i in range(6)]),
        st.none() | st.integers(0, 60),
        st.lists(st.none() | st.integers(0, 40), min_size=2, max_size=4),
    )
    return [_talk(i, *shape) for i, shape in enumerate(draw(st.lists(shapes, max_size=25)))]


sections = st.builds(
    SplitSection,
    held_out_users=st.sampled_from([0.0, 0.3, 0.5, 0.9]),
    held_out_history=st.sampled_from([0.1, 0.5, 0.8]),
    later_share=st.sampled_from([0.0, 0.2, 0.6]),
    seed=st.integers(0, 5),
)


def _times(conversation: Conversation) -> list[datetime]:
    began = conversation.started_at
    return [] if began is None else [message.created_at or began for message in conversation.messages]


@settings(max_examples=300, deadline=None)
@given(talks=logs(), section=sections)
def test_nothing_leaks_from_evaluation_into_training(talks, section):
    entries = split_by_user(talks, Splitter(section))
    assert [entry.conversation_id for entry in entries] == [talk.conversation_id for talk in talks]
    parts: dict[str | None, dict[SplitPart, list[Conversation]]] = defaultdict(lambda: defaultdict(list))
    for talk, entry in zip(talks, entries, strict=True):
        assert entry.message_ids == tuple(message.id for message in talk.messages)
        parts[talk.user_id][entry.part].append(talk)
    for user, theirs in parts.items():
        # By user: whoever is held out trains nothing, and whoever trains is not held out.
        assert not (
            {SplitPart.TRAIN, SplitPart.LATER} & set(theirs) and {SplitPart.HISTORY, SplitPart.EVALUATION} & set(theirs)
        )
        if user is None:
            assert set(theirs) <= {SplitPart.TRAIN}
        # By time: the last word of what comes first is before the first word of what comes later.
        for first, second in ((SplitPart.TRAIN, SplitPart.LATER), (SplitPart.HISTORY, SplitPart.EVALUATION)):
            earlier = [time for talk in theirs[first] for time in _times(talk)]
            later = [min([talk.started_at, *_times(talk)]) for talk in theirs[second]]
            assert not (earlier and later) or max(earlier) < min(later)
            assert all(talk.started_at for talk in theirs[second])


@settings(max_examples=100, deadline=None)
@given(talks=logs(), section=sections, order=st.randoms(use_true_random=False))
def test_the_order_of_the_log_decides_nothing(talks, section, order):
    shuffled = list(talks)
    order.shuffle(shuffled)
    first = {entry.conversation_id: entry.part for entry in split_by_user(talks, Splitter(section))}
    second = {entry.conversation_id: entry.part for entry in split_by_user(shuffled, Splitter(section))}
    assert first == second


@settings(max_examples=100, deadline=None)
@given(talks=logs(), more=logs(), section=sections, other=sections)
def test_a_frozen_split_stays_when_the_log_grows(tmp_path_factory, talks, more, section, other):
    file = tmp_path_factory.mktemp("split") / "split.jsonl"
    before = split_by_user(talks, Splitter(section))
    write_records(file, before)
    assert list(read_split(file)) == before
    grown = [*talks, *(talk.model_copy(update={"conversation_id": f"new-{talk.conversation_id}"}) for talk in more)]
    after = split_by_user(grown, Splitter(other.model_copy(update={"frozen": str(file)})))
    # What was kept for evaluation never trains, and what trained never becomes evaluation.
    assert [entry.part for entry in after[: len(before)]] == [entry.part for entry in before]
    held_out = {entry.user_id for entry in before if entry.part in (SplitPart.HISTORY, SplitPart.EVALUATION)}
    trained = {entry.user_id for entry in before if entry.part in (SplitPart.TRAIN, SplitPart.LATER)} - {None}
    for entry in after[len(before) :]:
        if entry.user_id in held_out:
            assert entry.part not in (SplitPart.TRAIN, SplitPart.LATER)
        if entry.user_id in trained:
            assert entry.part not in (SplitPart.HISTORY, SplitPart.EVALUATION)


def test_about_the_share_of_users_that_was_asked_for_is_held_out_and_seeds_differ():
    users = [f"u_{i:032x}" for i in range(4000)]
    drawn = [{u for u in users if Splitter(SplitSection(held_out_users=0.1, seed=s)).holds_out(u)} for s in (0, 1)]
    assert all(320 < len(held) < 480 for held in drawn)
    assert drawn[0] != drawn[1]
    assert not Splitter(SplitSection(held_out_users=0.0)).holds_out("u_1")
    assert not Splitter(SplitSection(held_out_users=0.9)).holds_out(None)


def test_a_user_with_one_conversation_has_history_and_no_evaluation():
    (entry,) = split_by_user([_talk(0, "u", 0, [0, 1])], Splitter(SplitSection(held_out_users=0.999999)))
    assert entry.part is SplitPart.HISTORY


def test_ingest_keeps_held_out_users_out_and_writes_what_evaluation_reads(tmp_path):
    talks = [_talk(100 * user + i, f"u{user}", 60 * i, [0, 5]) for user in range(30) for i in range(4)]
    talks.append(_talk(9999, None, 0, [0, 1]))
    recipe = Recipe(name="x", summary="-", split=SplitSection(held_out_users=0.3, later_share=0.25))
    result = ingest(talks, recipe)
    check_conservation("ingest", result)
    kept = {c.conversation_id for c in result.files[CONVERSATIONS]}
    held = {c.conversation_id for c in result.files[HELD_OUT]}
    assert not kept & held
    assert kept | held == {c.conversation_id for c in talks}
    parts = {entry.conversation_id: entry.part for entry in result.files[SPLIT]}
    assert {name for name, part in parts.items() if part is SplitPart.TRAIN} == kept
    assert {drop.reason for drop in result.dropped} == {"held_out_user", "held_out_time"}
    said = result.notes["split"]
    assert said["train"]["conversations"] == len(kept)
    assert said["history"]["users"] == said["evaluation"]["users"] > 3
    identity = result.notes["identity"]
    assert identity["anonymous"] == 1
    assert identity["users"] == said["train"]["users"] == said["later"]["users"]
    write_records(tmp_path / "split.jsonl", result.files[SPLIT])
    assert {entry.conversation_id for entry in read_split(tmp_path / "split.jsonl")} == kept | held


def test_a_damaged_manifest_is_an_error_with_its_line(tmp_path):
    file = tmp_path / "split.jsonl"
    entry = SplitEntry(conversation_id="c", part=SplitPart.TRAIN, message_ids=("0",))
    file.write_text(f"{entry.to_json()}\nbroken\n")
    with pytest.raises(RecordError, match=r"split\.jsonl:2"):
        Splitter(SplitSection(frozen=str(file)))
    with pytest.raises(ConfigError, match=r"split\.jsonl"):
        Splitter(SplitSection(frozen=str(tmp_path / "none")))


def test_a_span_takes_messages_without_a_time_at_the_beginning():
    assert span_of(_talk(0, "u", None, [0, 1])) is None
    span = span_of(_talk(0, "u", 10, [None, 7]))
    assert (span.start, span.end) == (START + timedelta(minutes=10), START + timedelta(minutes=17))
