"""`CascadeLabeller`: the fast tier decides what is clear, the encoder what it leaves, a language model the rest.

A tier abstains where its most probable class is less probable than its threshold. The thresholds are where the curve
of cost against accuracy bends (`rlhi-train labeller-report` draws it); raise them for accuracy, lower them for speed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from rlhi_plugin.calls.per_loop import PerLoop
from rlhi_plugin.errors import ConfigError, ModelCallError
from rlhi_plugin.labelling import Exchange, Labeller
from rlhi_plugin.labelling.labeller import label_each
from rlhi_plugin.labelling.llm import LLMLabeller
from rlhi_plugin.records import FollowUp
from rlhi_training.labelling.encoder import EncoderLabeller
from rlhi_training.labelling.fast import FastLabeller

FAST_KEEPS = 0.8
"""Least probability of its most probable class with which the fast tier decides: half of the follow-ups go on, and the
F1 of "with feedback" is the encoder's own (on rows of train and development that neither had learned from)."""
ENCODER_KEEPS = 0.75
"""The same of the encoder, where a language model follows: of what it keeps, two thirds, 90 % are right."""


class CascadeLabeller:
    """Labels follow-ups by tiers, the cheapest first.

    Args:
        llm: Name of a model as LiteLLM writes it, for the last tier; None leaves that tier out.
        tiers: Instead, the tiers themselves, cheapest first.
        keeps: Threshold of each tier but the last, in [0, 1].

    Raises:
        ConfigError: thresholds and tiers do not go together.
    """

    def __init__(
        self,
        *,
        llm: str | None = None,
        tiers: Sequence[Labeller] | None = None,
        keeps: Sequence[float] = (FAST_KEEPS, ENCODER_KEEPS),
    ) -> None:
        if tiers is None:
            fast = FastLabeller()
            tiers = [fast, EncoderLabeller(fast=fast), *([] if llm is None else [LLMLabeller(llm=llm)])]
        self._tiers = list(tiers)
        self._keeps = list(keeps[: len(self._tiers) - 1])
        if not self._tiers or len(self._keeps) != len(self._tiers) - 1:
            raise ConfigError(f"{len(self._tiers)} tiers need a threshold each but the last. Give that many in keeps.")
        if not all(0.0 <= keep <= 1.0 for keep in self._keeps):
            raise ConfigError("a threshold is a probability. Give numbers from 0 to 1 in keeps.")
        self._embedded = PerLoop(asyncio.Lock)
        self.decided = [0] * len(self._tiers)
        """How many follow-ups each tier decided so far."""

    @property
    def name(self) -> str:
        """The tiers' names and thresholds."""
        steps = [f"{tier.name}<{keep:g}" for tier, keep in zip(self._tiers, self._keeps, strict=False)]
        return f"cascade({', '.join([*steps, self._tiers[-1].name])})"

    @property
    def at_once(self) -> int:
        """As many follow-ups as the last tier wants at once; 0 where that asks no model."""
        return int(getattr(self._tiers[-1], "at_once", 0))

    async def label(self, exchanges: Sequence[Exchange]) -> list[FollowUp]:
        """One label per exchange, in order; each names the tier that decided it."""
        labels: list[FollowUp] = []
        for one in await self.label_each(exchanges):
            if isinstance(one, ModelCallError):
                raise one
            labels.append(one)
        return labels

    async def label_each(self, exchanges: Sequence[Exchange]) -> list[FollowUp | ModelCallError]:
        """See `rlhi_plugin.labelling.labeller.PatientLabeller.label_each`: a tier that fails does not abstain."""
        found: dict[int, FollowUp | ModelCallError] = {}
        open_places = list(range(len(exchanges)))
        for number, tier in enumerate(self._tiers):
            if not open_places:
                break
            keep = self._keeps[number] if number < len(self._keeps) else -math.inf
            said = await self._of_tier(tier, [exchanges[i] for i in open_places])
            left = []
            for i, one in zip(open_places, said, strict=True):
                if isinstance(one, FollowUp) and confidence(one) < keep:
                    left.append(i)
                    continue
                found[i] = one
                self.decided[number] += isinstance(one, FollowUp)
            open_places = left
        return [found[i] for i in range(len(exchanges))]

    async def _of_tier(self, tier: Labeller, exchanges: Sequence[Exchange]) -> list[FollowUp | ModelCallError]:
        if tier is self._tiers[-1]:
            return await label_each(tier, exchanges)
        # While a model answers, the next batch comes: one at a time for those that compute.
        async with self._embedded.get():
            return await label_each(tier, exchanges)


def confidence(follow_up: FollowUp) -> float:
    """Probability of the most probable class; 1 where the labeller gives none."""
    return max(follow_up.probabilities.values(), default=1.0)
