"""Hindsight: a follow-up that says nothing clear about an answer may inherit what the user said of it a little later.

"and for pasta?" tells nothing about the answer before it; "no, you forgot the salt again" two messages later does. The
plain label is kept, and what was inherited stands in a field of its own, with the turn that it comes from: whoever uses
it knows that it is weaker evidence. Off unless asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import FollowUp, FollowUpLabel, FollowUpSubtype, Record

_ABOUT_THE_SAME = frozenset(
    {
        FollowUpSubtype.QUESTION_ABOUT_ANSWER,
        FollowUpSubtype.NEXT_STEP,
        FollowUpSubtype.CONTINUE,
        FollowUpSubtype.ROLEPLAY_TURN,
    }
)
"""New requests that stay with the matter. Past a new topic nothing is inherited: what is said then is about that."""


class Inherited(Record):
    """A signal that a neutral follow-up got from a later one."""

    label: FollowUpLabel
    from_turn: int = Field(ge=1)
    """`FollowUp.turn` of the follow-up that it was said in."""
    from_message_id: str
    probability: float = Field(ge=0.0, le=1.0)
    """Of the label there."""


def inherit(follow_ups: Sequence[FollowUp], *, reach: int = 2, clear: float = 0.8) -> list[Inherited | None]:
    """What each follow-up of one conversation inherits, None where it says something itself or nothing clear follows.

    Args:
        follow_ups: All of one conversation, in order.
        reach: How many later follow-ups are looked at (ours).
        clear: Least probability of the later label (ours).

    Raises:
        ConfigError: a limit is out of range.
    """
    if reach < 1 or not 0.0 <= clear <= 1.0:
        raise ConfigError("hindsight reaches at least one turn, and is clear from a probability on. Give such limits.")
    return [_inherited(follow_ups, place, reach, clear) for place in range(len(follow_ups))]


def _inherited(follow_ups: Sequence[FollowUp], place: int, reach: int, clear: float) -> Inherited | None:
    if not _is_neutral(follow_ups[place]):
        return None
    for later in follow_ups[place + 1 : place + 1 + reach]:
        if later.subtype is FollowUpSubtype.NEW_TOPIC:
            return None
        probability = later.probabilities.get(later.label, 1.0)
        if later.label is not FollowUpLabel.NEW_REQUEST:
            if probability < clear:
                return None
            return Inherited(
                label=later.label, from_turn=later.turn, from_message_id=later.message_id, probability=probability
            )
    return None


def _is_neutral(follow_up: FollowUp) -> bool:
    return follow_up.label is FollowUpLabel.NEW_REQUEST and follow_up.subtype in _ABOUT_THE_SAME
