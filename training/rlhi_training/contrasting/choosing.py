"""Which pairs a pool gives: the persona explains the choice, and nothing else does as far as can be had."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlhi_plugin.records import Persona
from rlhi_training.contrasting.pools import Pool
from rlhi_training.draws import drawn
from rlhi_training.recipe import ContrastSection
from rlhi_training.records import ProposedPair

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LENGTH_WISHES = {"short", "detailed", "max_words", "min_words", "max_sentences"}
_HELD_BY_DEFAULT = {"no_lists", "no_emojis"}
"""Plain answers have these anyway."""
# Weights of what makes a pair good, ours: more wishes kept, equal lengths, texts that are chosen as often as rejected.
_GAIN, _LENGTH, _BALANCE, _NO_TURN, _NOISE = 2.0, 1.5, 0.6, 0.7, 0.3


def choose(pools: Sequence[Pool], section: ContrastSection, seed: int) -> tuple[list[ProposedPair], int]:
    """One pair per request and persona where there is one; and how many another persona ranks the other way.

    A pair is admissible when the persona ranks chosen above rejected, and when their lengths are within
    `ContrastSection.max_length_ratio` of each other unless length is what the persona asks about. Chance is drawn anew
    for each request.
    """
    pairs: list[ProposedPair] = []
    turned_pairs = 0
    for pool in pools:
        if len(pool.candidates) > 1:
            found, turned = _of_pool(pool, section, seed)
            pairs += found
            turned_pairs += turned
    return pairs, turned_pairs


def _of_pool(pool: Pool, section: ContrastSection, seed: int) -> tuple[list[ProposedPair], int]:
    """The pairs of one request, in the order of those who listen."""
    import numpy as np

    noise = np.random.default_rng(drawn(seed, "noise", pool.slot.turn.key))
    pairs: dict[int, ProposedPair] = {}
    turned_pairs = 0
    for row in map(int, noise.permutation(len(pool.slot.listeners))):
        listener = pool.slot.listeners[row]
        gain = _gains(pool.scores[row], section)
        ratio = pool.ratios()
        about_length = any(name.partition(":")[0] in _LENGTH_WISHES for name in listener.asked)
        admissible = gain > 0
        if section.rank_by == "reward_model":
            admissible &= gain >= section.min_gain
        if not about_length:
            admissible &= ratio <= section.max_length_ratio
        turned = _turned(pool, section)
        if section.only_turning:
            admissible &= turned
        if not admissible.any():
            continue
        cost = -_GAIN * np.nan_to_num(gain) + _NO_TURN * ~turned + _NOISE * noise.random(gain.shape)
        cost += _BALANCE * (pool.balance[:, None] - pool.balance[None, :])
        if not about_length:
            cost += _LENGTH * (ratio - 1.0)
        a, b = np.unravel_index(int(np.where(admissible, cost, np.inf).argmin()), cost.shape)
        pool.balance[a] += 1
        pool.balance[b] -= 1
        turned_pairs += bool(turned[a, b])
        margin = float(pool.scores[row][a] - pool.scores[row][b])
        if section.rank_by == "checks":
            margin /= len(listener.asked)
        pairs[row] = _pair(pool, listener.persona, (int(a), int(b)), margin, listener.asked)
    return [pairs[row] for row in sorted(pairs)], turned_pairs


def neutral(pools: Sequence[Pool], wishes: Sequence[str]) -> list[ProposedPair]:
    """Pairs without persona, one a request at most: a plain answer over one that grants what others wished for."""
    return _plain_wins(pools, wishes, under_irrelevant=False)


def irrelevant(pools: Sequence[Pool], wishes: Sequence[str]) -> list[ProposedPair]:
    """Pairs under a persona that does not matter, one a request at most: a plain answer over one that grants it."""
    return _plain_wins(pools, wishes, under_irrelevant=True)


def share_of(share: float, pairs: int) -> int:
    """How many extra pairs that is."""
    return math.floor(share * pairs)


def _plain_wins(pools: Sequence[Pool], wishes: Sequence[str], *, under_irrelevant: bool) -> list[ProposedPair]:
    import numpy as np

    found: list[ProposedPair] = []
    for pool in pools:
        persona: Persona | None = None
        unwanted = set(wishes)
        if under_irrelevant:
            if pool.slot.irrelevant is None:
                continue
            persona, unwanted = pool.slot.irrelevant.persona, set(pool.slot.irrelevant.asked)
        columns = [i for i, name in enumerate(wishes) if name in unwanted - _HELD_BY_DEFAULT]
        special = pool.holds[:, columns].any(axis=1)
        better = (pool.plain & ~special)[:, None] & (~pool.plain & special & _guided(pool))[None, :]
        if pool.neutral.size:
            gain = pool.neutral[:, None] - pool.neutral[None, :]
            better = (pool.plain[:, None] & ~pool.plain[None, :] & (gain > 0)) if not under_irrelevant else better
        if better.any():
            ratio = np.where(better, pool.ratios(), np.inf)
            a, b = np.unravel_index(int(ratio.argmin()), ratio.shape)
            found.append(_pair(pool, persona, (int(a), int(b)), 0.0, ()))
    return found


def _guided(pool: Pool) -> NDArray[np.bool_]:
    import numpy as np

    return np.array([candidate.origin == "guided" for candidate in pool.candidates], dtype=np.bool_)


def _gains(scores: NDArray[np.float64], section: ContrastSection) -> NDArray[np.float64]:
    """[n, n] How much better the first is than the second; in deviations of the pool where a reward model ranks."""
    import numpy as np

    gains: NDArray[np.float64] = scores[:, None] - scores[None, :]
    if section.rank_by == "reward_model":
        known = scores[np.isfinite(scores)]
        deviation = float(known.std()) if len(known) else 0.0
        return gains / deviation if deviation > 0 else np.zeros_like(gains)
    return gains


def _turned(pool: Pool, section: ContrastSection) -> NDArray[np.bool_]:
    """[n, n] Whether some persona in the room ranks the second above the first."""
    import numpy as np

    turned = np.zeros((len(pool.candidates), len(pool.candidates)), dtype=np.bool_)
    for row in pool.scores:
        against = -_gains(row, section)
        turned |= against > 0 if section.rank_by == "checks" else against >= max(section.min_gain, 1e-9)
    return turned


def _pair(
    pool: Pool, persona: Persona | None, places: tuple[int, int], margin: float, asked: tuple[str, ...]
) -> ProposedPair:
    """The pair of the chosen and the rejected candidate at these places of the pool."""
    chosen, rejected = (pool.candidates[place] for place in places)
    return ProposedPair(
        source="contrast",
        conversation_id=pool.slot.turn.conversation_id,
        turn=pool.slot.turn.turn,
        persona=persona,
        chosen=chosen,
        rejected=rejected,
        margin=margin,
        asked=asked,
    )
