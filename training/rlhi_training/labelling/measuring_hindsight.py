"""How good hindsight is: what follow-ups inherit by a labeller's labels, beside what they do by the readers'."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from pydantic import Field

from rlhi_plugin.records import FollowUp, Record
from rlhi_training.labelling.hindsight import inherit
from rlhi_training.labelling.label_set import Example


class HindsightQuality(Record):
    """What one labeller lets follow-ups inherit. Counts of follow-ups."""

    follow_ups: int = Field(ge=0)
    """In conversations of two follow-ups or more: elsewhere nothing can be inherited."""
    by_readers: int = Field(ge=0)
    """Inherit a label when the readers' labels are used."""
    by_labeller: int = Field(ge=0)
    """Inherit a label when the labeller's are."""
    same: int = Field(ge=0)
    """Inherit the same label from both."""

    @property
    def precision(self) -> float | None:
        """Share of what the labeller lets inherit that the readers' labels let inherit too, with the same label."""
        return self.same / self.by_labeller if self.by_labeller else None

    @property
    def recall(self) -> float | None:
        """Share of what the readers' labels let inherit that the labeller finds."""
        return self.same / self.by_readers if self.by_readers else None


def measure_hindsight(examples: Sequence[Example], found: Sequence[FollowUp]) -> HindsightQuality:
    """Compare.

    Args:
        examples: What the readers said.
        found: What a labeller said, in the same order.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, example in enumerate(examples):
        places[example.exchange.conversation_id].append(place)
    follow_ups = by_readers = by_labeller = same = 0
    for own in places.values():
        if len(own) == 1:
            continue
        own.sort(key=lambda place: examples[place].label.turn)
        follow_ups += len(own)
        truth = inherit([_as_read(examples[place]) for place in own])
        said = inherit([found[place] for place in own])
        by_readers += sum(one is not None for one in truth)
        by_labeller += sum(one is not None for one in said)
        same += sum(
            one is not None and other is not None and one.label is other.label
            for one, other in zip(truth, said, strict=True)
        )
    return HindsightQuality(follow_ups=follow_ups, by_readers=by_readers, by_labeller=by_labeller, same=same)


def _as_read(example: Example) -> FollowUp:
    return FollowUp(
        conversation_id=example.exchange.conversation_id,
        turn=example.label.turn - 1,
        message_id=example.exchange.message_id,
        label=example.label.label,
        subtype=example.label.subtype,
        labeller="readers",
    )
