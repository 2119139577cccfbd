"""Controls of ours: pairs under another user's persona, or under none. What they teach is not about the persona."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import Persona
from rlhi_training.recipe import Recipe
from rlhi_training.records import Dropped, ProposedPair
from rlhi_training.stages.audience import Snapshots


def put_personas(proposed: Sequence[ProposedPair], recipe: Recipe) -> tuple[list[ProposedPair], list[Dropped]]:
    """The pairs with the personas that ``pairs.persona`` asks for. Pairs without a persona stay as they are.

    Shuffled: users stand in a circle in an order that the recipe's seed draws, and each gets the persona of the next
    one whose words differ. Every pair of one user gets the same other user's, so that the control is as consistent as
    the truth.

    Drops: ``no_other_persona`` (nobody else has one with other words).

    Raises:
        ConfigError: personas are to be shuffled, and ``contrast.cross_user`` forbids that users' pairs mix.
    """
    circle = None
    if recipe.pairs.persona == "shuffled":
        check_shuffling(recipe)
        circle = Circle([pair.persona for pair in proposed if pair.persona], recipe.seed)
    placed = [put_persona(pair, recipe, circle) for pair in proposed]
    kept = [pair for pair in placed if isinstance(pair, ProposedPair)]
    return kept, [drop for drop in placed if isinstance(drop, Dropped)]


def check_shuffling(recipe: Recipe) -> None:
    """Refuse to shuffle where users' pairs must not mix.

    Raises:
        ConfigError: ``contrast.cross_user`` forbids it.
    """
    if not recipe.contrast.cross_user:
        raise ConfigError(
            "pairs.persona = \"shuffled\" puts one user's persona over another user's request, which"
            " contrast.cross_user = false forbids. Allow it for this control, or leave personas alone."
        )


def put_persona(pair: ProposedPair, recipe: Recipe, circle: Circle | None) -> ProposedPair | Dropped:
    """One pair with the persona that the recipe wants in it; `circle` says which where they are shuffled."""
    if pair.persona is None or recipe.pairs.persona == "own":
        return pair
    if circle is None:
        return pair.model_copy(update={"persona": None})
    other = circle.next.get(pair.persona.user_id)
    if other is None:
        return Dropped(stage="pairs", key=pair.key, reason="no_other_persona")
    return pair.model_copy(update={"persona": other})


class Circle:
    """Users with personas, in an order that a seed draws.

    Attributes:
        next: For each user, the persona of the next one in the circle none of whose words the user has.
    """

    def __init__(self, personas: Sequence[Persona], seed: int) -> None:
        self.next = _next_in_circle(personas, seed)


def _next_in_circle(personas: Sequence[Persona], seed: int) -> dict[str, Persona]:
    """For each user, the persona of the next one in the circle none of whose words the user has."""
    seen: dict[str, Snapshots] = defaultdict(Snapshots)
    for persona in personas:
        seen[persona.user_id].add(persona)
    known = {user: {persona.digest: persona for persona in theirs.personas} for user, theirs in seen.items()}
    circle = sorted(known)
    random.Random(seed).shuffle(circle)
    found: dict[str, Persona] = {}
    for place, user in enumerate(circle):
        for step in range(1, len(circle)):
            theirs = known[circle[(place + step) % len(circle)]]
            # The one they have most: sorted by digest where several.
            strange = sorted(digest for digest in theirs if digest not in known[user])
            if strange:
                found[user] = theirs[strange[0]]
                break
    return found
