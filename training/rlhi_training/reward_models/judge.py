"""Any language model as a reward: rating one answer, or choosing between two in both orders.

Such judges over-rate personalised answers (arXiv 2606.06614) and miss fixes that feedback asked for (2609.02859):
report a code-checked measure beside them. Without a persona each is the paper's user-agnostic ablation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from pydantic import BaseModel, Field

from rlhi_plugin.calls.concurrently import each, under_way
from rlhi_plugin.calls.per_loop import PerLoop
from rlhi_plugin.chat import ChatClient, ChatRequest
from rlhi_plugin.errors import ModelCallError, ProviderUnavailableError
from rlhi_plugin.json_reply import complete_json
from rlhi_plugin.persona import render_persona
from rlhi_plugin.prompt_files import load_prompt
from rlhi_plugin.records import ChatMessage, Persona
from rlhi_training.generation import CONCURRENCY
from rlhi_training.prompting import conversation_text, fill
from rlhi_training.records import Candidate, LabelledTurn
from rlhi_training.reward_models.comparing import Comparer
from rlhi_training.reward_models.protocol import Verdict

_NOBODY = "Nothing is known about this user."


class _Rating(BaseModel):
    score: float = Field(ge=1, le=10)


class LLMJudgeReward:
    """Rates each answer from 1 to 10 with the persona in view (``prompts/judge_persona.md``). One call an answer."""

    def __init__(self, client: ChatClient) -> None:
        self._client = client
        self._prompt = load_prompt("rlhi_training", "judge_persona")
        self._gate = PerLoop(lambda: asyncio.Semaphore(under_way(client)))

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
        return await each(candidates, lambda one: self._rate(turn, one, persona), at_once=CONCURRENCY)

    @property
    def seen(self) -> Mapping[str, int]:
        """Nothing: one answer at a time has no order."""
        return {}

    def notes(self, seen: Mapping[str, int]) -> dict[str, Any]:  # noqa: ARG002 - part of the protocol
        """Nothing."""
        return {}

    async def _rate(self, turn: LabelledTurn, candidate: Candidate, persona: Persona | None) -> Verdict:
        content = fill(
            self._prompt.text,
            persona=render_persona(persona) or _NOBODY,
            request=conversation_text(turn.context),
            answer=candidate.text,
        )
        request = ChatRequest(
            messages=(ChatMessage(role="user", content=content),),
            max_tokens=64,
            json_schema=_Rating.model_json_schema(),
        )
        async with self._gate.get():
            try:
                return Verdict((await complete_json(self._client, request, _Rating)).score)
            except ProviderUnavailableError:
                raise
            except ModelCallError:
                return Verdict(None, "judge_failed")


class PairwiseJudgeReward:
    """Compares every two answers in both orders (``prompts/judge_pair.md``): N (N - 1) calls for N answers.

    A candidate's score is (wins - losses) / comparisons that had an outcome, in [-1, 1]. One without any outcome is
    unscored: ``judge_undecided``, or ``judge_failed`` where every call for it failed.
    """

    def __init__(self, client: ChatClient) -> None:
        self._comparer = Comparer(client, "judge_pair")

    @property
    def name(self) -> str:
        """Model and prompt version."""
        return f"judge_pairs/{self._comparer.name}"

    def unscorable(self, persona: Persona | None) -> str | None:  # noqa: ARG002 - part of the protocol
        """Nothing: a judge compares without a persona too."""
        return None

    async def score(
        self, turn: LabelledTurn, candidates: Sequence[Candidate], persona: Persona | None
    ) -> list[Verdict]:
        """Scores in [-1, 1]. A single candidate cannot be compared: ``too_few_candidates``."""
        if len(candidates) == 1:
            return [Verdict(None, "too_few_candidates")]
        places = {"persona": render_persona(persona) or _NOBODY, "request": conversation_text(turn.context)}
        rivals = list(combinations(range(len(candidates)), 2))
        outcomes = await each(
            rivals,
            lambda two: self._comparer.compare(candidates[two[0]].text, candidates[two[1]].text, **places),
            at_once=CONCURRENCY,
        )
        points, decided = [0] * len(candidates), [0] * len(candidates)
        reasons: list[set[str]] = [set() for _ in candidates]
        for (i, j), outcome in zip(rivals, outcomes, strict=True):
            if outcome.reason is not None:
                reasons[i].add(outcome.reason)
                reasons[j].add(outcome.reason)
                continue
            sign = {"first": 1, "second": -1}.get(outcome.better or "", 0)
            for index, gain in ((i, sign), (j, -sign)):
                points[index] += gain
                decided[index] += 1
        return [
            Verdict(points[i] / decided[i]) if decided[i] else Verdict(None, _reason(reasons[i]))
            for i in range(len(candidates))
        ]

    @property
    def seen(self) -> Mapping[str, int]:
        """See `Comparer.seen`."""
        return self._comparer.seen

    def notes(self, seen: Mapping[str, int]) -> dict[str, Any]:
        """Position bias, see `Comparer.notes`."""
        return {"position_bias": self._comparer.notes(seen)}


def _reason(reasons: set[str]) -> str:
    return "judge_undecided" if "judge_undecided" in reasons else "judge_failed"
