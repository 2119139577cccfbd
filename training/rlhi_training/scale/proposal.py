"""A pair that passed the filters, between the pairing and the rendering pass.

Its line is three pieces of JSON with tabulators between them: what the passes in between decide by, the pair, and its
turn. The last two go into the run's files as they are, and are parsed only by who renders them.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

from rlhi_plugin.records import ChatMessage, FollowUpLabel
from rlhi_training.records import LabelledTurn, ProposedPair
from rlhi_training.scale.lines import packed, unpacked

NEUTRAL, IRRELEVANT = "neutral", "irrelevant"
_LABELS = {label.value: label for label in FollowUpLabel}


class Head(NamedTuple):
    """What is known of a pair without parsing it."""

    key: str
    source: str
    conversation_id: str
    turn: int
    rank: int
    """Its draw, see `rlhi_training.filters.caps.Claim`."""
    extra: str | None
    """`NEUTRAL` or `IRRELEVANT`: only the run's share of these is drawn."""
    extra_rank: int
    started_at: int | None
    """Of the conversation, in microseconds since 1970."""
    language: str | None
    log: str


class Proposal:
    """One pair.

    Args:
        head: What is known of it.
        pair_line: The pair as a line.
        turn_line: Its turn as a line.
    """

    def __init__(self, head: Head, pair_line: bytes, turn_line: bytes) -> None:
        self.head, self.pair_line, self.turn_line = head, pair_line, turn_line

    def to_line(self) -> bytes:
        """Without its end."""
        return b"\t".join((packed(self.head), self.pair_line, self.turn_line))

    @classmethod
    def from_line(cls, line: bytes) -> Proposal:
        """What `to_line` wrote."""
        head, pair_line, turn_line = line.split(b"\t")
        return cls(Head(*unpacked(head)), pair_line, turn_line)

    @property
    def turn_name(self) -> tuple[str, int]:
        """Which turn it is about."""
        return self.head.conversation_id, self.head.turn

    @cached_property
    def pair(self) -> ProposedPair:
        """The pair."""
        return ProposedPair.model_validate_json(self.pair_line)

    @cached_property
    def turn(self) -> LabelledTurn:
        """Its turn."""
        fields = unpacked(self.turn_line)
        fields["context"] = tuple([ChatMessage.trusted(**message) for message in fields["context"]])
        if fields.get("label") is not None:
            fields["label"] = _LABELS[fields["label"]]
        return LabelledTurn.trusted(**fields)
