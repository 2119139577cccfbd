"""Who talks: simulated users with two hidden preferences each, in populations that share nobody.

A user is satisfied with an answer that keeps all of their preferences. What a user prefers is decided here and read
only by the simulation and by the scoring; it reaches the assistant and the trainer only through what the user says.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations

from pydantic import Field

from rlhi_eval_harness.simulation.phrases import Wording, load_phrases
from rlhi_plugin.checks import CHECKS
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import Record, UserId

CONFLICTS = frozenset(
    frozenset(pair)
    for pair in (
        ("short", "detailed"),
        ("short", "bullets"),
        ("short", "example"),
        ("bullets", "no_lists"),
        ("emojis", "no_emojis"),
    )
)
"""Pairs that no answer, or hardly any, keeps at once: nobody wants both (ours)."""


USUAL = ("short", "bullets", "numbers", "greeting", "closing_question")
"""What users want unless a population or suite says otherwise: wishes that a small base model mostly breaks and that it
can keep when asked plainly (ours). A wish that it cannot keep would teach nothing and measure nothing."""


class SimulatedUser(Record):
    """One user and what they secretly want."""

    name: UserId
    preferences: tuple[str, ...] = Field(min_length=1)
    """Names from `rlhi_plugin.checks.CHECKS`, sorted. Hidden from everything under test."""
    wording: Wording = "seen"
    seed: int = 0
    """Decides what this user asks and how they put it, given the same answers."""

    def broken(self, answer: str) -> tuple[str, ...]:
        """The preferences that `answer` breaks, in this user's order."""
        return tuple(name for name in self.preferences if not CHECKS[name].holds(answer))


def compatible(first: str, second: str) -> bool:
    """Whether one user can want both."""
    return first != second and frozenset((first, second)) not in CONFLICTS


def population(
    prefix: str,
    count: int,
    *,
    preferences: Sequence[str] = USUAL,
    wordings: Sequence[Wording] = ("seen",),
    seed: int = 0,
) -> tuple[SimulatedUser, ...]:
    """Make `count` users, named ``prefix-01`` and so on.

    Every compatible pair of preferences occurs before any occurs again, and wordings alternate, so that neither is
    left to luck in a small population. The users of two populations differ if their prefixes do.

    Args:
        prefix: Start of every name, for instance ``train`` or ``held-out``.
        count: How many, at least 1.
        preferences: What they may want: anything that there are complaints for.
        wordings: How they complain, in turn.
        seed: The same arguments give the same users.

    Raises:
        ConfigError: a preference without complaints, fewer than two that go together, or no users.
    """
    known = load_phrases().complaints
    chosen = tuple(dict.fromkeys(preferences))
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ConfigError(f"no user complains about {', '.join(unknown)}. Choose from: {', '.join(known)}")
    if count < 1 or not wordings:
        raise ConfigError("a population needs at least one user and one wording. Ask for count >= 1.")
    pairs = [tuple(sorted(pair)) for pair in combinations(chosen, 2) if compatible(*pair)]
    if not pairs:
        raise ConfigError(f"no two of these preferences go together: {', '.join(chosen)}. Add another one.")
    rng = random.Random(f"{seed}/{prefix}")
    order = _rounds(pairs, count, rng)
    return tuple(
        SimulatedUser(
            name=f"{prefix}-{index + 1:02d}",
            preferences=order[index],
            wording=wordings[index % len(wordings)],
            seed=rng.getrandbits(32),
        )
        for index in range(count)
    )


def _rounds(pairs: Sequence[tuple[str, ...]], count: int, rng: random.Random) -> list[tuple[str, ...]]:
    """`count` pairs: those whose preferences are rarest so far come first, so that each preference is wanted alike."""
    left: list[tuple[str, ...]] = []
    wanted: dict[str, int] = {name: 0 for pair in pairs for name in pair}
    order = []
    for _ in range(count):
        if not left:
            left = rng.sample(pairs, len(pairs))
        pair = min(left, key=lambda candidate: sum(wanted[name] for name in candidate))
        left.remove(pair)
        order.append(pair)
        for name in pair:
            wanted[name] += 1
    return order
