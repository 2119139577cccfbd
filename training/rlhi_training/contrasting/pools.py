"""Pools of answers: a request's sound, distinct candidates, what they have, and how each persona ranks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rlhi_plugin.calls.concurrently import each
from rlhi_plugin.checkable import check
from rlhi_plugin.checks import word_count
from rlhi_plugin.records import Persona
from rlhi_training.contrasting.quoting import private_grams, quotes
from rlhi_training.generation import CONCURRENCY
from rlhi_training.records import Candidate, LabelledTurn
from rlhi_training.reward_models.protocol import RewardModel
from rlhi_training.soundness import flaw
from rlhi_training.stages.audience import Listener

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MIN_WORDS = 6
_MAX_REPEATED = 0.08
"""Stricter than the filter: a repetitive text in a pool would win or lose for that alone."""


@dataclass(frozen=True)
class Slot:
    """A request and who listens.

    Attributes:
        turn: The request.
        listeners: Personas that its answers are ranked under, the author's own first where there is one.
        irrelevant: A persona that has nothing to say about it, with the wishes that it must not bring in.
        author: The persona of whoever asked, whether or not it listens: earlier stages wrote answers under it.
    """

    turn: LabelledTurn
    listeners: tuple[Listener, ...]
    irrelevant: Listener | None = None
    author: Persona | None = None


@dataclass
class Pool:
    """The answers to one request, with one row per candidate everywhere.

    Attributes:
        slot: The request and who listens.
        candidates: Distinct, sound, quoting nobody.
        plain: [n] Written by stage contrast without any guidance.
        words: [n] Length, at least 1.
        holds: [n, wishes] Which of the run's wishes each keeps.
        scores: [listeners, n] Higher is better within a row; NaN is unscored.
        neutral: [n] Scores without a persona, where a reward model ranks; else empty.
        balance: [n] How often each has been chosen minus how often rejected so far.
    """

    slot: Slot
    candidates: tuple[Candidate, ...]
    plain: NDArray[np.bool_]
    words: NDArray[np.int64]
    holds: NDArray[np.bool_]
    scores: NDArray[np.float64]
    neutral: NDArray[np.float64]
    balance: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        import numpy as np

        self.balance = np.zeros(len(self.candidates), dtype=np.int64)

    def ratios(self) -> NDArray[np.float64]:
        """[n, n] Longer over shorter, in words."""
        import numpy as np

        a, b = self.words[:, None], self.words[None, :]
        return np.maximum(a, b) / np.minimum(a, b)


@dataclass
class Gathered:
    """What the drafts of one stage left, by turn key; and how many candidates were left out, by reason."""

    candidates: dict[str, list[Candidate]] = field(default_factory=dict)
    plain: set[tuple[str, str]] = field(default_factory=set)
    """Turn key and candidate id of plain answers."""
    left_out: dict[str, int] = field(default_factory=dict)


def gather(
    slots: Sequence[Slot],
    drafted: Mapping[str, Sequence[tuple[Candidate, bool]]],
    more: Mapping[str, Sequence[Candidate]],
) -> Gathered:
    """Sound, distinct candidates of each request that may be shown under anybody's persona.

    Left out: flawed ones, logged answers (the log's model wrote them, not ours), and those that quote what the author
    said elsewhere or what their persona or any in the room says (`rlhi_training.contrasting.quoting`).

    Args:
        slots: Requests.
        drafted: By turn key, what this stage wrote, and whether without guidance.
        more: By turn key, what earlier stages wrote for the same request.
    """
    out = Gathered()
    for slot in slots:
        key = slot.turn.key
        private = _private(slot)
        known: dict[str, Candidate] = {}
        everything = [*drafted.get(key, ()), *((candidate, False) for candidate in more.get(key, ()))]
        for candidate, plain in everything:
            reason = _unfit(candidate, private)
            if reason is not None:
                out.left_out[reason] = out.left_out.get(reason, 0) + 1
            elif known.setdefault(candidate.text, candidate) is candidate and plain:
                out.plain.add((key, candidate.candidate_id))
        out.candidates[key] = list(known.values())
    return out


def _unfit(candidate: Candidate, private: frozenset[tuple[str, ...]]) -> str | None:
    if candidate.origin == "logged":
        return "logged"
    problem = flaw(candidate.text, candidate.finish_reason, min_words=_MIN_WORDS, max_repeated_share=_MAX_REPEATED)
    return problem or ("quotes_a_user" if quotes(candidate.text, private) else None)


def _private(slot: Slot) -> frozenset[tuple[str, ...]]:
    """What the answers to a request must not repeat."""
    people: list[Persona] = [listener.persona for listener in slot.listeners]
    if slot.irrelevant is not None:
        people.append(slot.irrelevant.persona)
    if slot.author is not None:
        people.append(slot.author)
    said = [s.text for persona in people for s in persona.statements]
    if slot.turn.follow_up:
        said.append(slot.turn.follow_up)
    return private_grams(said, [message.content for message in slot.turn.context])


async def rank(
    slots: Sequence[Slot], gathered: Gathered, wishes: Sequence[str], model: RewardModel | None
) -> list[Pool]:
    """Pools with their scores: by a reward model, or else by how many of a persona's wishes each candidate keeps."""
    import numpy as np

    pools = [_checked(slot, gathered, wishes) for slot in slots]
    if model is None:
        return pools
    nobody: list[Persona | None] = [None]
    jobs = [
        (pool, row, persona)
        for pool in pools
        for row, persona in enumerate([*(listener.persona for listener in pool.slot.listeners), *nobody])
        if len(pool.candidates) > 1
    ]
    for pool in pools:
        pool.scores[:] = np.nan
        pool.neutral = np.full(len(pool.candidates), np.nan)
    scorable = [job for job in jobs if model.unscorable(job[2]) is None]
    tables = await each(
        scorable, lambda job: model.score(job[0].slot.turn, job[0].candidates, job[2]), at_once=CONCURRENCY
    )
    for (pool, row, _), verdicts in zip(scorable, tables, strict=True):
        values = [np.nan if verdict.value is None else verdict.value for verdict in verdicts]
        if row < len(pool.slot.listeners):
            pool.scores[row] = values
        else:
            pool.neutral[:] = values
    return pools


def _checked(slot: Slot, gathered: Gathered, wishes: Sequence[str]) -> Pool:
    import numpy as np

    candidates = tuple(gathered.candidates[slot.turn.key])
    column = {name: index for index, name in enumerate(wishes)}
    holds = np.array([[check(name).holds(c.text) for name in wishes] for c in candidates], dtype=np.bool_)
    holds = holds.reshape(len(candidates), len(wishes))
    scores = [holds[:, [column[name] for name in listener.asked]].sum(axis=1) for listener in slot.listeners]
    return Pool(
        slot=slot,
        candidates=candidates,
        plain=np.array([(slot.turn.key, c.candidate_id) in gathered.plain for c in candidates], dtype=np.bool_),
        words=np.array([max(1, word_count(c.text)) for c in candidates], dtype=np.int64),
        holds=holds,
        scores=np.array(scores, dtype=np.float64).reshape(len(slot.listeners), len(candidates)),
        neutral=np.empty(0),
    )
