"""Label: what each follow-up does (arXiv 2509.25137, section 2.2), and the turns that it speaks about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from rlhi_plugin.calls.concurrently import each
from rlhi_plugin.errors import ModelCallError
from rlhi_plugin.labelling import Exchange, Labeller, exchanges
from rlhi_plugin.labelling.labeller import label_each
from rlhi_plugin.records import ChatMessage, Conversation, FollowUp, Message, Record
from rlhi_plugin.terminal import progress
from rlhi_training.recipe import IngestSection
from rlhi_training.records import Dropped, LabelledTurn
from rlhi_training.run_directory import StageResult

FOLLOW_UPS = "follow_ups.jsonl"
TURNS = "turns.jsonl"
_BATCH = 128


async def label(
    conversations: Sequence[Conversation], labeller: Labeller, recipe: IngestSection, *, part: bool = False
) -> StageResult:
    """Label every follow-up, and cut conversations into turns: request, logged answer, follow-up.

    An item is a user message that was answered. Drops: ``too_long`` (the request alone exceeds
    `IngestSection.max_context_chars`; longer histories are trimmed by whole turns from the front),
    ``incomplete_answer`` (the answer broke off, `Message.finish`: nobody has said what is wrong with a whole one; it
    stays in the context of later turns, for the user had read it), ``model_call_failed`` (nobody knows what the user
    said of the answer; it stays in the context, too).

    Args:
        conversations: What is labelled.
        labeller: What labels.
        recipe: Limits.
        part: The conversations are some of many: that none of their follow-ups could be labelled is no reason to stop.

    Raises:
        ModelCallError: not one of the first follow-ups could be labelled.
        ProviderUnavailableError: no call can succeed as things are.
    """
    found = [exchange for conversation in conversations for exchange in exchanges(conversation)]
    follow_ups, failed = await _labelled(found, labeller, part=part)
    labels = {(f.conversation_id, f.message_id): f for f in follow_ups}
    turns: list[LabelledTurn] = []
    dropped: list[Dropped] = []
    for conversation in conversations:
        unfit = _unfit(conversation, failed)
        for turn in turns_of(conversation, labels):
            fault = unfit.get(turn.request_id) or unfit.get(turn.response_id)
            if fault is not None:
                dropped.append(Dropped(stage="label", key=turn.key, reason=fault[0], detail=fault[1]))
                continue
            trimmed = _trim(turn, recipe.max_context_chars)
            if trimmed is None:
                size = len(turn.context[-1].content)
                dropped.append(Dropped(stage="label", key=turn.key, reason="too_long", detail=f"{size} characters"))
            else:
                turns.append(trimmed)
    files: dict[str, Sequence[Record]] = {FOLLOW_UPS: follow_ups, TURNS: turns}
    notes = {"labeller": follow_ups[0].labeller if follow_ups else labeller.name, "follow_ups": len(follow_ups)}
    return StageResult(len(turns) + len(dropped), len(turns), dropped, files, notes)


async def _labelled(
    found: Sequence[Exchange], labeller: Labeller, *, part: bool
) -> tuple[list[FollowUp], dict[tuple[str, str], str]]:
    """The labels; and by conversation and message, why there is none."""
    follow_ups: list[FollowUp] = []
    failed: dict[tuple[str, str], str] = {}
    with progress("label follow-ups", len(found)) as advance:
        labelled = False

        async def of_batch(batch: Sequence[Exchange]) -> list[FollowUp]:
            nonlocal labelled
            said = await label_each(labeller, batch)
            for exchange, one in zip(batch, said, strict=True):
                if isinstance(one, FollowUp):
                    labelled = True
                else:
                    failed[exchange.conversation_id, exchange.message_id] = str(one)
            advance(len(batch))
            if failed and not labelled and not part:
                last = list(failed.values())[-1]
                raise ModelCallError(f"label: all of the first {len(failed)} calls to {labeller.name} failed: {last}")
            return [one for one in said if isinstance(one, FollowUp)]

        batches = [found[start : start + _BATCH] for start in range(0, len(found), _BATCH)]
        # One batch more than a model has room for, so that the last answers of one are not waited for alone.
        at_once = 1 + -(-int(getattr(labeller, "at_once", 0)) // _BATCH)
        for part_of_them in await each(batches, of_batch, at_once=at_once):
            follow_ups += part_of_them
    return follow_ups, failed


def _unfit(conversation: Conversation, failed: Mapping[tuple[str, str], str]) -> dict[str, tuple[str, str]]:
    """By message of a turn, why nobody can learn from the turn, and the detail."""
    found = {m.id: ("incomplete_answer", str(m.finish)) for m in conversation.messages if m.finish is not None}
    if failed:
        for request, follow_up in pairwise(m.id for m in conversation.messages if _is(m, "user")):
            error = failed.get((conversation.conversation_id, follow_up))
            if error is not None:
                found[request] = "model_call_failed", error
    return found


def turns_of(conversation: Conversation, labels: dict[tuple[str, str], FollowUp]) -> list[LabelledTurn]:
    """The answered user messages of a conversation.

    A turn's answer is the last assistant message with text before the next user message. The context keeps what a
    chat template can render: the app's system messages, user messages, and one answer per user message; user messages
    that nobody answered are joined with the next one.
    """
    groups: list[tuple[Message, Message | None]] = []
    system = [ChatMessage(role="system", content=m.content) for m in conversation.messages if _is(m, "system")]
    for message in conversation.messages:
        if _is(message, "user"):
            groups.append((message, None))
        elif _is(message, "assistant") and groups:
            groups[-1] = (groups[-1][0], message)
    turns = []
    context = system[:1]
    unanswered = ""
    for index, (request, response) in enumerate(groups):
        asked = f"{unanswered}\n\n{request.content}" if unanswered else request.content
        if response is None:
            unanswered = asked
            continue
        unanswered = ""
        context = [*context, ChatMessage(role="user", content=asked)]
        following = groups[index + 1][0] if index + 1 < len(groups) else None
        said = labels.get((conversation.conversation_id, following.id)) if following else None
        turns.append(
            LabelledTurn(
                conversation_id=conversation.conversation_id,
                user_id=conversation.user_id,
                turn=index,
                context=tuple(context),
                response=response.content,
                follow_up=following.content if following and said else None,
                label=said.label if said else None,
                request_id=request.id,
                response_id=response.id,
                follow_up_id=following.id if following and said else None,
            )
        )
        context = [*context, ChatMessage(role="assistant", content=response.content)]
    return turns


def _is(message: Message, role: str) -> bool:
    return message.role == role and bool(message.content.strip())


def _trim(turn: LabelledTurn, limit: int) -> LabelledTurn | None:
    """Drop the oldest turns until the context fits; None if the request and the app's instructions alone do not."""
    if sum(len(m.content) for m in turn.context) <= limit:
        return turn
    head = [m for m in turn.context[:1] if m.role == "system"]
    rest = list(turn.context[len(head) :])
    while len(rest) > 1 and sum(len(m.content) for m in [*head, *rest]) > limit:
        # Histories alternate: one question and its answer leave together.
        rest = rest[2:]
    if sum(len(m.content) for m in [*head, *rest]) > limit:
        return None
    return turn.model_copy(update={"context": (*head, *rest)})
