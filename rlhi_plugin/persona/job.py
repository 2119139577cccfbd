"""Building personas from a store, off the hot path: label the follow-ups, build, put."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from rlhi_plugin.labelling import Labeller, exchanges
from rlhi_plugin.persona.builder import PersonaBuilder
from rlhi_plugin.records import Persona
from rlhi_plugin.stores import ConversationStore, PersonaStore


class Store(ConversationStore, PersonaStore, Protocol):
    """Keeps both conversations and personas."""


async def build_personas(
    store: Store,
    user_ids: Iterable[str],
    *,
    labeller: Labeller,
    builder: PersonaBuilder,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Persona]:
    """Build and store the personas of some users, one after another.

    Args:
        store: Where their conversations are, and their personas go.
        user_ids: Pseudonyms.
        labeller: Labels their follow-ups.
        builder: Builds from conversations and labels.
        advance: Told 1 after each user.

    Returns:
        The personas in the order of `user_ids`, also those without statements. Those of earlier users stay stored when
        a later one fails.

    Raises:
        StoreError: the store cannot be read or written.
        ModelCallError: a labeller or builder that asks a model could not.
    """
    built: list[Persona] = []
    for user_id in user_ids:
        conversations = list(store.conversations(user_id=user_id))
        found = [exchange for conversation in conversations for exchange in exchanges(conversation)]
        follow_ups = await labeller.label(found) if found else []
        persona = await builder.build(user_id, conversations, follow_ups)
        store.put_persona(persona)
        built.append(persona)
        advance(1)
    return built
