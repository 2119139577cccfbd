"""Ingest: which logged conversations are used at all, and which of them training must never see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from zlib import crc32

from rlhi_plugin.errors import RecordError
from rlhi_plugin.privacy.exclusions import NO_EXCLUSIONS, Exclusions
from rlhi_plugin.privacy.tombstones import by_user, remembered
from rlhi_plugin.records import Conversation, Record, Tombstone
from rlhi_plugin.split import SplitEntry, SplitPart
from rlhi_training.recipe import IngestSection, Recipe, ScreensSection, SplitSection
from rlhi_training.records import Dropped
from rlhi_training.run_directory import StageResult
from rlhi_training.screens.screening import Screening, screens_of
from rlhi_training.split import Splitter, split_by_user

CONVERSATIONS = "conversations.jsonl"
HELD_OUT = "held_out.jsonl"
SPLIT = "split.jsonl"
WHY = {
    SplitPart.HISTORY: "held_out_user",
    SplitPart.EVALUATION: "held_out_user",
    SplitPart.LATER: "held_out_time",
    SplitPart.SET_ASIDE: "set_aside",
}
"""Why what does not train does not."""


def ingest(
    rows: Iterable[Conversation | RecordError],
    recipe: Recipe | IngestSection,
    tombstones: Iterable[Tombstone] = (),
    exclusions: Exclusions = NO_EXCLUSIONS,
) -> StageResult:
    """Screen the rows of a log (`rlhi_plugin.logs.read_conversations`) and split what is left by user and time.

    Drops, by reason: ``malformed`` (named by file and line), ``duplicate`` (a conversation id seen before),
    ``forgotten`` (all of it was said before its user was forgotten; what a user said who came back stays, see
    `rlhi_plugin.privacy.tombstones.remembered`), what each screen drops (`rlhi_training.screens`, whose names are the
    reasons), ``excluded`` (its user wants nothing to be learned from it, see `rlhi_plugin.privacy.exclusions`),
    ``held_out_user``, ``held_out_time`` and ``set_aside`` (`rlhi_training.split`; the first two are in
    ``held_out.jsonl``), ``over_limit`` (after `IngestSection.max_conversations`).

    Args:
        rows: In the order of the log.
        recipe: The run's; only its ingest section stands for the defaults of the others, and nobody is held out.
        tombstones: Users who were forgotten.
        exclusions: Conversations that are not to be learned from.
    """
    ingest_, screens, split = (
        (recipe.ingest, recipe.screens, recipe.split)
        if isinstance(recipe, Recipe)
        else (recipe, ScreensSection(), SplitSection(held_out_users=0.0))
    )
    screening = Screening(screens_of(screens, ingest_))
    splitter = Splitter(split)
    usable: list[Conversation] = []
    dropped: list[Dropped] = []
    inputs = 0
    for found in screened(rows, screening, tombstones, exclusions):
        inputs += 1
        if isinstance(found, Dropped):
            dropped.append(found)
        else:
            usable.append(found)
    entries = split_by_user(usable, splitter)
    kept, held_out, more = _parted(usable, entries, ingest_.max_conversations)
    kept_ids = {c.conversation_id for c in (*kept, *held_out)} | {d.key for d in more if d.reason == "set_aside"}
    files: dict[str, Sequence[Record]] = {
        CONVERSATIONS: kept,
        HELD_OUT: held_out,
        SPLIT: [entry for entry in entries if entry.conversation_id in kept_ids],
    }
    notes = {"identity": _identity(kept), "marked": dict(screening.marked), "marked_examples": screening.examples}
    notes["split"] = _counts(entry for entry in entries if entry.conversation_id in kept_ids)
    return StageResult(inputs, len(kept), [*dropped, *more], files, notes)


def screened(
    rows: Iterable[Conversation | RecordError],
    screening: Screening,
    tombstones: Iterable[Tombstone] = (),
    exclusions: Exclusions = NO_EXCLUSIONS,
) -> Iterator[Conversation | Dropped]:
    """Each row as what is left of it or why nothing is, one after the other.

    Remembers of the rows before only their ids, and what the screens remember.
    """
    seen: dict[str, tuple[int, int]] = {}
    forgotten = by_user(tombstones)
    for row in rows:
        if isinstance(row, RecordError):
            yield malformed(row)
            continue
        text = checksum(row)
        times, first = seen.get(row.conversation_id, (0, text))
        count = times + 1
        seen[row.conversation_id] = (count, first)
        known = remembered(row, forgotten)
        key = numbered(row.conversation_id, count)
        if known is None:
            yield dropped_row(key, "forgotten")
        elif exclusions.of(row) is not None:
            yield dropped_row(key, "excluded")
        elif count > 1:
            yield duplicate(key, count, same=text == first)
        elif (finding := screening(known)) is not None:
            yield dropped_row(key, finding.reason, finding.detail)
        else:
            yield known


def malformed(row: RecordError) -> Dropped:
    """Why a row is no conversation."""
    return dropped_row(f"{row.path.name}:{row.line}", "malformed", str(row))


def numbered(conversation_id: str, count: int) -> str:
    """How the drops name the row that is the `count`-th of its conversation id."""
    return conversation_id if count == 1 else f"{conversation_id}@{count}"


def duplicate(key: str, count: int, *, same: bool) -> Dropped:
    """Why a row is not used whose id came before."""
    what = "the same conversation" if same else "another conversation under the same id"
    return dropped_row(key, "duplicate", f"{what}, number {count}; the first one counts")


def checksum(conversation: Conversation) -> int:
    """Of all texts: equal ones under one id are the same conversation."""
    return crc32("\0".join(message.content for message in conversation.messages).encode("utf-8", "surrogatepass"))


def dropped_row(key: str, reason: str, detail: str = "") -> Dropped:
    """What ingest did not pass on."""
    return Dropped(stage="ingest", key=key, reason=reason, detail=detail)


def _parted(
    usable: Sequence[Conversation], entries: Sequence[SplitEntry], limit: int | None
) -> tuple[list[Conversation], list[Conversation], list[Dropped]]:
    """What trains, what is for evaluation, and why whatever does not train does not."""
    kept: list[Conversation] = []
    held_out: list[Conversation] = []
    dropped: list[Dropped] = []
    for conversation, entry in zip(usable, entries, strict=True):
        if entry.part is not SplitPart.TRAIN:
            dropped.append(dropped_row(conversation.conversation_id, WHY[entry.part], entry.part.value))
            if entry.part is not SplitPart.SET_ASIDE:
                held_out.append(conversation)
        elif limit is not None and len(kept) >= limit:
            dropped.append(dropped_row(conversation.conversation_id, "over_limit"))
        else:
            kept.append(conversation)
    return kept, held_out, dropped


def _identity(kept: Sequence[Conversation]) -> dict[str, int]:
    """How many conversations can have a persona at all."""
    users = Counter(c.user_id for c in kept if c.user_id is not None)
    return {
        "conversations": len(kept),
        "anonymous": sum(c.user_id is None for c in kept),
        "without_time": sum(c.user_id is not None and c.started_at is None for c in kept),
        "users": len(users),
        "users_with_history": sum(count > 1 for count in users.values()),
    }


def _counts(entries: Iterable[SplitEntry]) -> dict[str, Any]:
    """Conversations and users of each part."""
    conversations: Counter[str] = Counter()
    users: dict[str, set[str]] = {}
    for entry in entries:
        conversations[entry.part] += 1
        if entry.user_id is not None:
            users.setdefault(entry.part, set()).add(entry.user_id)
    return {part: {"conversations": n, "users": len(users.get(part, ()))} for part, n in sorted(conversations.items())}
