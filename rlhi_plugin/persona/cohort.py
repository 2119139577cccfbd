"""A prior for new users, opt-in: what at least `k` users of a cohort ask for, in fixed sentences of ours.

No word of any user and no evidence enters it: statements are read for the few wishes that code can recognise
(`rlhi_plugin.persona.wishes`), each user counts once for each wish, and what fewer than `k` different users share stays
out. Languages stay out altogether: a group's language says too much about its members and too little about a new one.
A single user more or less can therefore change the prior only where a wish stands exactly at the threshold or at the
lead that decides between opposites; this is a threshold of the kind of k-anonymity, not differential privacy.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable

from pydantic import Field

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.persona.wishes import canned, read_wishes
from rlhi_plugin.records import Persona, Record

MIN_USERS = 5
"""Different users that have to share a wish (ours)."""
MAX_SENTENCES = 3
"""Of a prior (ours): it is a guess, and a long guess is a wrong one."""
LEAD = 2
"""How many times as many users one direction of a wish needs as its opposite (ours)."""


class CohortPrior(Record):
    """What many users of a cohort ask for. Holds nobody's words, ids or counts."""

    cohort: str = Field(min_length=1)
    """The app's name of the group, such as a tenant or a product."""
    sentences: tuple[str, ...]
    """Most shared first; fixed sentences (`rlhi_plugin.persona.wishes.canned`)."""
    k: int = Field(ge=2)
    """Each sentence is shared by at least so many users."""

    @property
    def digest(self) -> str:
        """SHA-256 of the sentences, in hex; never that of a persona."""
        return hashlib.sha256("\n".join(("prior", *self.sentences)).encode()).hexdigest()


def build_prior(
    cohort: str, personas: Iterable[Persona], *, k: int = MIN_USERS, max_sentences: int = MAX_SENTENCES
) -> CohortPrior:
    """Find what the users of a cohort share.

    Args:
        cohort: Its name.
        personas: Of its members; several of one user count as one user.
        k: Different users that have to share a wish, at least 2.
        max_sentences: Most of them, at least 1.

    Raises:
        ConfigError: `k` or `max_sentences` is too small.
    """
    if k < 2 or max_sentences < 1:  # noqa: PLR2004 - stated in the message
        raise ConfigError(
            f"k={k}, max_sentences={max_sentences} would expose single users or say nothing. Give k >= 2."
        )
    users: dict[str, set[str]] = defaultdict(set)
    for persona in personas:
        for statement in persona.statements:
            for wish in read_wishes(statement.text):
                users[wish].add(persona.user_id)
    shared = {
        wish: len(who)
        for wish, who in users.items()
        if not wish.startswith("language:") and len(who) >= k and len(who) >= LEAD * len(users.get(_opposite(wish), ()))
    }
    order = sorted(shared, key=lambda wish: (-shared[wish], wish))
    return CohortPrior(cohort=cohort, sentences=tuple(canned(wish) for wish in order[:max_sentences]), k=k)


def _opposite(wish: str) -> str:
    topic, _, direction = wish.partition(":")
    return f"{topic}:{'-' if direction == '+' else '+'}"
