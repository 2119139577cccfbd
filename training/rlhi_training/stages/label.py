"""Label: what each follow-up does (arXiv 2509.25137, section 2.2), and the turns that it speaks about."""

from __future__ import annotations

from collections.abc import Sequence

from rlhi_plugin.calls.concurrently import each
from rlhi_plugin.errors import ModelCallError
from rlhi_plugin.labelling import Exchange, Labeller, exchanges
from rlhi_plugin.records import ChatMessage, Conversation, FollowUp, Message, Record
from rlhi_plugin.terminal import progress
from rlhi_training.labelling.one_by_one import TOGETHER, Labelled, batches_at_once, give_up, label_all
from rlhi_training.recipe import IngestSection
from rlhi_training.records import Dropped, LabelledTurn
from rlhi_training.run_directory import StageResult

FOLLOW_UPS = "follow_ups.jsonl"
TURNS = "turns.jsonl"


async def label(
    conversations: Sequence[Conversation], labeller: Labeller, recipe: IngestSection, *, part: bool = False
) -> StageResult:
    """Label every follow-up, and cut conversations into turns: request, logged answer, follow-up.

    An item is a user message that was answered. Drops: ``too_long`` (the request alone exceeds
    `IngestSection.max_context_chars`; longer histories are trimmed by whole turns from the front),
    ``incomplete_answer`` (the answer broke off, `Message.finish`: nobody has said what is wrong with a whole one; it
    stays in the context of later turns, for the user had read it), ``label_failed`` (the model that labels could not
    say what the follow-up is).

    Args:
        conversations: Whole ones.
        labeller: Labels their follow-ups.
        recipe: The recipe's section.
        part: These are some of many: that a few of them cannot be labelled is no reason to stop.

    Raises:
        ModelCallError: nothing at all could be labelled, or no call can succeed as things are.
    """
    found = [exchange for conversation in conversations for exchange in exchanges(conversation)]
    said = await _said(found, labeller, part=part)
    follow_ups = [one for one in said if isinstance(one, FollowUp)]
    failed = {
        (exchange.conversation_id, exchange.message_id): str(one)
        for exchange, one in zip(found, said, strict=True)
        if isinstance(one, ModelCallError)
    }
    labels = {(f.conversation_id, f.message_id): f for f in follow_ups}
    turns: list[LabelledTurn] = []
    dropped: list[Dropped] = []
    for conversation in conversations:
        parts = {message.id: message.finish for message in conversation.messages if message.finish is not None}
        next_said = _next_said(conversation) if failed else {}
        for turn in turns_of(conversation, labels):
            error = failed.get((conversation.conversation_id, next_said.get(turn.response_id, "")))
            if error is not None:
                dropped.append(Dropped(stage="label", key=turn.key, reason="label_failed", detail=error))
                continue
            if turn.response_id in parts:
                detail = parts[turn.response_id]
                dropped.append(Dropped(stage="label", key=turn.key, reason="incomplete_answer", detail=detail))
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


async def _said(found: Sequence[Exchange], labeller: Labeller, *, part: bool) -> list[Labelled]:
    """The label of each follow-up, or why it has none."""
    said: list[Labelled] = []
    hopeful = False
    with progress("label follow-ups", len(found)) as advance:

        async def of_batch(batch: Sequence[Exchange]) -> list[Labelled]:
            nonlocal hopeful
            labelled = await label_all(batch, labeller)
            hopeful = hopeful or any(isinstance(one, FollowUp) for one in labelled)
            if not hopeful:
                said.extend(labelled)
                give_up(said, part=part or len(said) < len(found))
            advance(len(batch))
            return labelled

        batches = [found[start : start + TOGETHER] for start in range(0, len(found), TOGETHER)]
        made = await each(batches, of_batch, at_once=batches_at_once(labeller))
    return [one for labelled in made for one in labelled]


def _next_said(conversation: Conversation) -> dict[str, str]:
    """For each answer with text, by id: the user message after it."""
    found: dict[str, str] = {}
    answers: list[str] = []
    for message in conversation.messages:
        if _is(message, "assistant"):
            answers.append(message.id)
        elif _is(message, "user"):
            found |= dict.fromkeys(answers, message.id)
            answers = []
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
