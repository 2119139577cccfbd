"""How much of what was to be scored was scored. The share of the rest stands beside every number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

UNSCORED_LIMIT = 0.05
"""Above this share of unscored items a number is not to be used: what is missing could turn it round."""


@dataclass(frozen=True)
class Coverage:
    """Counts of scored and unscored items.

    Attributes:
        scored: How many have a value.
        reasons: How many have none, by reason.
    """

    scored: int
    reasons: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, unscored: Iterable[str | None]) -> Self:
        """Count: each item is None where it was scored, else the reason why it was not."""
        items = list(unscored)
        reasons = Counter(reason for reason in items if reason is not None)
        return cls(len(items) - sum(reasons.values()), dict(reasons))

    @property
    def unscored(self) -> int:
        """How many have no value."""
        return sum(self.reasons.values())

    @property
    def share(self) -> float:
        """Unscored share, 0 to 1; 1 where there was nothing to score."""
        total = self.scored + self.unscored
        return self.unscored / total if total else 1.0

    @property
    def usable(self) -> bool:
        """Whether numbers that rest on these items may be used."""
        return self.scored > 0 and self.share <= UNSCORED_LIMIT

    def sentence(self) -> str:
        """The share in words, with the commonest reasons, and the warning where it is due."""
        total = self.scored + self.unscored
        if not total:
            return "Nothing was scored: the number is not to be used."
        if not self.unscored:
            return f"All {total} scored."
        why = "; ".join(f"{count} x {reason}" for reason, count in Counter(self.reasons).most_common(3))
        text = f"{self.unscored} of {total} unscored ({self.share:.1%}): {why}."
        return text if self.usable else f"{text} More than {UNSCORED_LIMIT:.0%}: the number is not to be used."
