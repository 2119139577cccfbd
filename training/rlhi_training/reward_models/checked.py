"""A reward that needs no model: the share of the user's own checkable wishes that an answer keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlhi_plugin.checkable import check
from rlhi_plugin.checks import repeated_share
from rlhi_plugin.records import Persona
from rlhi_training.asked_for import AskedFor
from rlhi_training.records import Candidate, LabelledTurn
from rlhi_training.reward_models.protocol import Verdict

_REPETITION_PENALTY = 0.2
"""Weight of the share of repeated 4-grams: decides between answers that keep the same wishes (ours)."""


class CheckedReward:
    """Share of the persona's checkable wishes that an answer keeps, minus a little for repetition.

    The wishes are read from the quotes in the persona, that is, from what the user said.
    """

    name = "checked/1"

    def __init__(self, asked_for: AskedFor) -> None:
        self._asked_for = asked_for

    def unscorable(self, persona: Persona | None) -> str | None:
        """``no_persona``, or ``nothing_checkable`` where no quote asks for a property that code can decide."""
        if persona is None:
            return "no_persona"
        return None if self._asked_for.of_persona(persona) else "nothing_checkable"

    async def score(
        self,
        turn: LabelledTurn,  # noqa: ARG002 - part of the protocol; the wishes do not depend on the request
        candidates: Sequence[Candidate],
        persona: Persona | None,
    ) -> list[Verdict]:
        """Scores in [-0.2, 1]."""
        why_not = self.unscorable(persona)
        if why_not is not None:
            return [Verdict(None, why_not)] * len(candidates)
        return [Verdict(checked_score(c.text, self._asked_for.of_persona(persona))) for c in candidates]

    @property
    def seen(self) -> Mapping[str, int]:
        """Nothing."""
        return {}

    def notes(self, seen: Mapping[str, int]) -> dict[str, Any]:  # noqa: ARG002 - part of the protocol
        """Nothing."""
        return {}


def checked_score(text: str, asked: Sequence[str]) -> float:
    """Share of `asked` (at least one name of a check) that holds, minus the repetition penalty; in [-0.2, 1]."""
    return kept_share(text, asked) - _REPETITION_PENALTY * repeated_share(text)


def kept_share(text: str, asked: Sequence[str]) -> float:
    """Share of the asked-for properties that a text has, in [0, 1]; 0 where nothing was asked for."""
    return sum(check(name).holds(text) for name in asked) / len(asked) if asked else 0.0
