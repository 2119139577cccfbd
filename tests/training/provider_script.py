"""What a fake provider answers to every call that a run makes, as a function of the call's content.

Labels by cue, personas by quotation, ratings by hash; and texts that keep what the prompt asks for, with lengths drawn
from the content. A few answers are spoilt on purpose: prose where JSON was asked for, and nothing at all.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rlhi_plugin.fake_provider import (
    Answer,
    Behaviour,
    CutStream,
    Disconnect,
    Hang,
    HTTPFault,
    InvalidBody,
    ProviderRequest,
    digest_of_body,
    rate_limited,
)

SENTENCES = (
    "Most of it comes down to patience and to a steady hand with the small things.",
    "Look at it in the morning, when the light shows what the evening hides.",
    "Nobody gets it right the first time, so leave yourself room to try again.",
    "A little every day does more than a great effort once a month.",
    "Keep what works, and write down what does not.",
    "People who do this for a living say much the same.",
    "The cheap way is mostly good enough for a start.",
    "Ask somebody who has done it before you buy anything.",
)
CUES = {
    "thank": "positive_feedback",
    "again": "reattempt_without_feedback",
    "please": "reattempt_with_feedback",
}
FAULTS: tuple[Behaviour, ...] = (
    rate_limited(0.05),
    HTTPFault(500),
    HTTPFault(503, "overloaded", retry_after_s=0.05),
    Hang(2.0),
    CutStream(),
    InvalidBody(),
    Disconnect(),
)
"""Everything that a provider can do wrong; `Hang` is longer than the time limit of the run."""


class Provider:
    """Answers by content.

    Args:
        delay_s: The longest time to an answer; each takes its own.
        spoilt: Share of answers that are no JSON, or empty.
        sentences: About so many in an answer that nobody wants short.
        count: Tokens of a text, for the usage that is reported; by words unless given.
    """

    def __init__(
        self,
        *,
        delay_s: float = 0.0,
        spoilt: float = 0.0,
        sentences: int = 4,
        count: Callable[[str], int] | None = None,
    ) -> None:
        self._delay_s = delay_s
        self._spoilt = spoilt
        self._sentences = sentences
        self._count = count

    def __call__(self, request: ProviderRequest) -> Answer:
        answer = self._answer(request)
        if self._count is None:
            return answer
        # https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken_: three tokens frame each message, its
        # role is one, and three begin the answer.
        prompt = sum(self._count(str(m["content"])) + self._count(m["role"]) + 3 for m in request.messages) + 3
        texts = (answer.text, *answer.alternatives)
        return replace(answer, prompt_tokens=prompt, completion_tokens=sum(map(self._count, texts)))

    def _answer(self, request: ProviderRequest) -> Answer:
        draw = random.Random(digest_of_body(request.body))
        delay_s = draw.random() * self._delay_s
        schema = request.body.get("response_format", {}).get("json_schema", {}).get("schema")
        if draw.random() < self._spoilt:
            return Answer("I would rather not say." if schema else "", delay_s=delay_s)
        if schema:
            return Answer(json.dumps(_object(request, schema["properties"], draw)), delay_s=delay_s)
        texts = [_text(request, draw, self._sentences) for _ in range(int(request.body.get("n") or 1))]
        return Answer(texts[0], alternatives=tuple(texts[1:]), delay_s=delay_s)


def _object(request: ProviderRequest, properties: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    if "label" in properties:
        said = json.loads(request.last_user_text)["follow_up"]
        label = next((CUES[cue] for cue in CUES if cue in said.lower()), "new_request")
        return {"label": label, "confidence": draw.choice(["high", "medium"]), "evidence": said[:80]}
    if "statements" in properties:
        return {"statements": _statements(json.loads(request.last_user_text)["messages"])}
    if "better" in properties:
        return {"better": _better(request.last_user_text)}
    return {"score": draw.randint(1, 10)}


def _better(said: str) -> str:
    """Of two answers, whatever their order, the one that a hash of its text draws."""
    first, second = (said.split(f'Answer {name}:\n"""\n')[1].split('\n"""', maxsplit=1)[0] for name in "AB")
    return "A" if zlib.crc32(first.encode()) < zlib.crc32(second.encode()) else "B"


def _statements(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    complaints = [message for message in messages if "please" in message["text"].lower()]
    return [
        {
            "text": f"Asked for this: {message['text']}",
            "type": "style",
            "confidence": 0.9,
            "evidence": [{"id": message["id"], "quote": message["text"]}],
        }
        for message in complaints[-4:]
    ]


def _text(request: ProviderRequest, draw: random.Random, sentences: int) -> str:
    """Some sentences, in the form that the last message asks for."""
    asked = (request.last_user_text + request.system_text).lower()
    short = any(word in asked for word in ("short", "brief"))
    said = draw.choices(
        SENTENCES, k=draw.randint(1, 2) if short else draw.randint(max(1, sentences - 2), sentences + 2)
    )
    if any(word in asked for word in ("number", "figure")):
        said.append(f"Give it {draw.randint(2, 9)} hours and {draw.randint(2, 5)} cups.")
    return "\n".join(f"- {line}" for line in said) if "bullet" in asked else " ".join(said)
