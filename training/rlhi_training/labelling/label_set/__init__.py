"""Labels of real follow-ups, kept without their texts, and the way back to the texts."""

from rlhi_training.labelling.label_set.joining import Example, Joined, Unmatched, join
from rlhi_training.labelling.label_set.reading import (
    PARTS,
    ConversationPart,
    Label,
    part_of,
    read_labels,
    read_second_readings,
)

__all__ = [
    "PARTS",
    "ConversationPart",
    "Example",
    "Joined",
    "Label",
    "Unmatched",
    "join",
    "part_of",
    "read_labels",
    "read_second_readings",
]
