"""Reward models conditioned on a persona: how well an answer suits one user.

The paper (arXiv 2509.25137) gives the persona as text to a trained reward model. Without a GPU or a key,
`CheckedReward` counts which of the user's own wishes an answer keeps; `LLMJudgeReward` asks any model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pydantic import BaseModel, Field

from rlhi_plugin.calls.concurrently import each
from rlhi_plugin.chat import ChatClient, ChatRequest
from rlhi_plugin.checks import CHECKS, repeated_share
from rlhi_plugin.errors import ModelCallError, ProviderUnavailableError
from rlhi_plugin.json_reply import complete_json
from rlhi_plugin.persona import render_persona
from rlhi_plugin.prompt_files import load_prompt
from rlhi_plugin.records import ChatMessage, Persona
from rlhi_training.asked_for import AskedFor
from rlhi_training.prompting import fill
from rlhi_training.records import Candidate, LabelledTurn

_REPETITION_PENALTY = 0.2
"""Weight of the share of repeated 4-grams: decides between answers that keep the same wishes (ours)."""


@dataclass(frozen=True)
class Verdict:
    """A score, or the reason why there is none."""

    value: float | None
    unscored: str | None = None
    """A drop reason (``[a-z_]+``); None exactly when there is a value."""

    def __post_init__(self) -> None:
        if (self.value is None) == (self.unscored is None) or (self.value is not None and math.isnan(self.value)):
            raise ValueError("a verdict has either a number or a reason why it has none")


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


def checked_score(text: str, asked: Sequence[str]) -> float:
    """Share of `asked` (at least one name of `CHECKS`) that holds, minus the repetition penalty; in [-0.2, 1]."""
    kept = sum(CHECKS[name].holds(text) for name in asked) / len(asked)
    return kept - _REPETITION_PENALTY * repeated_share(text)


class _Rating(BaseModel):
    score: float = Field(ge=1, le=10)


class LLMJudgeReward:
    """A language model rates each answer from 1 to 10 with the persona in view (``prompts/judge_persona.md``).

    Such judges over-rate personalised answers (arXiv 2606.06614) and miss fixes that feedback asked for (2609.02859):
    report a code-checked measure beside it. Without a persona it is the paper's user-agnostic ablation.
    """

    def __init__(self, client: ChatClient) -> None:
        self._client = client
        self._prompt = load_prompt("rlhi_training", "judge_persona")

    @property
    def name(self) -> str:
        """Model and prompt version."""
        return f"judge/{self._client.model}/{self._prompt.version}"

    def unscorable(self, persona: Persona | None) -> str | None:  # noqa: ARG002 - part of the protocol
        """Nothing: a judge rates without a persona too."""
        return None

    async def score(
        self, turn: LabelledTurn, candidates: Sequence[Candidate], persona: Persona | None
    ) -> list[Verdict]:
        """Scores in [1, 10]; a call that fails or answers otherwise is unscored, never a middle score."""
        return await each(candidates, lambda one: self._rate(turn, one, persona), at_once=len(candidates))

    async def _rate(self, turn: LabelledTurn, candidate: Candidate, persona: Persona | None) -> Verdict:
        content = fill(
            self._prompt.text,
            persona=render_persona(persona) or "Nothing is known about this user.",
            request=turn.context[-1].content,
            answer=candidate.text,
        )
        request = ChatRequest(
            messages=(ChatMessage(role="user", content=content),),
            max_tokens=64,
            json_schema=_Rating.model_json_schema(),
        )
        try:
            return Verdict((await complete_json(self._client, request, _Rating)).score)
        except ProviderUnavailableError:
            raise
        except ModelCallError:
            return Verdict(None, "judge_failed")
