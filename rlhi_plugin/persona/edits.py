"""The person in control: editing, locking and removing statements, and keeping a conversation out. All pure.

What is decided here outlives every rebuilding (`rlhi_plugin.persona.updater`): an edited statement cites the edit as
its evidence, a locked one does not fade, a removed one does not come back from the same or similar words.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.persona.memory import EDIT
from rlhi_plugin.persona.removals import removal_of
from rlhi_plugin.persona.render import visible
from rlhi_plugin.persona.screen import is_safe
from rlhi_plugin.persona.wishes import statement_type
from rlhi_plugin.records import Evidence, Persona, PersonaStatement, Record

EditAction = Literal["edit", "lock", "unlock", "remove"]

MAX_STATEMENT = 200
"""Characters of one statement (ours)."""


class PersonaEdit(Record):
    """One thing that a user does to their persona."""

    action: EditAction
    number: int = Field(ge=1)
    """Of the statement, counted from 1 through `Persona.statements` and on through `Persona.reserve`."""
    text: str | None = None
    """The new wording, for ``edit``."""


def apply_edit(persona: Persona, edit: PersonaEdit, at: datetime) -> Persona:
    """The persona after the edit, one version on.

    Args:
        persona: As it is.
        edit: What the user does.
        at: When they do it.

    Raises:
        ConfigError: there is no such statement, or the new wording cannot be kept.
    """
    match edit.action:
        case "edit":
            return edit_statement(persona, edit.number, edit.text or "", at)
        case "remove":
            return remove_statement(persona, edit.number, at)
        case "lock" | "unlock":
            return lock_statement(persona, edit.number, locked=edit.action == "lock")


def edit_statement(persona: Persona, number: int, text: str, at: datetime) -> Persona:
    """Give a statement the user's own wording; what it said before counts as removed.

    Raises:
        ConfigError: there is no such statement; the wording is empty, too long, or addresses the model's machinery.
    """
    before, wording = numbered(persona, number), visible(text)
    if not wording:
        raise ConfigError("the new wording is empty. Write one, or remove the statement.")
    if len(wording) > MAX_STATEMENT:
        raise ConfigError(f"the new wording has {len(wording)} characters. Keep it to {MAX_STATEMENT}.")
    if not is_safe(text):
        raise ConfigError("the new wording reads like an instruction to the system. Say how answers should be.")
    after = before.model_copy(
        update={
            "text": wording,
            "type": statement_type(wording),
            "evidence": (
                Evidence(conversation_id=EDIT, message_id=f"edit-{persona.version + 1}", quote=wording, said_at=at),
            ),
            "confidence": 1.0,
            "first_seen": at,
            "last_seen": at,
        }
    )
    replaced = _replace(persona, before, after)
    return replaced.model_copy(update={"removed": (*persona.removed, removal_of(before, at))})


def lock_statement(persona: Persona, number: int, *, locked: bool = True) -> Persona:
    """Fix a statement, or let it go again. A locked one of the reserve is rendered from now on, first of all.

    Raises:
        ConfigError: there is no such statement.
    """
    before = numbered(persona, number)
    after = before.model_copy(update={"locked": locked})
    if locked and number > len(persona.statements):
        reserve = tuple(s for s in persona.reserve if s is not before)
        moved = {"statements": (after, *persona.statements), "reserve": reserve, "version": persona.version + 1}
        return persona.model_copy(update=moved)
    return _replace(persona, before, after)


def remove_statement(persona: Persona, number: int, at: datetime) -> Persona:
    """Take a statement out, and remember that it must not come back. Locked or not.

    Raises:
        ConfigError: there is no such statement.
    """
    before = numbered(persona, number)
    gone = _replace(persona, before, None)
    return gone.model_copy(update={"removed": (*persona.removed, removal_of(before, at))})


def exclude_conversation(persona: Persona, conversation_id: str) -> Persona:
    """Keep a conversation out: what rests on it alone goes, and the updater reads nothing of it any more.

    What the user locked or wrote stays. Further evidence from elsewhere keeps a statement, with a quotation from there.
    """
    if conversation_id in persona.excluded:
        return persona
    return persona.model_copy(
        update={
            "statements": _without(persona.statements, conversation_id),
            "reserve": _without(persona.reserve, conversation_id),
            "excluded": (*persona.excluded, conversation_id),
            "version": persona.version + 1,
        }
    )


def excluded_names(persona: Persona | None) -> frozenset[str]:
    """Names under which the conversations that a user excluded may be stored: nothing may be learned from them.

    Where two users share a thread's name, the recorder stores the second one's as ``thread@user``.
    """
    if persona is None:
        return frozenset()
    return frozenset(name for each in persona.excluded for name in (each, f"{each}@{persona.user_id}"))


def numbered(persona: Persona, number: int) -> PersonaStatement:
    """The statement of that number.

    Raises:
        ConfigError: there is none.
    """
    known = (*persona.statements, *persona.reserve)
    if not 1 <= number <= len(known):
        has = f"statements 1 to {len(known)}" if known else "no statement"
        raise ConfigError(f"there is no statement {number}; this persona has {has}. See: rlhi persona show")
    return known[number - 1]


def _without(statements: tuple[PersonaStatement, ...], conversation_id: str) -> tuple[PersonaStatement, ...]:
    left = []
    for statement in statements:
        evidence = tuple(cited for cited in statement.evidence if cited.conversation_id != conversation_id)
        if len(evidence) == len(statement.evidence) or statement.locked:
            left.append(statement)
        elif evidence:
            quoted = statement.text == statement.evidence[0].quote
            text = evidence[0].quote if quoted else statement.text
            left.append(statement.model_copy(update={"text": text, "evidence": evidence}))
    return tuple(left)


def _replace(persona: Persona, before: PersonaStatement, after: PersonaStatement | None) -> Persona:
    def replaced(statements: tuple[PersonaStatement, ...]) -> tuple[PersonaStatement, ...]:
        new = (after if s is before else s for s in statements)
        return tuple(s for s in new if s is not None)

    return persona.model_copy(
        update={
            "statements": replaced(persona.statements),
            "reserve": replaced(persona.reserve),
            "version": persona.version + 1,
        }
    )
