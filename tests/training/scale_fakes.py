"""Models and clients for runs in shards: what they answer depends on what they are asked alone, in every process."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from provider_script import SENTENCES

from rlhi_plugin.chat import FREE, Capabilities, ChatReply, ChatRequest
from rlhi_plugin.labelling import Exchange
from rlhi_plugin.records import FollowUp, FollowUpLabel
from rlhi_training.recipe import Recipe
from rlhi_training.resources import Resources


class Words:
    """Unit vectors of word counts."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(texts), 64), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split() or [""]:
                row[zlib.crc32(word.encode()) % 64] += 1.0
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Cues:
    """Labels by a cue in the text."""

    name = "cues"

    async def label(self, exchanges: Sequence[Exchange]) -> list[FollowUp]:
        cues = {
            "thank": "positive_feedback",
            "again": "reattempt_without_feedback",
            "please": "reattempt_with_feedback",
        }
        return [
            FollowUp(
                conversation_id=e.conversation_id,
                turn=e.turn,
                message_id=e.message_id,
                label=FollowUpLabel(next((cues[c] for c in cues if c in e.follow_up.lower()), "new_request")),
                labeller=self.name,
            )
            for e in exchanges
        ]


class Writer:
    """Follows instructions and feedback; every answer of a call differs."""

    model = "scripted"
    capabilities = Capabilities(json_schema="asked", seed=True, many=True, remote=False, price=FREE)

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        said = request.messages[-1].content.lower()
        replies = []
        for number in range(request.n):
            place = zlib.crc32(f"{request.seed} {number}".encode())
            lines = [SENTENCES[(place >> shift) % len(SENTENCES)] for shift in range(1 + 2 * (number % 2) + 1)]
            if "number" in said or "figure" in said:
                lines[0] = f"Take {place % 9 + 1} of them for {place % 50 + 2} minutes and look again after that."
            if "short" in said or "brief" in said:
                lines = lines[:1]
            replies.append(ChatReply(text="\n".join(f"- {x}" for x in lines) if "bullet" in said else " ".join(lines)))
        return tuple(replies)


def fakes(recipe: Recipe) -> Resources:
    """What a run asks, without a model."""
    return Resources(recipe, policy=Writer(), labeller=Cues(), encoder=Words())


class Inline:
    """Does the work in this process, the last item first."""

    name = "local"

    def map(self, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        for number, item in reversed(list(enumerate(items))):
            yield number, work(item)

    def close(self) -> None:
        pass
