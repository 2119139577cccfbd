"""The one protocol that every reward model fulfils: verdicts on the candidates of one turn under one persona."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from rlhi_plugin.records import Persona
from rlhi_training.records import Candidate, LabelledTurn


@dataclass(frozen=True)
class Verdict:
    """A score, or the reason why there is none."""

    value: float | None
    unscored: str | None = None
    """A drop reason (``[a-z_]+``); None exactly when there is a value."""

    def __post_init__(self) -> None:
        if (self.value is None) == (self.unscored is None) or (
            self.value is not None and not math.isfinite(self.value)
        ):
            raise ValueError("a verdict has either a finite number or a reason why it has none")

    @classmethod
    def of(cls, value: float) -> Verdict:
        """The verdict of a number as a model computed it: ``not_finite`` where that is NaN or infinite."""
        return cls(value) if math.isfinite(value) else cls(None, "not_finite")


@runtime_checkable
class RewardModel(Protocol):
    """Scores candidates of one turn under one persona. Scores of different turns or personas are not comparable."""

    @property
    def name(self) -> str:
        """Name and version, recorded beside each score."""
        ...

    def unscorable(self, persona: Persona | None) -> str | None:
        """Why no answer could be scored under this persona, before any is generated; None where it can."""
        ...

    async def score(
        self, turn: LabelledTurn, candidates: Sequence[Candidate], persona: Persona | None
    ) -> list[Verdict]:
        """One verdict per candidate, in order; higher is better."""
        ...

    @property
    def seen(self) -> Mapping[str, int]:
        """Counts of the scores so far, for `notes`; those of parts of a run add up. Empty for nothing."""
        ...

    def notes(self, seen: Mapping[str, int]) -> dict[str, Any]:
        """What a stage's notes should say of scores that were counted: position bias, shared tokens."""
        ...
