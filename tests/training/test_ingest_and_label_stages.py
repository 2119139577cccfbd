"""Ingest and label: every drop has its reason, turns are cut as the records promise."""

from __future__ import annotations

import asyncio
import itertools
import string
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi_plugin.chat import ScriptedClient
from rlhi_plugin.errors import ModelCallError, RecordError
from rlhi_plugin.labelling.llm import LLMLabeller
from rlhi_plugin.logs import read_conversations, write_conversations
from rlhi_plugin.privacy.exclusions import exclusion, read_exclusions
from rlhi_plugin.privacy.tombstones import append_tombstones, read_tombstones
from rlhi_plugin.records import Conversation, FollowUp, FollowUpLabel, Message, Tombstone
from rlhi_training.recipe import IngestSection
from rlhi_training.run_directory import check_conservation
from rlhi_training.stages.ingest import CONVERSATIONS, ingest
from rlhi_training.stages.label import FOLLOW_UPS, TURNS, label


def test_each_unusable_row_is_dropped_with_its_reason(conversation):
    rows = [
        conversation("good", ["Hello there", "Hi"]),
        RecordError("not JSON", path=Path("/logs/chat.jsonl"), line=7),
        conversation("good", ["Hello again", "Hi"]),
        conversation("silent", ["Anybody?"]),
        conversation("blank", ["  ", "Hello"]),
        conversation("bad", ["something vile", "no"], toxic=True),
        conversation("second", ["And this", "Yes"]),
        conversation("third", ["And that", "No"]),
    ]
    result = ingest(rows, IngestSection(max_conversations=2))
    check_conservation("ingest", result)
    assert [c.conversation_id for c in result.files[CONVERSATIONS]] == ["good", "second"]
    assert {d.key: d.reason for d in result.dropped} == {
        "chat.jsonl:7": "malformed",
        "good@2": "duplicate",
        "silent": "no_reply",
        "blank": "empty",
        "bad": "toxic",
        "third": "over_limit",
    }
    assert "/logs/chat.jsonl:7" in next(d.detail for d in result.dropped if d.reason == "malformed")


def test_who_was_forgotten_is_dropped_and_who_came_back_is_cut(conversation, tmp_path):
    then = datetime(2026, 3, 1, tzinfo=UTC)
    stone = Tombstone(user_id="u_gone", forgotten_at=then)

    def said(name, user_id, *days):
        talk = conversation(name, [f"{name} {day}" for day in days])
        times = [then + timedelta(days=day) for day in days]
        messages = tuple(m.model_copy(update={"created_at": t}) for m, t in zip(talk.messages, times, strict=True))
        return talk.model_copy(update={"user_id": user_id, "messages": messages})

    rows = [said("before", "u_gone", -2, -1), said("other", "u_here", -2, -1), said("over", "u_gone", -2, -1, 1, 2)]
    log = tmp_path / "logs.jsonl"
    write_conversations(log, rows)
    append_tombstones(log, [stone])
    result = ingest(read_conversations(log), IngestSection(), read_tombstones(log))
    check_conservation("ingest", result)
    assert {d.key: d.reason for d in result.dropped} == {"before": "forgotten"}
    kept = {c.conversation_id: [m.content for m in c.messages] for c in result.files[CONVERSATIONS]}
    assert kept == {"other": ["other -2", "other -1"], "over": ["over 1", "over 2"]}


def test_what_nothing_may_be_learned_from_is_dropped(conversation, tmp_path):
    rows = [conversation("private", ["One", "Two"]), conversation("open", ["Three", "Four"])]
    refusal = exclusion("private", rows[0].user_id, datetime(2026, 3, 1, tzinfo=UTC))
    log = tmp_path / "logs.jsonl"
    # As in a log that was exported before the user said so, joined with one from after it.
    write_conversations(log, [*rows, refusal])
    result = ingest(read_conversations(log), IngestSection(), read_tombstones(log), read_exclusions(log))
    check_conservation("ingest", result)
    assert [c.conversation_id for c in result.files[CONVERSATIONS]] == ["open"]
    assert {d.key: d.reason for d in result.dropped} == {"private": "excluded"}


def test_toxic_rows_stay_where_the_recipe_says_so(conversation):
    rows = [conversation("bad", ["something vile", "no"], toxic=True)]
    assert ingest(rows, IngestSection(drop_toxic=False)).passed == 1


async def test_turns_hold_context_answer_and_follow_up(conversation, cue_labeller):
    talk = conversation("c", ["Q one", "A one", "shorter please", "A two", "thank you"])
    result = await label([talk], cue_labeller, IngestSection())
    first, second = result.files[TURNS]
    assert [m.content for m in first.context] == ["Q one"]
    assert (first.response, first.follow_up, first.label) == ("A one", "shorter please", FollowUpLabel.WITH_FEEDBACK)
    assert (first.request_id, first.response_id, first.follow_up_id) == ("c-0", "c-1", "c-2")
    assert [m.content for m in second.context] == ["Q one", "A one", "shorter please"]
    assert (second.turn, second.label) == (1, FollowUpLabel.POSITIVE_FEEDBACK)
    assert len(result.files[FOLLOW_UPS]) == 2


async def test_tool_calls_and_unanswered_messages_leave_a_renderable_context(cue_labeller):
    roles = [
        ("system", "Be kind."),
        ("user", "first"),
        ("user", "second"),
        ("assistant", ""),
        ("tool", "42"),
        ("assistant", "It is 42."),
        ("user", "and now please"),
        ("assistant", "It is 43."),
    ]
    messages = tuple(Message(id=str(i), role=role, content=text) for i, (role, text) in enumerate(roles))
    talk = Conversation(conversation_id="c", messages=messages)
    result = await label([talk], cue_labeller, IngestSection())
    first, second = result.files[TURNS]
    assert [(m.role, m.content) for m in first.context] == [("system", "Be kind."), ("user", "first\n\nsecond")]
    assert (first.turn, first.response) == (1, "It is 42.")
    assert [m.role for m in second.context] == ["system", "user", "assistant", "user"]


async def test_a_part_of_an_answer_is_no_answer_to_learn_from(cue_labeller):
    said = [
        Message(id="u1", role="user", content="Q one"),
        Message(id="a1", role="assistant", content="A o", finish="incomplete"),
        Message(id="u2", role="user", content="shorter please"),
        Message(id="a2", role="assistant", content="A two"),
    ]
    result = await label([Conversation(conversation_id="c", messages=tuple(said))], cue_labeller, IngestSection())
    check_conservation("label", result)
    (turn,) = result.files[TURNS]
    assert (turn.response, [m.content for m in turn.context]) == ("A two", ["Q one", "A o", "shorter please"])
    assert [(d.key, d.reason, d.detail) for d in result.dropped] == [("c#0", "incomplete_answer", "incomplete")]


def _answers_all_but(refused: str) -> LLMLabeller:
    def say(request):
        return "I cannot." if refused in request.messages[1].content else '{"label": "new_request"}'

    return LLMLabeller(ScriptedClient(say))


async def test_a_follow_up_that_a_model_cannot_label_costs_its_turn_and_no_other(conversation):
    talk = conversation("c", ["Q one", "A one", "vile words", "A two", "Q three", "A three"])
    result = await label([talk], _answers_all_but('"follow_up": "vile words"'), IngestSection())
    check_conservation("label", result)
    assert [(turn.turn, turn.label) for turn in result.files[TURNS]] == [(1, FollowUpLabel.NEW_REQUEST), (2, None)]
    assert [m.content for m in result.files[TURNS][0].context] == ["Q one", "A one", "vile words"]
    assert [one.turn for one in result.files[FOLLOW_UPS]] == [2]
    assert [(d.key, d.reason) for d in result.dropped] == [("c#0", "model_call_failed")]
    assert "JSON" in result.dropped[0].detail


async def test_a_model_that_labels_nothing_stops_the_run(conversation):
    talk = conversation("c", ["Q one", "A one", "vile words", "A two"])
    mute = _answers_all_but("vile words")
    with pytest.raises(ModelCallError, match="all of the first 1 calls"):
        await label([talk], mute, IngestSection())
    some = await label([talk], mute, IngestSection(), part=True)
    assert [(d.key, d.reason) for d in some.dropped] == [("c#0", "model_call_failed")]


async def test_long_histories_are_trimmed_by_whole_turns_and_long_requests_dropped(conversation, cue_labeller):
    talk = conversation("c", ["a" * 60, "b" * 60, "c" * 60, "d", "e" * 150, "f"])
    result = await label([talk], cue_labeller, IngestSection(max_context_chars=100))
    check_conservation("label", result)
    assert [[m.content[0] for m in t.context] for t in result.files[TURNS]] == [["a"], ["c"]]
    assert [(d.key, d.reason) for d in result.dropped] == [("c#2", "too_long")]


_TEXT = st.text(string.ascii_letters + " \n", max_size=30)
_ROLES = st.sampled_from(["system", "user", "assistant", "tool"])


@settings(max_examples=60, deadline=None)
@given(talks=st.lists(st.lists(st.tuples(_ROLES, _TEXT), max_size=12), max_size=4), limit=st.integers(100, 160))
def test_any_log_is_conserved_and_every_turn_is_well_formed(cue_labeller, talks, limit):
    rows = [
        Conversation(
            conversation_id=str(i % 3),
            messages=tuple(Message(id=str(j), role=role, content=text) for j, (role, text) in enumerate(talk)),
        )
        for i, talk in enumerate(talks)
    ]
    screened = ingest(rows, IngestSection())
    check_conservation("ingest", screened)
    kept = screened.files[CONVERSATIONS]
    labelled = asyncio.run(label(kept, cue_labeller, IngestSection(max_context_chars=limit)))
    check_conservation("label", labelled)
    for turn in labelled.files[TURNS]:
        roles = [m.role for m in turn.context if m.role != "system"]
        assert roles[-1] == "user"
        assert all(first != second for first, second in itertools.pairwise(roles))
        assert sum(len(m.content) for m in turn.context) <= limit
        assert (turn.label is None) == (turn.follow_up_id is None)


async def test_a_labeller_that_asks_a_model_has_as_many_under_way_as_its_client_lets_through(conversation):
    under_way = peak = 0

    class Slow:
        name, at_once = "slow", 300

        async def label(self, exchanges):
            nonlocal under_way, peak
            under_way += len(exchanges)
            peak = max(peak, under_way)
            await asyncio.sleep(0.001)
            under_way -= len(exchanges)
            return [
                FollowUp(
                    conversation_id=one.conversation_id,
                    turn=one.turn,
                    message_id=one.message_id,
                    label=FollowUpLabel.NEW_REQUEST,
                    labeller="slow",
                )
                for one in exchanges
            ]

    talks = [conversation(f"c{i}", ["Basil?", "Water.", "And mint?", "Ok."]) for i in range(700)]
    result = await label(talks, Slow(), IngestSection())
    assert [one.conversation_id for one in result.files[FOLLOW_UPS]] == [f"c{i}" for i in range(700)]
    assert 300 <= peak <= 512
