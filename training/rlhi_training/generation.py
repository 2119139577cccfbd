"""Many model calls at once, each answer on disk as soon as it exists.

A generating stage describes what it needs as `Draft`s. Drafts whose answers are already in the stage's file are not
asked for again, so a run that was killed goes on where it stopped. Calls run concurrently: a hosted model answers in
parallel, and the in-process client packs what waits into batches.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhi_plugin.chat import ChatClient, ChatReply, ChatRequest
from rlhi_plugin.errors import ModelCallError
from rlhi_plugin.records import ChatMessage
from rlhi_plugin.terminal import progress
from rlhi_training.records import Candidate, CandidateOrigin, LabelledTurn

logger = logging.getLogger("rlhi.training")

CONCURRENCY = 128
"""Calls in flight: several batches of the in-process client, so that it never waits for work."""


@dataclass(frozen=True)
class Sampling:
    """How a stage's model calls sample: temperature, cap on new tokens, and the seed that all seeds derive from."""

    temperature: float
    max_tokens: int
    seed: int


@dataclass(frozen=True)
class Draft:
    """Answers to be written for one turn under one specification.

    Attributes:
        turn: The turn that they answer.
        spec: Names the specification within the turn, for instance ``blind`` or ``guided:short``.
        messages: The prompt.
        n: How many answers.
        origin: Recorded with each candidate.
        guidance: Recorded with each candidate.
    """

    turn: LabelledTurn
    spec: str
    messages: tuple[ChatMessage, ...]
    n: int
    origin: CandidateOrigin
    guidance: str | None = None


@dataclass(frozen=True)
class Drafted:
    """What `generate` returns: candidates of each draft, and why a draft has none.

    Both are keyed by turn key and specification.
    """

    candidates: dict[tuple[str, str], list[Candidate]]
    failures: dict[tuple[str, str], str]


async def generate(
    drafts: Sequence[Draft], client: ChatClient, sampling: Sampling, path: Path, *, description: str
) -> Drafted:
    """Answer every draft; empty answers are left out.

    Args:
        drafts: Keys (turn and specification) are unique. Their order is the order of asking: neighbours that share a
            beginning are cheapest.
        client: Answers them.
        sampling: Seeds derive from its seed and the draft's key, so that the order does not matter.
        path: The stage's append-only file of answers.
        description: Names the progress bar.

    Raises:
        ModelCallError: every single call failed.
    """
    known = _read_answers(path)
    digests = {_key(draft): _digest(draft, client.model, sampling) for draft in drafts}
    waiting = [draft for draft in drafts if digests[_key(draft)] not in known]
    if len(waiting) < len(drafts):
        logger.info("%s: %d of %d already generated", description, len(drafts) - len(waiting), len(drafts))
    failures: dict[tuple[str, str], str] = {}
    if waiting:
        path.parent.mkdir(parents=True, exist_ok=True)
        gate = asyncio.Semaphore(CONCURRENCY)
        with path.open("a", encoding="utf-8") as sink, progress(description, len(waiting)) as advance:

            async def answer(draft: Draft) -> None:
                digest = digests[_key(draft)]
                async with gate:
                    try:
                        replies = await client.complete(_request(draft, sampling, digest))
                    except ModelCallError as error:
                        failures[_key(draft)] = str(error)
                    else:
                        known[digest] = [(reply.text, reply.finish_reason) for reply in replies]
                        sink.write(
                            json.dumps({"key": list(_key(draft)), "digest": digest, "replies": known[digest]}) + "\n"
                        )
                        sink.flush()
                advance(1)

            try:
                async with asyncio.TaskGroup() as group:
                    for draft in waiting:
                        group.create_task(answer(draft))
            except ExceptionGroup as several:
                # One task's error ended the others; it is the one to report.
                raise several.exceptions[0] from several
            os.fsync(sink.fileno())
        if len(failures) == len(waiting) and not (len(drafts) - len(waiting)):
            raise ModelCallError(f"{description}: every call to {client.model} failed. The last: {error_of(failures)}")
    made: dict[tuple[str, str], list[Candidate]] = {}
    for draft in drafts:
        replies = known.get(digests[_key(draft)], [])
        made[_key(draft)] = [_candidate(draft, text, reason, client.model) for text, reason in replies if text.strip()]
    return Drafted(made, failures)


def error_of(failures: dict[tuple[str, str], str]) -> str:
    """The last failure's message."""
    return next(reversed(failures.values()), "")


def derive_seed(seed: int, *parts: str) -> int:
    """A seed in [0, 2**31) that depends on nothing but its arguments."""
    text = "\0".join([str(seed), *parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def _key(draft: Draft) -> tuple[str, str]:
    return draft.turn.key, draft.spec


def _request(draft: Draft, sampling: Sampling, digest: str) -> ChatRequest:
    return ChatRequest(
        messages=draft.messages,
        n=draft.n,
        temperature=sampling.temperature,
        max_tokens=sampling.max_tokens,
        seed=derive_seed(sampling.seed, digest),
    )


def _digest(draft: Draft, model: str, sampling: Sampling) -> str:
    """Everything that an answer depends on: another prompt, model or temperature is another answer."""
    body = [
        *_key(draft),
        draft.n,
        model,
        sampling.temperature,
        sampling.max_tokens,
        sampling.seed,
        *([m.role, m.content] for m in draft.messages),
    ]
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()


def _candidate(draft: Draft, text: str, finish_reason: Any, model: str) -> Candidate:
    return Candidate(
        conversation_id=draft.turn.conversation_id,
        turn=draft.turn.turn,
        text=ChatReply(text=text).text.strip(),
        origin=draft.origin,
        guidance=draft.guidance,
        finish_reason=finish_reason,
        model=model,
    )


def _read_answers(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Answers by digest. A last line that a crash cut short is cut off, so that the next one starts clean."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("r+b") as handle:
            handle.truncate(len(whole))
    rows = (json.loads(line) for line in whole.decode("utf-8").splitlines() if line)
    return {row["digest"]: [(text, reason) for text, reason in row["replies"]] for row in rows}
