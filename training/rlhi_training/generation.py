"""Many model calls at once.

A generating stage describes what it needs as `Draft`s. Calls run concurrently: a hosted model answers in parallel, and
the in-process client packs what waits into batches. Each answer is in the run's call journal as soon as it exists
(`rlhi_plugin.calls.journal`), so a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as _spelt

from rlhi_plugin.calls.concurrently import each, under_way
from rlhi_plugin.chat import ChatClient, ChatReply, ChatRequest
from rlhi_plugin.errors import ModelCallError, ProviderUnavailableError
from rlhi_plugin.records import ChatMessage
from rlhi_plugin.terminal import progress
from rlhi_training.records import Candidate, CandidateOrigin, LabelledTurn

CONCURRENCY = 128
"""Turns that are scored at once, each by several calls (ours)."""


@dataclass(frozen=True)
class Sampling:
    """How a stage's model calls sample.

    Attributes:
        temperature: Of every call.
        max_tokens: Cap on new tokens.
        seed: All seeds derive from it.
        part: The calls are some of many: that every one of these fails is no reason to stop.
    """

    temperature: float
    max_tokens: int
    seed: int
    part: bool = False


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


async def generate(drafts: Sequence[Draft], client: ChatClient, sampling: Sampling, *, description: str) -> Drafted:
    """Answer every draft; empty answers are left out.

    Args:
        drafts: Keys (turn and specification) are unique. Their order is the order of asking: neighbours that share a
            beginning are cheapest.
        client: Answers them; what its journal holds already is not asked for again.
        sampling: Seeds derive from its seed and the draft's key, so that the order does not matter.
        description: Names the progress bar.

    Raises:
        ProviderUnavailableError: no call can succeed as things are.
        BudgetReachedError: the next call could cost more than is left.
        ModelCallError: every single call failed.
    """
    made: dict[tuple[str, str], list[Candidate]] = {}
    failures: dict[tuple[str, str], str] = {}
    with progress(description, len(drafts)) as advance:

        async def answer(draft: Draft) -> None:
            try:
                replies = await client.complete(_request(draft, client.model, sampling))
            except ProviderUnavailableError:
                raise
            except ModelCallError as error:
                failures[_key(draft)] = str(error)
                replies = ()
            made[_key(draft)] = [_candidate(draft, reply, client.model) for reply in replies if reply.text.strip()]
            advance(1)

        await each(drafts, answer, at_once=under_way(client))
    if drafts and len(failures) == len(drafts) and not sampling.part:
        raise ModelCallError(f"{description}: every call to {client.model} failed. The last: {error_of(failures)}")
    return Drafted({_key(draft): made[_key(draft)] for draft in drafts}, failures)


def error_of(failures: dict[tuple[str, str], str]) -> str:
    """The last failure's message."""
    return next(reversed(failures.values()), "")


def derive_seed(seed: int, *parts: str) -> int:
    """A seed in [0, 2**31) that depends on nothing but its arguments."""
    text = "\0".join([str(seed), *parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def _key(draft: Draft) -> tuple[str, str]:
    return draft.turn.key, draft.spec


def _request(draft: Draft, model: str, sampling: Sampling) -> ChatRequest:
    return ChatRequest(
        messages=draft.messages,
        n=draft.n,
        temperature=sampling.temperature,
        max_tokens=sampling.max_tokens,
        seed=derive_seed(sampling.seed, _digest(draft, model, sampling)),
    )


def _digest(draft: Draft, model: str, sampling: Sampling) -> str:
    """Everything that an answer depends on: another prompt, model or temperature is another answer."""
    # As `json.dumps` spells the list of all this, in a third of the time: a prompt is a long text.
    key, spec = _key(draft)
    body = (
        f"[{_spelt(key)}, {_spelt(spec)}, {draft.n}, {_spelt(model)}, {sampling.temperature!r}, {sampling.max_tokens},"
        f" {sampling.seed}"
    )
    said = [f", [{_spelt(message.role)}, {_spelt(message.content)}]" for message in draft.messages]
    return hashlib.sha256(f"{body}{''.join(said)}]".encode()).hexdigest()


def _candidate(draft: Draft, reply: ChatReply, model: str) -> Candidate:
    # Of parts of records, and of a text that is not empty.
    return Candidate.trusted(
        conversation_id=draft.turn.conversation_id,
        turn=draft.turn.turn,
        text=reply.text.strip(),
        origin=draft.origin,
        guidance=draft.guidance,
        finish_reason=reply.finish_reason,
        model=model,
    )
