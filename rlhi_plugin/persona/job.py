"""Building personas from a store, off the hot path: label what is new, go on from the current persona, put."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from rlhi_plugin.labelling import Labeller
from rlhi_plugin.persona.builder import PersonaBuilder
from rlhi_plugin.persona.changes import put_unless_changed
from rlhi_plugin.persona.edits import excluded_names
from rlhi_plugin.persona.updater import PersonaUpdater
from rlhi_plugin.privacy.exclusions import exclusions_in
from rlhi_plugin.records import Persona
from rlhi_plugin.stores import ConversationStore, PersonaStore

_log = logging.getLogger("rlhi.persona")

ATTEMPTS = 3
"""How often a persona is made anew because its user changed it meanwhile (ours)."""


class Store(ConversationStore, PersonaStore, Protocol):
    """Keeps both conversations and personas."""


async def build_personas(
    store: Store,
    user_ids: Iterable[str],
    *,
    labeller: Labeller,
    builder: PersonaBuilder,
    advance: Callable[[int], None] = lambda _: None,
    personas: PersonaStore | None = None,
    from_scratch: bool = False,
    left_out: Callable[[int], None] = lambda _: None,
    allows: Callable[[str], bool] = lambda _: True,
) -> list[Persona]:
    """Bring the personas of some users up to date and store them, one after another. For a job at night, or by hand.

    Args:
        store: Where their conversations are, and their personas go.
        user_ids: Pseudonyms.
        labeller: Labels their follow-ups, the new ones.
        builder: Builds from turns and labels.
        advance: Told 1 after each user.
        personas: Where personas go instead.
        from_scratch: Read all turns again; what the user decided is kept.
        left_out: Told for each user how many conversations were not read, because they want nothing learned from them.
        allows: Whether a user may be personalised: asked when it is their turn, and before their persona is stored.

    Returns:
        The personas in the order of `user_ids`, also those without statements, but not of who does not allow it. Those
        of earlier users stay stored when a later one fails.

    Raises:
        StoreError: the store cannot be read or written.
        ModelCallError: a labeller or builder that asks a model could not.
    """
    updater = PersonaUpdater(labeller=labeller, builder=builder)
    kept = store if personas is None else personas
    built: list[Persona] = []
    for user_id in user_ids:
        if allows(user_id):
            persona = await update_stored(
                store, kept, user_id, updater, from_scratch=from_scratch, left_out=left_out, allows=allows
            )
            built += [] if persona is None else [persona]
        advance(1)
    return built


async def update_stored(
    store: ConversationStore,
    personas: PersonaStore,
    user_id: str,
    updater: PersonaUpdater,
    *,
    from_scratch: bool = False,
    left_out: Callable[[int], None] = lambda _: None,
    allows: Callable[[str], bool] = lambda _: True,
) -> Persona | None:
    """Bring one stored persona up to date. Conversations that the user excluded are not read.

    Whoever changed it meanwhile goes first: then it is read again and updated from there, `ATTEMPTS` times at most, and
    after that left for the next occasion.

    Returns:
        The persona as it is stored now; None, and nothing is stored, where `allows` says no when it has been made.

    Raises:
        StoreError: the store cannot be read or written.
        ModelCallError: a labeller or builder that asks a model could not.
    """
    current: Persona | None = None
    for _ in range(ATTEMPTS):
        current = personas.get_persona(user_id)
        theirs = list(store.conversations(user_id=user_id))
        exclusions, names = exclusions_in(store, user_id=user_id), excluded_names(current)
        allowed = [c for c in theirs if c.conversation_id not in names and exclusions.of(c) is None]
        make = updater.rebuild if from_scratch else updater.update
        after = await make(user_id, current, allowed)
        if not allows(user_id):
            return None
        if after == current or put_unless_changed(personas, current, after):
            left_out(len(theirs) - len(allowed))
            return after
    _log.warning(
        "the persona of %s changed %d times while it was being updated; it is left as it is", user_id, ATTEMPTS
    )
    return personas.get_persona(user_id) or after
