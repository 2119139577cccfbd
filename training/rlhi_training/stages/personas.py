"""Personas: what was known about a user at the moment before each conversation, never later.

The paper (arXiv 2509.25137) summarises a user's long-term history, which precedes the turns that it is used on. The
builders are those of the live half, so that training sees what serving would have seen.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence

from rlhi_plugin.calls.concurrently import each
from rlhi_plugin.errors import ModelCallError, ProviderUnavailableError
from rlhi_plugin.persona import ExtractivePersonaBuilder, PersonaBuilder
from rlhi_plugin.records import Conversation, FollowUp, Persona, Record
from rlhi_plugin.terminal import progress
from rlhi_training.records import PersonaBefore
from rlhi_training.run_directory import StageResult
from rlhi_training.stages.persona_history import History, as_used, begun

logger = logging.getLogger("rlhi.training")

PERSONAS = "personas.jsonl"
LATEST = "latest_personas.jsonl"
AT_ONCE = 512
"""Personas that are built at once, unless the model's client lets fewer calls through (ours)."""


async def personas(
    conversations: Sequence[Conversation], follow_ups: Sequence[FollowUp], builder: PersonaBuilder
) -> StageResult:
    """Build the persona before each conversation, and each user's latest one.

    Nothing is dropped: a conversation without a persona says why it has none.

    Raises:
        ModelCallError: no persona at all could be had, or no call can succeed as things are.
    """
    by_user: dict[str | None, list[Conversation]] = defaultdict(list)
    for conversation in conversations:
        by_user[conversation.user_id].append(conversation)
    labels: dict[str, list[FollowUp]] = defaultdict(list)
    for follow_up in follow_ups:
        labels[follow_up.conversation_id].append(follow_up)
    nobody = by_user.pop(None, [])
    with progress("build personas", len(conversations) + len(by_user)) as advance:

        async def of_user(user_id: str) -> tuple[list[PersonaBefore], Persona | None]:
            found = await personas_of(user_id, by_user[user_id], labels, builder)
            advance(len(by_user[user_id]) + 1)
            return found

        users = sorted(user for user in by_user if user is not None)
        built = await each(users, of_user, at_once=AT_ONCE)
    found = {entry.conversation_id: entry for entries, _ in built for entry in entries}
    found |= {c.conversation_id: without(c, "anonymous") for c in nobody}
    before = [found[conversation.conversation_id] for conversation in conversations]
    latest = [persona for _, persona in built if persona is not None]
    failed = any(entry.why_none == "model_call_failed" for entry in before)
    if failed and not latest and not any(entry.persona for entry in before):
        raise ModelCallError(f"every persona that {builder.name} was asked for failed. See the log; try another model.")
    files: dict[str, Sequence[Record]] = {PERSONAS: before, LATEST: latest}
    return StageResult(len(conversations), len(before), [], files, {"builder": builder.name, "users": len(by_user)})


def without(conversation: Conversation, why: str) -> PersonaBefore:
    """Of a conversation before which nothing is known."""
    return PersonaBefore(
        conversation_id=conversation.conversation_id, user_id=conversation.user_id, persona=None, why_none=why
    )


async def personas_of(
    user_id: str,
    conversations: Sequence[Conversation],
    labels: Mapping[str, Sequence[FollowUp]],
    builder: PersonaBuilder,
) -> tuple[list[PersonaBefore], Persona | None]:
    """The persona before each of one user's conversations, in their order, and the latest one.

    The extractive builder reads what the user said once, in the order in which it became known; another one reads the
    history anew for each conversation.
    """
    if type(builder) is ExtractivePersonaBuilder:
        # It asks nobody and never fails; what another one that can go on would be asked is not the same in pieces.
        history = History(user_id, builder)
        ordered = sorted(conversations, key=begun)
        known = {c.conversation_id: await history.before(c, labels.get(c.conversation_id, ())) for c in ordered}
        return [known[c.conversation_id] for c in conversations], await history.latest()
    before = await each(conversations, lambda c: _before(c, conversations, labels, builder), at_once=AT_ONCE)
    try:
        return before, await _build(user_id, conversations, labels, builder)
    except ModelCallError as error:
        _failed(error, user_id)
        return before, None


def earlier(conversation: Conversation, others: Sequence[Conversation]) -> list[Conversation]:
    """What `others` held at the moment when `conversation` began: threads begun before it, up to that moment.

    A message without a time counts as said when its thread began; a thread without a time is left out.
    """
    start = conversation.started_at
    if start is None:
        return []
    known = []
    for other in others:
        if (
            other.started_at is None
            or other.started_at >= start
            or other.conversation_id == conversation.conversation_id
        ):
            continue
        began = other.started_at
        cut = next((i for i, m in enumerate(other.messages) if (m.created_at or began) >= start), len(other.messages))
        known.append(other.model_copy(update={"messages": other.messages[:cut]}))
    return sorted(known, key=lambda c: (c.started_at or start, c.conversation_id))


async def _before(
    conversation: Conversation,
    others: Sequence[Conversation],
    labels: Mapping[str, Sequence[FollowUp]],
    builder: PersonaBuilder,
) -> PersonaBefore:
    user_id = conversation.user_id
    why, persona = None, None
    if user_id is None:
        why = "anonymous"
    elif conversation.started_at is None:
        why = "time_unknown"
    else:
        history = earlier(conversation, others)
        try:
            persona = await _build(user_id, history, labels, builder)
        except ModelCallError as error:
            why = _failed(error, user_id)
        if persona is None and why is None:
            why = "nothing_said" if history else "no_earlier_history"
    return PersonaBefore(conversation_id=conversation.conversation_id, user_id=user_id, persona=persona, why_none=why)


def _failed(error: ModelCallError, user_id: str) -> str:
    """The reason for having no persona; where no call can succeed, the error."""
    if isinstance(error, ProviderUnavailableError):
        raise error
    logger.warning("no persona for %s: %s", user_id, error)
    return "model_call_failed"


async def _build(
    user_id: str, history: Sequence[Conversation], labels: Mapping[str, Sequence[FollowUp]], builder: PersonaBuilder
) -> Persona | None:
    """None where the history holds nothing that a persona could quote."""
    said = {(c.conversation_id, m.id) for c in history for m in c.messages}
    follow_ups = [
        f for c in history for f in labels.get(c.conversation_id, ()) if (f.conversation_id, f.message_id) in said
    ]
    if not follow_ups:
        return None
    persona = await builder.build(user_id, history, follow_ups)
    return as_used(persona) if persona.statements else None
