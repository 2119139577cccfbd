"""Ingest: which logged conversations are used at all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rlhi_plugin.errors import RecordError
from rlhi_plugin.privacy.exclusions import Exclusions
from rlhi_plugin.privacy.tombstones import by_user, remembered
from rlhi_plugin.records import Conversation, Tombstone
from rlhi_training.recipe import IngestSection
from rlhi_training.records import Dropped
from rlhi_training.run_directory import StageResult

CONVERSATIONS = "conversations.jsonl"
NO_EXCLUSIONS = Exclusions(())


def ingest(
    rows: Iterable[Conversation | RecordError],
    recipe: IngestSection,
    tombstones: Iterable[Tombstone] = (),
    exclusions: Exclusions = NO_EXCLUSIONS,
) -> StageResult:
    """Screen the rows of a log (`rlhi_plugin.logs.read_conversations`).

    Drops, by reason: ``malformed`` (named by file and line), ``duplicate`` (a conversation id seen before), ``empty``
    (no user message with text), ``no_reply`` (no answer with text after one), ``toxic`` (flagged by the log's own
    moderation), ``over_limit`` (after `IngestSection.max_conversations`), ``forgotten`` (all of it was said before its
    user was forgotten; what a user said who came back stays, see `rlhi_plugin.privacy.tombstones.remembered`),
    ``excluded`` (its user wants nothing to be learned from it, see `rlhi_plugin.privacy.exclusions`).
    """
    kept: list[Conversation] = []
    dropped: list[Dropped] = []
    seen: dict[str, int] = {}
    forgotten = by_user(tombstones)
    inputs = 0
    for row in rows:
        inputs += 1
        if isinstance(row, RecordError):
            key = f"{Path(row.path).name}:{row.line}"
            dropped.append(Dropped(stage="ingest", key=key, reason="malformed", detail=str(row)))
            continue
        count = seen[row.conversation_id] = seen.get(row.conversation_id, 0) + 1
        key = row.conversation_id if count == 1 else f"{row.conversation_id}@{count}"
        known = remembered(row, forgotten)
        reason = "forgotten" if known is None else "excluded" if exclusions.of(row) is not None else None
        if known is not None and reason is None:
            reason = "duplicate" if count > 1 else _screen(known, recipe)
        if reason is None and recipe.max_conversations is not None and len(kept) >= recipe.max_conversations:
            reason = "over_limit"
        if known is not None and reason is None:
            kept.append(known)
        else:
            dropped.append(Dropped(stage="ingest", key=key, reason=reason or "forgotten"))
    return StageResult(inputs=inputs, passed=len(kept), dropped=dropped, files={CONVERSATIONS: kept})


def _screen(conversation: Conversation, recipe: IngestSection) -> str | None:
    asked = False
    answered = False
    for message in conversation.messages:
        if message.content.strip():
            asked = asked or message.role == "user"
            answered = answered or (asked and message.role == "assistant")
    if not asked:
        return "empty"
    if not answered:
        return "no_reply"
    return "toxic" if recipe.drop_toxic and conversation.toxic else None
