"""`rlhi`: what is in the store, in and out of it, and the personas that are built from it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rlhi_plugin.errors import ConfigError, OwnerMismatchError, RecordError
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.logs import read_conversations, write_conversations
from rlhi_plugin.persona import ExtractivePersonaBuilder, LLMPersonaBuilder, PersonaBuilder
from rlhi_plugin.persona.cli import persona_control_app
from rlhi_plugin.persona.job import build_personas
from rlhi_plugin.records import Conversation
from rlhi_plugin.stores import open_store
from rlhi_plugin.stores.db_cli import db_app
from rlhi_plugin.terminal import progress, run, stderr, stdout, table

app = typer.Typer(
    help="The live half of RLHI: the conversation store and the personas built from it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
persona_app = typer.Typer(help="Build, show and correct personas.", no_args_is_help=True, rich_markup_mode="markdown")
persona_app.registered_commands.extend(persona_control_app.registered_commands)
app.add_typer(persona_app, name="persona")
app.add_typer(db_app, name="db")

MALFORMED_SHOWN = 20
"""Lines of a file that are named one by one when they cannot be used."""

Store = Annotated[str, typer.Option(help="URL of the store, such as sqlite:///rlhi.db", show_default=False)]
User = Annotated[str | None, typer.Option(help="One user: the app's own id, or a pseudonym. All of them without it.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Log what happens in detail.")]


class Builder(StrEnum):
    """How personas are written."""

    EXTRACTIVE = "extractive"
    LLM = "llm"


@app.command("export")
def export(
    store: Store,
    out: Annotated[Path, typer.Option(help="File to write, .jsonl or .jsonl.gz.", show_default=False)],
    verbose: Verbose = False,
) -> None:
    """Write the store's conversations to a file, one JSON object a line.

    Example: `rlhi export --store sqlite:///rlhi.db --out logs.jsonl`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    with open_store(store, create=False) as opened:
        total = opened.counts().conversations
        with progress(f"Exporting to {out}", total) as advance:

            def counted() -> Iterator[Conversation]:
                for conversation in opened.conversations():
                    yield conversation
                    advance(1)

            written = write_conversations(out, counted())
    stdout.print(f"{written} conversation(s) written to {out}", markup=False, highlight=False)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="An RLHI export or WildChat rows, .jsonl or .jsonl.gz.")],
    store: Store,
    verbose: Verbose = False,
) -> None:
    """Add the conversations of a file to the store. What it already holds is not added twice.

    A line that cannot be used is named and passed over. Example: `rlhi import logs.jsonl --store sqlite:///rlhi.db`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    conversations = messages = 0
    refused: list[str] = []
    with open_store(store) as opened:
        for record in read_conversations(file):
            if isinstance(record, RecordError):
                refused.append(str(record))
                continue
            try:
                messages += opened.add(record)
                conversations += 1
            except OwnerMismatchError as error:
                refused.append(f"{file}: {error}")
    for line in refused[:MALFORMED_SHOWN]:
        stderr.print(f"passed over: {line}", style="yellow", markup=False, highlight=False)
    if len(refused) > MALFORMED_SHOWN:
        stderr.print(f"passed over: {len(refused) - MALFORMED_SHOWN} more", style="yellow")
    stdout.print(
        f"{conversations} conversation(s) read, {messages} new message(s) stored, {len(refused)} line(s) passed over",
        markup=False,
        highlight=False,
    )
    if refused and not conversations:
        raise ConfigError(f"no line of {file} could be used. Give an RLHI export or WildChat rows.")


@persona_app.command("build")
def persona_build(
    *,
    store: Store,
    user: User = None,
    labeller: Annotated[
        str, typer.Option(help="What labels follow-ups: embedded, llm, or an installed one.")
    ] = "embedded",
    builder: Annotated[Builder, typer.Option(help="What writes personas.")] = Builder.EXTRACTIVE,
    llm: Annotated[str | None, typer.Option(help="Model for either, as LiteLLM writes it.", show_default=False)] = None,
    verbose: Verbose = False,
) -> None:
    """Label what users said, build their personas, and store them.

    Example: `rlhi persona build --store sqlite:///rlhi.db`

    With a model: `rlhi persona build --store sqlite:///rlhi.db --labeller llm --builder llm --llm openai/gpt-4o`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    from rlhi_plugin.labelling import load_labeller

    if llm is not None and labeller != "llm" and builder is not Builder.LLM:
        raise ConfigError(f"nothing asks the model {llm!r}. Add --labeller llm, --builder llm, or both.")
    with open_store(store, create=False) as opened:
        users = opened.user_ids() if user is None else [_known_user(opened.user_ids(), user)]
        writer = _builder(builder, llm)
        reader = load_labeller(labeller, llm=llm if labeller == "llm" else None)
        with progress("Building personas", len(users)) as advance:
            built = asyncio.run(build_personas(opened, users, labeller=reader, builder=writer, advance=advance))
    with_statements = sum(1 for persona in built if persona.statements)
    stdout.print(
        f"{len(built)} persona(s) built, {with_statements} of them with statements", markup=False, highlight=False
    )


@app.command("status")
def status(store: Store, verbose: Verbose = False) -> None:
    """Count what the store holds.

    Example: `rlhi status --store sqlite:///rlhi.db`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    with open_store(store, create=False) as opened:
        counts = opened.counts()
    rows = (
        ("users", counts.users),
        ("conversations", counts.conversations),
        ("of them anonymous", counts.anonymous),
        ("messages", counts.messages),
        ("user turns", counts.user_turns),
        ("of them follow-ups", counts.follow_ups),
        ("users with a persona", counts.personas),
        ("feedback events", counts.feedback),
    )
    stdout.print(table(store, ("", "count"), rows))


@app.command("doctor")
def doctor(verbose: Verbose = False) -> None:
    """Say what is installed, and where the identity key and the cache are. Changes nothing.

    Example: `rlhi doctor`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    from rlhi_plugin.doctor import findings

    for what, found in findings():
        stdout.print(f"{what:<14}{found}", markup=False, highlight=False)


def _known_user(known: list[str], user: str) -> str:
    if user in known:
        return user
    user_id = pseudonym(user)
    if user_id not in known:
        raise ConfigError(f"the store holds no conversation of user {user!r}. See who is there: rlhi persona show")
    return user_id


def _builder(builder: Builder, llm: str | None) -> PersonaBuilder:
    if builder is Builder.EXTRACTIVE:
        return ExtractivePersonaBuilder()
    if llm is None:
        raise ConfigError("--builder llm needs a model. Name one, as LiteLLM writes it: --llm openai/gpt-4o")
    from rlhi_plugin.litellm_client import LiteLLMClient

    return LLMPersonaBuilder(LiteLLMClient(llm))


def main() -> None:
    """Entry point of the command line."""
    run(app, "rlhi")
