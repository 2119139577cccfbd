"""`rlhi persona show|edit|lock|remove`: the user's persona in the hands of whoever runs the app for them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.persona.changes import edit_stored
from rlhi_plugin.persona.edits import PersonaEdit
from rlhi_plugin.persona.memory import EDIT, strength
from rlhi_plugin.persona.render import render_persona
from rlhi_plugin.privacy.messages import MessageRedactor
from rlhi_plugin.privacy.patterns import PatternFinder
from rlhi_plugin.privacy.redaction import SpanRedactor
from rlhi_plugin.records import Persona, PersonaStatement
from rlhi_plugin.stores import PersonaStore, open_store
from rlhi_plugin.terminal import stdout

persona_control_app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
"""Mounted without a name into the app that holds ``rlhi persona build``."""

Store = Annotated[str, typer.Option(help="URL of the store, such as sqlite:///rlhi.db", show_default=False)]
User = Annotated[str, typer.Option(help="The user: the app's own id, or a pseudonym.", show_default=False)]
Anyone = Annotated[str | None, typer.Option(help="One user: the app's own id, or a pseudonym. Default: all.")]
Wording = Annotated[str, typer.Argument(help="What the statement says from now on: one line.")]
Number = Annotated[int, typer.Argument(min=1, help="Number of the statement, as `rlhi persona show` counts.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Log what happens in detail.")]


@persona_control_app.command("show")
def persona_show(store: Store, user: Anyone = None, verbose: Verbose = False) -> None:
    """Show personas as the model sees them, and for each statement its type, its age and the user's words behind it.

    Example: `rlhi persona show --store sqlite:///rlhi.db --user u42`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    with open_store(store, create=False) as opened:
        known = opened.user_ids()
        for user_id in known if user is None else [_find(opened, known, user)]:
            stdout.print(f"\n{user_id}", style="bold", markup=False, highlight=False)
            persona = opened.get_persona(user_id)
            if persona is None:
                stdout.print("no persona yet; build it with: rlhi persona build")
                continue
            for line in describe(persona):
                stdout.print(line, markup=False, highlight=False)


@persona_control_app.command("edit")
def persona_edit(number: Number, text: Wording, store: Store, user: User, verbose: Verbose = False) -> None:
    """Give a statement another wording. What it said before does not come back.

    Example: `rlhi persona edit 2 "At most three sentences." --store sqlite:///rlhi.db --user u42`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    _apply(store, user, PersonaEdit(action="edit", number=number, text=text))


@persona_control_app.command("lock")
def persona_lock(
    number: Number,
    store: Store,
    user: User,
    off: Annotated[bool, typer.Option("--off", help="Unlock it instead.")] = False,
    verbose: Verbose = False,
) -> None:
    """Fix a statement: it does not fade, and nothing that the user says later changes it.

    Example: `rlhi persona lock 1 --store sqlite:///rlhi.db --user u42`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    _apply(store, user, PersonaEdit(action="unlock" if off else "lock", number=number))


@persona_control_app.command("remove")
def persona_remove(number: Number, store: Store, user: User, verbose: Verbose = False) -> None:
    """Remove a statement for good: it does not come back from the same or similar words.

    Example: `rlhi persona remove 3 --store sqlite:///rlhi.db --user u42`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    _apply(store, user, PersonaEdit(action="remove", number=number))


def describe(persona: Persona, at: datetime | None = None) -> list[str]:
    """A persona in lines: as the model sees it, then each statement with its evidence, then what is held back.

    Args:
        persona: Whose statements are numbered as the edits count them.
        at: When it is looked at; now, unless given. Strengths are of that time.
    """
    moment = at or datetime.now(UTC)
    lines = [render_persona(persona) or "nothing known", f"version {persona.version}, built by {persona.builder}"]
    for number, statement in enumerate((*persona.statements, *persona.reserve), start=1):
        lines.append(_headline(number, statement, moment, held=number > len(persona.statements)))
        for cited in statement.evidence:
            place = (
                "written by the user"
                if cited.conversation_id == EDIT
                else f"{cited.conversation_id} {cited.message_id}"
            )
            lines.append(f"      {place}: {cited.quote}")
    if persona.removed:
        lines.append(f"  {len(persona.removed)} statement(s) removed by the user, kept out")
    if persona.excluded:
        lines.append(f"  {len(persona.excluded)} conversation(s) that nothing is learned from")
    return lines


def _headline(number: int, statement: PersonaStatement, at: datetime, *, held: bool) -> str:
    seen = [time.strftime("%Y-%m-%d") for time in (statement.first_seen, statement.last_seen) if time is not None]
    parts = [
        statement.type.value,
        f"confidence {statement.confidence:.2f}",
        f"now {strength(statement, at):.2f}",
        *([f"seen {' to '.join(dict.fromkeys(seen))}"] if seen else []),
        *(["locked"] if statement.locked else []),
        *(["held in reserve"] if held else []),
    ]
    return f"  [{number}] {', '.join(parts)}: {statement.text}"


def _apply(store: str, user: str, edit: PersonaEdit) -> None:
    with open_store(store, create=False) as opened:
        user_id = _find(opened, opened.user_ids(), user)
        after = edit_stored(opened, user_id, edit, MessageRedactor(SpanRedactor(PatternFinder())))
    for line in describe(after):
        stdout.print(line, markup=False, highlight=False)


def _find(store: PersonaStore, known: list[str], user: str) -> str:
    """The pseudonym of a user who has a conversation or a persona."""
    if user in known or (user.startswith("u_") and store.get_persona(user) is not None):
        return user
    user_id = pseudonym(user)
    if user_id not in known and store.get_persona(user_id) is None:
        raise ConfigError(
            f"the store holds no conversation of user {user!r}, and no persona. See who is there: rlhi persona show"
        )
    return user_id
