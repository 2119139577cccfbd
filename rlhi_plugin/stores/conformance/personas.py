"""Every `PersonaStore`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from rlhi_plugin.records import Evidence, Persona, PersonaStatement
from rlhi_plugin.stores.conformance.expecting import expect
from rlhi_plugin.stores.protocols import PersonaStore

OpenPersonas = Callable[[], PersonaStore]


def _persona(user_id: str, *texts: str) -> Persona:
    statements = tuple(
        PersonaStatement(
            text=text,
            evidence=(Evidence(conversation_id="c", message_id="m", quote=text, said_at=datetime.now(UTC)),),
            confidence=0.25,
        )
        for text in texts
    )
    return Persona(user_id=user_id, statements=statements, covers_until=datetime.now(UTC), builder="conformance")


def keeps_the_newest_persona(open_store: OpenPersonas) -> None:
    """The persona that was put last comes back equal; one user's never answers for another."""
    store = open_store()
    expect(store.get_persona("u_1") is None, "an unknown user has a persona")
    old, new, other = _persona("u_1", "Shorter."), _persona("u_1", "Longer, please."), _persona("u_2")
    for persona in (old, other, new, new):
        store.put_persona(persona)
    expect(store.get_persona("u_1") == new, "the newest persona does not come back equal")
    expect(store.get_persona("u_2") == other, "a persona without statements does not come back equal")
    store.put_persona(old)
    expect(store.get_persona("u_1") == old, "going back to an earlier persona does not work")


PERSONA_CHECKS: tuple[Callable[[OpenPersonas], None], ...] = (keeps_the_newest_persona,)
"""Run each of them on a storage of its own."""
