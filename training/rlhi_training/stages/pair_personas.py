"""Controls of ours: pairs under another user's persona, or under none. What they teach is not about the persona."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import Persona
from rlhi_training.recipe import Recipe
from rlhi_training.records import Dropped, ProposedPair


def put_personas(proposed: Sequence[ProposedPair], recipe: Recipe) -> tuple[list[ProposedPair], list[Dropped]]:
    """The pairs with the personas that ``pairs.persona`` asks for. Pairs without a persona stay as they are.

    Shuffled: users stand in a circle in an order that the recipe's seed draws, and each gets the persona of the next
    one whose words differ. Every pair of one user gets the same other user's, so that the control is as consistent as
    the truth.

    Drops: ``no_other_persona`` (nobody else has one with other words).

    Raises:
        ConfigError: personas are to be shuffled, and ``contrast.cross_user`` forbids that users' pairs mix.
    """
    kind = recipe.pairs.persona
    if kind == "own":
        return list(proposed), []
    if kind == "none":
        return [pair.model_copy(update={"persona": None}) for pair in proposed], []
    if not recipe.contrast.cross_user:
        raise ConfigError(
            "pairs.persona = \"shuffled\" puts one user's persona over another user's request, which"
            " contrast.cross_user = false forbids. Allow it for this control, or leave personas alone."
        )
    other = _next_in_circle([pair.persona for pair in proposed if pair.persona], recipe.seed)
    kept: list[ProposedPair] = []
    dropped: list[Dropped] = []
    for pair in proposed:
        if pair.persona is None:
            kept.append(pair)
        elif pair.persona.user_id in other:
            kept.append(pair.model_copy(update={"persona": other[pair.persona.user_id]}))
        else:
            dropped.append(Dropped(stage="pairs", key=pair.key, reason="no_other_persona"))
    return kept, dropped


def _next_in_circle(personas: Sequence[Persona], seed: int) -> dict[str, Persona]:
    """For each user, the persona of the next one in the circle none of whose words the user has."""
    known: dict[str, dict[str, Persona]] = defaultdict(dict)
    for persona in personas:
        known[persona.user_id][persona.digest] = persona
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
