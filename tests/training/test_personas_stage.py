"""Personas cover only what came before the conversation they are used in (invariant 2)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi_plugin.errors import ModelCallError, ProviderSetupError
from rlhi_plugin.persona import ExtractivePersonaBuilder
from rlhi_plugin.records import Conversation, FollowUp, Message
from rlhi_training.recipe import IngestSection
from rlhi_training.stages.label import FOLLOW_UPS, label
from rlhi_training.stages.personas import LATEST, PERSONAS, earlier, personas

START = datetime(2026, 1, 5, 9, tzinfo=UTC)


def _build(talks: list[Conversation], labeller):
    follow_ups: list[FollowUp] = list(asyncio.run(label(talks, labeller, IngestSection())).files[FOLLOW_UPS])
    return asyncio.run(personas(talks, follow_ups, ExtractivePersonaBuilder()))


def test_why_a_conversation_has_no_persona(conversation, cue_labeller):
    talks = [
        conversation("a", ["Q", "A", "Much shorter please.", "B"], day=1),
        conversation("b", ["Q", "A"], day=2),
        conversation("c", ["Q", "A"], user="bob", day=1),
        conversation("d", ["Q", "A"], user="bob", day=2),
        conversation("e", ["Q", "A"], user=None),
        conversation("f", ["Q", "A"], day=3).model_copy(update={"started_at": None}),
    ]
    result = _build(talks, cue_labeller)
    before = {entry.conversation_id: entry for entry in result.files[PERSONAS]}
    assert {name: entry.why_none for name, entry in before.items()} == {
        "a": "no_earlier_history",
        "b": None,
        "c": "no_earlier_history",
        "d": "nothing_said",
        "e": "anonymous",
        "f": "time_unknown",
    }
    assert [s.text for s in before["b"].persona.statements] == ["Much shorter please."]
    assert [p.user_id for p in result.files[LATEST]] == ["ann"]
    assert result.inputs == result.passed == 6


class _Moody(ExtractivePersonaBuilder):
    """Fails for some users, in a way of their own."""

    def __init__(self, errors):
        super().__init__()
        self.errors = errors

    async def build(self, user_id, conversations, follow_ups):
        if user_id in self.errors:
            raise self.errors[user_id]
        return await super().build(user_id, conversations, follow_ups)


def test_a_persona_that_cannot_be_had_is_missing_for_a_reason(four_users, cue_labeller):
    follow_ups = list(asyncio.run(label(four_users, cue_labeller, IngestSection())).files[FOLLOW_UPS])

    def build(errors):
        return asyncio.run(personas(four_users, follow_ups, _Moody(errors)))

    result = build({"ann": ModelCallError("it does not follow schemas. Use another.")})
    why = {entry.conversation_id: entry.why_none for entry in result.files[PERSONAS]}
    assert (why["ann1"], why["ann2"], why["bob1"]) == ("model_call_failed", "model_call_failed", None)
    assert [persona.user_id for persona in result.files[LATEST]] == ["bob", "cyd", "dan"]
    with pytest.raises(ModelCallError, match="every persona"):
        build(dict.fromkeys(("ann", "bob", "cyd", "dan"), ModelCallError("no.")))
    with pytest.raises(ProviderSetupError, match="no key"):
        build({"ann": ProviderSetupError("no key. Set one.")})


def test_of_a_thread_still_going_on_only_its_past_is_known(conversation):
    first = conversation("a", ["Q", "A", "Much shorter please.", "B", "Use bullets please."])
    second = conversation("b", ["Q", "A"]).model_copy(update={"started_at": START + timedelta(minutes=3)})
    (known,) = earlier(second, [first, second])
    assert [m.id for m in known.messages] == ["a-0", "a-1", "a-2"]
    assert earlier(first, [first, second]) == []


_WISHES = st.sampled_from(["Much shorter please.", "Use bullet points please.", "thank you", "Another topic"])
_TALK = st.tuples(st.sampled_from(["ann", "bob", None]), st.integers(0, 300), st.lists(_WISHES, min_size=1, max_size=3))


@settings(max_examples=60, deadline=None)
@given(shape=st.lists(_TALK, min_size=1, max_size=8))
def test_no_persona_ever_covers_its_own_future(cue_labeller, shape):
    talks = []
    for number, (user, minute, wishes) in enumerate(shape):
        begin = START + timedelta(minutes=minute)
        texts = ["A request", *(text for wish in wishes for text in ("An answer", wish))]
        messages = tuple(
            Message(
                id=f"{number}-{i}",
                role="assistant" if i % 2 else "user",
                content=text,
                created_at=begin + timedelta(minutes=20 * i),
            )
            for i, text in enumerate(texts)
        )
        talks.append(Conversation(conversation_id=str(number), user_id=user, messages=messages, started_at=begin))
    said = {(t.conversation_id, m.id): (t.user_id, m.created_at) for t in talks for m in t.messages}
    begun = {t.conversation_id: t for t in talks}
    for entry in _build(talks, cue_labeller).files[PERSONAS]:
        if entry.persona is None:
            continue
        start = begun[entry.conversation_id].started_at
        assert entry.persona.covers_until < start
        for statement in entry.persona.statements:
            for evidence in statement.evidence:
                user, moment = said[evidence.conversation_id, evidence.message_id]
                assert user == entry.user_id == entry.persona.user_id
                assert moment < start
