"""What the commands in the chat do: a reply without a model call, and what the app has to do besides.

`respond` is pure; `CommandHandler` reads and writes the persona around it. Whoever serves the chat calls the handler
before the model, and gives the reply in the model's place (`rlhi_plugin.persona.command_messages`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rlhi_plugin.persona import phrases
from rlhi_plugin.persona.changes import change_persona
from rlhi_plugin.persona.edits import exclude_conversation, remove_statement
from rlhi_plugin.persona.memory import EDIT, recency
from rlhi_plugin.persona.phrases import Command, read_command
from rlhi_plugin.records import Persona, PersonaStatement
from rlhi_plugin.stores import PersonaStore

_log = logging.getLogger("rlhi.persona")


@dataclass(frozen=True, slots=True)
class PersonaChanged:
    """The user changed their persona: let caches read it anew (`PersonaCache.drop`)."""

    user_id: str


@dataclass(frozen=True, slots=True)
class ConversationExcluded:
    """Nothing may be learned from this conversation any more.

    The persona has already been told. What is left to the app: store it where training finds it.

    Attributes:
        conversation_id: Which.
        user_id: Whose; None for an anonymous one.
        decided_at: When.
    """

    conversation_id: str
    user_id: str | None
    decided_at: datetime


Effect = PersonaChanged | ConversationExcluded


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command came to.

    Attributes:
        reply: For the user; begins or ends with a sentence of `rlhi_plugin.persona.phrases`.
        effects: For the app, in order.
    """

    reply: str
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where and when a command was given.

    Attributes:
        conversation_id: The thread.
        used: The statements that are in this thread's prompt (`RenderedPersona.statements`).
        at: The time.
    """

    conversation_id: str
    used: Sequence[PersonaStatement]
    at: datetime


class CommandHandler:
    """Answers commands. Thread-safe; never raises.

    Args:
        store: Where personas are.
        now: The clock.
    """

    def __init__(self, store: PersonaStore, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store = store
        self._now = now

    def handle(
        self, text: str, *, user_id: str | None, conversation_id: str, used: Sequence[PersonaStatement] = ()
    ) -> CommandResult | None:
        """Carry out a command.

        Args:
            text: The user's whole message.
            user_id: Pseudonym; None for an anonymous user, of whom nothing is kept.
            conversation_id: The thread.
            used: The statements that are in this thread's prompt, for ``/why``.

        Returns:
            The reply and its effects, or None where `text` is no command and the model should answer.
        """
        command = read_command(text)
        if command is None:
            return None
        place = Place(conversation_id, used, self._now())
        if user_id is None:
            return _anonymous(command, place)
        results: list[CommandResult] = []

        def change(persona: Persona) -> Persona:
            after, result = respond(command, persona, place)
            results.append(result)
            return after

        try:
            change_persona(self._store, user_id, change)
        except Exception:  # noqa: BLE001 - any store may raise anything; the user is told that nothing was done
            _log.exception("the command /%s of %s could not be carried out", command.name, user_id)
            # Leaving a conversation out does not depend on the persona: the app can still note it.
            kept = results[-1].effects if results else ()
            return CommandResult(phrases.FAILED, tuple(e for e in kept if isinstance(e, ConversationExcluded)))
        return results[-1]


def respond(command: Command, persona: Persona, place: Place) -> tuple[Persona, CommandResult]:
    """The persona after a command, `persona` itself where that changes nothing, and the result. Pure."""
    match command.name:
        case "what-do-you-know":
            return persona, CommandResult(_known(persona))
        case "why":
            return persona, CommandResult(_why(place.used, command.number))
        case "forget":
            return _forget(persona, command.number, place)
        case "do-not-learn":
            after = exclude_conversation(persona, place.conversation_id)
            excluded = ConversationExcluded(place.conversation_id, persona.user_id, place.at)
            return after, CommandResult(phrases.NOT_LEARNING, (PersonaChanged(persona.user_id), excluded))


def _anonymous(command: Command, place: Place) -> CommandResult:
    if command.name == "do-not-learn":
        return CommandResult(phrases.NOT_LEARNING, (ConversationExcluded(place.conversation_id, None, place.at),))
    return CommandResult(phrases.UNKNOWN_USER)


def _known(persona: Persona) -> str:
    known = (*persona.statements, *persona.reserve)
    if not known:
        return phrases.NOTHING_KNOWN
    lines = [f"{number}. {_described(statement)}" for number, statement in enumerate(known, start=1)]
    # After an empty line, or Markdown would take it for part of the last item.
    return "\n".join([phrases.KNOWN_HEAD, *lines, "", phrases.KNOWN_TAIL])


def _why(used: Sequence[PersonaStatement], number: int | None) -> str:
    if not used:
        return phrases.NOTHING_USED
    if number is not None and not 1 <= number <= len(used):
        return phrases.WHICH
    chosen = list(enumerate(used, start=1)) if number is None else [(number, used[number - 1])]
    lines = [f"{place}. {statement.text}{_because(statement)}" for place, statement in chosen]
    return "\n".join([phrases.WHY_HEAD, *lines])


def _forget(persona: Persona, number: int | None, place: Place) -> tuple[Persona, CommandResult]:
    known = (*persona.statements, *persona.reserve)
    if number is None:
        number = _meant_by_that(known, place.conversation_id)
    if number is None or not 1 <= number <= len(known):
        return persona, CommandResult(phrases.WHICH if known else phrases.NOTHING_KNOWN)
    statement = known[number - 1]
    if statement.locked:
        return persona, CommandResult(f"{phrases.LOCKED}\n{statement.text}")
    after = remove_statement(persona, number, place.at)
    return after, CommandResult(f"{phrases.FORGOTTEN}\n{statement.text}", (PersonaChanged(persona.user_id),))


def _meant_by_that(known: Sequence[PersonaStatement], conversation_id: str) -> int | None:
    """The newest statement from this very conversation, else the only one there is; any other guess could be wrong."""
    here = [
        number
        for number, statement in enumerate(known, start=1)
        if any(cited.conversation_id == conversation_id for cited in statement.evidence)
    ]
    if here:
        return max(here, key=lambda number: recency(known[number - 1]))
    return 1 if len(known) == 1 else None


def _described(statement: PersonaStatement) -> str:
    return f"{statement.text}{' (locked)' if statement.locked else ''}{_because(statement)}"


def _because(statement: PersonaStatement) -> str:
    newest = statement.evidence[0]
    when = f", {newest.said_at:%Y-%m-%d}" if newest.said_at is not None else ""
    if newest.conversation_id == EDIT:
        return f" (you wrote this yourself{when})"
    if newest.quote == statement.text:
        return f" (your words{when})"
    return f' (you said: "{newest.quote}"{when})'
