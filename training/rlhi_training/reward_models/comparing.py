"""A language model chooses between two answers, asked in both orders: what changes with the order is no preference.

Judges favour a position (often the first) whatever stands there. So each comparison is two calls with the answers
swapped. The same winner both times is a decision; anything else is undecided, with a reason, never half a point.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from rlhi_plugin.calls.concurrently import each, under_way
from rlhi_plugin.calls.per_loop import PerLoop
from rlhi_plugin.chat import ChatClient, ChatRequest
from rlhi_plugin.errors import ModelCallError, ProviderUnavailableError
from rlhi_plugin.json_reply import complete_json
from rlhi_plugin.prompt_files import load_prompt
from rlhi_plugin.records import ChatMessage
from rlhi_training.prompting import fill

_MAX_TOKENS = 64


class _Choice(BaseModel):
    better: Literal["A", "B", "equal"]


@dataclass(frozen=True)
class Comparison:
    """The outcome of one comparison.

    Attributes:
        better: ``first``, ``second``, ``equal`` (both calls said so), or None where there is no outcome.
        reason: ``judge_undecided`` (the two orders contradict each other) or ``judge_failed``; None where there is one.
    """

    better: Literal["first", "second", "equal"] | None
    reason: str | None = None


class Comparer:
    """Compares answers with a prompt that has the places ``{answer_a}`` and ``{answer_b}``.

    Args:
        client: The judge.
        prompt: Name of a file in ``rlhi_training/prompts``, without its ending.
    """

    def __init__(self, client: ChatClient, prompt: str) -> None:
        self._client = client
        self._prompt = load_prompt("rlhi_training", prompt)
        self._gate = PerLoop(lambda: asyncio.Semaphore(under_way(client)))
        self._seen: Counter[str] = Counter()

    @property
    def name(self) -> str:
        """Model and prompt version."""
        return f"{self._client.model}/{self._prompt.version}"

    async def compare(self, first: str, second: str, **places: str) -> Comparison:
        """Which of two answers is better, asked once in each order.

        Args:
            first: An answer.
            second: Another one.
            places: Values of the prompt's other places.
        """
        orders = ((first, second), (second, first))
        one, other = await each(orders, lambda order: self._ask(*order, places), at_once=2)
        if one is None or other is None:
            self._seen["failed"] += 1
            return Comparison(None, "judge_failed")
        self._seen["compared"] += 1
        # A call's answer by position, told apart from the answer that stood there.
        self._seen["named_a"] += (one == "A") + (other == "A")
        self._seen["named_b"] += (one == "B") + (other == "B")
        swapped = {"A": "B", "B": "A", "equal": "equal"}[other]
        if one != swapped:
            self._seen["undecided"] += 1
            return Comparison(None, "judge_undecided")
        return Comparison({"A": "first", "B": "second", "equal": "equal"}[one])  # type: ignore[arg-type]  # as listed

    @property
    def seen(self) -> Mapping[str, int]:
        """Counts of the comparisons so far, for `notes`; those of parts of a run add up."""
        return Counter(self._seen)

    def notes(self, seen: Mapping[str, int]) -> dict[str, Any]:
        """Position bias of comparisons that were counted.

        Returns:
            ``comparisons``, ``failed``; ``undecided_share``, the share whose two orders contradict each other; and
            ``first_position_share``, how often a call that named one answer named the one shown first (0.5: no bias).
            Shares are None before there is anything to divide.
        """
        seen = Counter(seen)
        named = seen["named_a"] + seen["named_b"]
        return {
            "judge": self.name,
            "comparisons": seen["compared"],
            "failed": seen["failed"],
            "undecided_share": round(seen["undecided"] / seen["compared"], 4) if seen["compared"] else None,
            "first_position_share": round(seen["named_a"] / named, 4) if named else None,
        }

    async def _ask(self, shown_first: str, shown_second: str, places: dict[str, str]) -> str | None:
        content = fill(self._prompt.text, answer_a=shown_first, answer_b=shown_second, **places)
        request = ChatRequest(
            messages=(ChatMessage(role="user", content=content),),
            max_tokens=_MAX_TOKENS,
            json_schema=_Choice.model_json_schema(),
        )
        async with self._gate.get():
            try:
                return (await complete_json(self._client, request, _Choice)).better
            except ProviderUnavailableError:
                raise
            except ModelCallError:
                return None
