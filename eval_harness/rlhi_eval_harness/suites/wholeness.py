"""Whether a published benchmark's files hold all of it: a smaller one is refused, or named as what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhi_plugin.errors import ConfigError


@dataclass(frozen=True)
class Holding:
    """What there is of a benchmark.

    Attributes:
        benchmark: Its name in sentences.
        found: Items at hand, before any limit.
        published: Items that the published benchmark has; None where that is not known.
        empty: Parts of it that have no item at all.
    """

    benchmark: str
    found: int
    published: int | None
    empty: Sequence[str] = ()

    @property
    def lacks(self) -> str | None:
        """What is missing, or None."""
        known = self.published is not None and self.found < self.published
        said = [f"{self.found} of {self.published} items are there"] if known else []
        if self.empty:
            said.append(f"{len(self.empty)} of its parts have none ({', '.join(self.empty)})")
        return "; ".join(said) or None

    def refuse(self, *, partial: bool, how_to_get: str) -> None:
        """Stop where something is missing and nobody said that this is known.

        Args:
            partial: Go on all the same.
            how_to_get: A sentence on where the files are published.

        Raises:
            ConfigError: items or whole parts are missing.
        """
        if self.lacks is not None and not partial:
            raise ConfigError(
                f"the files do not hold all of {self.benchmark}: {self.lacks}. {how_to_get} To ask what is there: "
                "--set partial=true (the report then says so)."
            )

    def sentence(self) -> str | None:
        """For the findings, or None where the whole benchmark is there and nothing else."""
        if self.lacks is not None:
            return f"Not all of {self.benchmark} was there: {self.lacks}. No comparison with published numbers."
        if self.published is not None and self.found > self.published:
            return (
                f"The files hold {self.found} items, and {self.benchmark} has {self.published}: no comparison with "
                "published numbers."
            )
        return None
