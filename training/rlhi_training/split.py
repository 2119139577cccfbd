"""The split by user and by time, decided before anything is learned and written down as message ids.

Users are held out whole. Within a held-out user the earliest conversations are history (a persona may know them) and
the later ones are for evaluation; within a training user everything trains, and a persona knows what came before each
conversation (`rlhi_training.stages.personas`), unless the recipe keeps the latest ones for evaluation. Threads overlap:
one that lies across the moment that parts two others is set aside, so that no message of an earlier part is later than
the beginning of a later one.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rlhi_plugin.records import Conversation
from rlhi_plugin.split import SplitEntry, SplitPart, read_split
from rlhi_training.recipe import SplitSection

_BYTES = 8


@dataclass(frozen=True, slots=True)
class Span:
    """When a conversation was had.

    Attributes:
        conversation_id: Which one.
        start: Its beginning.
        end: Time of its last message; a message without a time counts as said at the beginning.
    """

    conversation_id: str
    start: datetime
    end: datetime


class Splitter:
    """Decides the part of each conversation.

    Args:
        recipe: Shares, seed, and an earlier manifest whose decisions stay.

    Raises:
        ConfigError, RecordError: `SplitSection.frozen` cannot be read.
    """

    def __init__(self, recipe: SplitSection) -> None:
        self._recipe = recipe
        self._users: dict[str, bool] = {}
        self._parts: dict[str, SplitPart] = {}
        for entry in read_split(recipe.frozen) if recipe.frozen else ():
            self._parts[entry.conversation_id] = entry.part
            if entry.user_id is not None and entry.part is not SplitPart.SET_ASIDE:
                self._users[entry.user_id] = entry.part in (SplitPart.HISTORY, SplitPart.EVALUATION)

    def holds_out(self, user_id: str | None) -> bool:
        """Whether a user is kept away from training. Depends on nothing but the user, the seed and the share."""
        if user_id is None:
            return False
        if user_id in self._users:
            return self._users[user_id]
        digest = hashlib.sha256(f"rlhi-held-out:{self._recipe.seed}:{user_id}".encode()).digest()
        return int.from_bytes(digest[:_BYTES]) < self._recipe.held_out_users * float(256**_BYTES)

    def parts(self, user_id: str | None, conversations: Sequence[Conversation]) -> dict[str, SplitPart]:
        """The part of each of one user's conversations, by id.

        Args:
            user_id: Whose they are; None is nobody's.
            conversations: All that the log has of the user, in any order.
        """
        return self.parts_of_spans(user_id, {c.conversation_id: span_of(c) for c in conversations})

    def parts_of_spans(self, user_id: str | None, spans: Mapping[str, Span | None]) -> dict[str, SplitPart]:
        """As `parts`, for who knows only when each was had."""
        held_out = self.holds_out(user_id)
        first, second = (SplitPart.HISTORY, SplitPart.EVALUATION) if held_out else (SplitPart.TRAIN, SplitPart.LATER)
        share = 1.0 - self._recipe.held_out_history if held_out else self._recipe.later_share
        if user_id is None or share == 0.0:
            return self._kept(dict.fromkeys(spans, first), first, second)
        timed = [span for span in spans.values() if span is not None]
        # Without a time nothing can be said to come before or after; it trains, or, held out, serves for nothing.
        parts = dict.fromkeys(spans, SplitPart.SET_ASIDE if held_out else first)
        return self._kept(parts | _by_time(timed, share, first, second), first, second)

    def _kept(self, parts: dict[str, SplitPart], first: SplitPart, second: SplitPart) -> dict[str, SplitPart]:
        """With the decisions of the earlier manifest, where they fit the user's side."""
        known = {name: self._parts[name] for name in parts if name in self._parts}
        return parts | {name: part for name, part in known.items() if part in (first, second, SplitPart.SET_ASIDE)}


def span_of(conversation: Conversation) -> Span | None:
    """When it was had; None where the log does not say when it began."""
    began = conversation.started_at
    if began is None:
        return None
    times = [message.created_at for message in conversation.messages if message.created_at is not None]
    return Span(conversation.conversation_id, min([began, *times]), max([began, *times]))


def _by_time(spans: Sequence[Span], share: float, first: SplitPart, second: SplitPart) -> dict[str, SplitPart]:
    """The latest `share` of the conversations, at least one where there are two, against those that ended before."""
    ordered = sorted(spans, key=lambda span: (span.start, span.conversation_id))
    later = min(max(1, round(share * len(ordered))), len(ordered) - 1) if len(ordered) > 1 else 0
    if not later:
        return {span.conversation_id: first for span in ordered}
    parting = ordered[-later].start
    return {
        span.conversation_id: second if span.start >= parting else first if span.end < parting else SplitPart.SET_ASIDE
        for span in ordered
    }


def split_by_user(conversations: Iterable[Conversation], splitter: Splitter) -> list[SplitEntry]:
    """The manifest: an entry per conversation, in their order."""
    known = list(conversations)
    by_user: dict[str | None, list[Conversation]] = defaultdict(list)
    for conversation in known:
        by_user[conversation.user_id].append(conversation)
    parts: dict[str, SplitPart] = {}
    for user_id, theirs in by_user.items():
        parts |= splitter.parts(user_id, theirs)
    return [
        SplitEntry(
            conversation_id=conversation.conversation_id,
            user_id=conversation.user_id,
            part=parts[conversation.conversation_id],
            message_ids=tuple(message.id for message in conversation.messages),
        )
        for conversation in known
    ]
