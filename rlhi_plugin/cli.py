"""`rlhi`: what is in the store, in and out of it, and the personas that are built from it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rlhi_plugin.durability.commands import journal_app, withheld_line
from rlhi_plugin.durability.folders import read_folder
from rlhi_plugin.durability.location import journal_folders
from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.export_job import export_store
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.importers.import_job import ImportOptions, import_log
from rlhi_plugin.importers.reading import FORMATS
from rlhi_plugin.persona import ExtractivePersonaBuilder, LLMPersonaBuilder, PersonaBuilder
from rlhi_plugin.persona.cli import persona_control_app
from rlhi_plugin.persona.job import build_personas
from rlhi_plugin.privacy.commands import add_to as add_privacy_commands
from rlhi_plugin.privacy.consent import ConsentCache
from rlhi_plugin.privacy.messages import open_redactor
from rlhi_plugin.privacy.redaction import KINDS
from rlhi_plugin.records import Persona, Purpose
from rlhi_plugin.stores import display_url, open_store
from rlhi_plugin.stores.db_cli import db_app
from rlhi_plugin.terminal import progress, run, stderr, stdout, table

app = typer.Typer(
    help="The live half of RLHI: the conversation store and the personas built from it.\n\n"
    "Example: `rlhi status --store sqlite:///rlhi.db`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
persona_app = typer.Typer(
    help="Build, show and correct personas.\n\nExample: `rlhi persona build --store sqlite:///rlhi.db`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
persona_app.registered_commands.extend(persona_control_app.registered_commands)
app.add_typer(persona_app, name="persona")
app.add_typer(db_app, name="db")
app.add_typer(journal_app, name="journal")
add_privacy_commands(app)

Store = Annotated[str, typer.Option(help="URL of the store, such as sqlite:///rlhi.db", show_default=False)]
User = Annotated[str | None, typer.Option(help="One user: the app's own id, or a pseudonym. Default: all.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Log what happens in detail.")]


class Builder(StrEnum):
    """How personas are written."""

    EXTRACTIVE = "extractive"
    LLM = "llm"


@app.command("export")
def export(
    store: Store,
    out: Annotated[Path, typer.Option(help="File to write: .jsonl, .jsonl.gz or .parquet.", show_default=False)],
    purpose: Annotated[
        Purpose | None, typer.Option(help="Leave out users who do not allow this. Default: leave out nobody for it.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Write the store's conversations to a file, one a line; with them who was forgotten.

    Conversations whose users want nothing to be learned from them stay out, and are named in it.

    Example: `rlhi export --store sqlite:///rlhi.db --out logs.jsonl --purpose train`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    with (
        open_store(store, create=False) as opened,
        progress(f"Exporting to {out}", opened.counts().conversations) as advance,
    ):
        done = export_store(opened, out, purpose, advance=advance)
    _say(f"{done.written} conversation(s) written to {out}")
    if done.refused:
        _say(f"{done.refused} left out: their users do not allow {purpose}")
    if done.excluded:
        _say(f"{done.excluded} left out: their users want nothing to be learned from them")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A log: .jsonl, .json, .csv (also .gz), .parquet, .zip, or a folder.")],
    *,
    store: Store,
    log_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help=f"The log's format: {', '.join(known.name for known in FORMATS)}. Default: told by its fields.",
        ),
    ] = None,
    refused: Annotated[
        Path | None,
        typer.Option(help="File for the rows that cannot be used, with reasons. Default: they are only named."),
    ] = None,
    redact: Annotated[
        str,
        typer.Option(
            help="What is taken out before storing: default (all kinds but url), off, or kinds with commas between: "
            f"{', '.join(KINDS)}."
        ),
    ] = "default",
    verbose: Verbose = False,
) -> None:
    """Add the conversations of a log to the store. What it already holds is not added twice.

    Secrets and personal data are taken out first. Users who allow no log, or were forgotten, are left out. A line that
    cannot be used is named and passed over.

    Example: `rlhi import logs.jsonl --store sqlite:///rlhi.db`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    kinds: Iterable[str] = [kind.strip() for kind in redact.split(",")]
    # First of all: a wrong name must not leave an empty store behind.
    redactor = open_redactor(redact if redact == "default" else kinds) if redact != "off" else None
    with open_store(store) as opened:
        options = ImportOptions(
            log_format=log_format, refused=refused, keep_feedback=opened.record_feedback, redact=redactor or "off"
        )
        counts = import_log(file, opened, options)
    for line in counts.named:
        stderr.print(f"passed over: {line}", style="yellow", markup=False, highlight=False)
    if counts.refused > len(counts.named):
        stderr.print(f"passed over: {counts.refused - len(counts.named)} more", style="yellow")
    for line in counts.lines():
        _say(line)


@persona_app.command("build")
def persona_build(
    *,
    store: Store,
    user: User = None,
    labeller: Annotated[
        str, typer.Option(help="What labels follow-ups: embedded (needs rlhi[train]), llm, or another package's.")
    ] = "embedded",
    builder: Annotated[
        Builder, typer.Option(help="What writes personas: extractive quotes the user, llm asks --llm.")
    ] = Builder.EXTRACTIVE,
    llm: Annotated[str | None, typer.Option(help="Model of --labeller llm and --builder llm: openai/gpt-4o.")] = None,
    verbose: Verbose = False,
) -> None:
    """Label what users said, build their personas, and store them.

    Users who do not allow to be personalised are passed over, and conversations not read that they excluded.

    Example: `rlhi persona build --store sqlite:///rlhi.db`

    With a model: `rlhi persona build --store sqlite:///rlhi.db --labeller llm --builder llm --llm openai/gpt-4o`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    from rlhi_plugin.labelling import load_labeller

    if llm is not None and labeller != "llm" and builder is not Builder.LLM:
        raise ConfigError(f"nothing asks the model {llm!r}. Add --labeller llm, --builder llm, or both.")
    with open_store(store, create=False) as opened:
        users = opened.user_ids() if user is None else [_known_user(opened.user_ids(), user)]
        # A model may take hours: who withdraws meanwhile is asked for again at each use.
        consent, everybody = ConsentCache(opened, quiet=True, max_age_s=0), len(users)

        def allows(user_id: str) -> bool:
            return consent.allows(user_id, Purpose.PERSONALISE)

        users = [user_id for user_id in users if allows(user_id)]
        excluded: list[int] = []
        built: list[Persona] = []
        if users:
            writer = _builder(builder, llm)
            reader = load_labeller(labeller, llm=llm if labeller == "llm" else None)
            with progress("Building personas", len(users)) as advance:
                build = build_personas(
                    opened,
                    users,
                    labeller=reader,
                    builder=writer,
                    advance=advance,
                    left_out=excluded.append,
                    allows=allows,
                )
                built = asyncio.run(build)
    with_statements = sum(1 for persona in built if persona.statements)
    _say(f"{len(built)} persona(s) built, {with_statements} of them with statements")
    if everybody > len(built):
        _say(f"{everybody - len(built)} user(s) passed over: they do not allow personalise")
    if sum(excluded):
        _say(f"{sum(excluded)} conversation(s) not read: their users want nothing to be learned from them")


@app.command("status")
def status(
    store: Store,
    journal: Annotated[
        Path | None, typer.Option(help="Folder of the journal. Default: where the middleware puts it.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Count what the store holds, and what waits for it in the journal, also while the store is down.

    Example: `rlhi status --store sqlite:///rlhi.db`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    try:
        with open_store(store, create=False) as opened:
            counts = opened.counts()
    except (StoreError, ConfigError):
        # Why it is down, or not there, is said last, and how to mend that.
        with suppress(ValueError):  # a URL that is none names no journal
            _say_what_waits(store, journal)
        raise
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
    stdout.print(table(display_url(store), ("", "count"), rows))
    _say_what_waits(store, journal)


def _say_what_waits(store: str, journal: Path | None) -> None:
    for found in map(read_folder, journal_folders(store) if journal is None else [journal]):
        if found.waiting or found.set_aside:
            _say(f"{found.waiting} turn(s) wait in {found.folder}, {found.set_aside} were set aside.")
            _say("See: rlhi journal status")
        if found.withheld:
            _say(withheld_line(found))


@app.command("doctor")
def doctor(verbose: Verbose = False) -> None:
    """Say what is installed, and where the identity key and the cache are. Changes nothing.

    Example: `rlhi doctor`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    from rlhi_plugin.doctor import findings

    found = dict(findings())
    width = max(map(len, found)) + 2
    for what, is_there in found.items():
        stdout.print(f"{what:<{width}}{is_there}", markup=False, highlight=False)


def _known_user(known: list[str], user: str) -> str:
    if user in known:
        return user
    user_id = pseudonym(user)
    if user_id not in known:
        raise ConfigError(f"the store holds no conversation of user {user!r}. See who is there: rlhi persona show")
    return user_id


def _say(line: str) -> None:
    stdout.print(line, markup=False, highlight=False)


def _builder(builder: Builder, llm: str | None) -> PersonaBuilder:
    if builder is Builder.EXTRACTIVE:
        return ExtractivePersonaBuilder()
    if llm is None:
        raise ConfigError("--builder llm needs a model. Name one, as LiteLLM writes it: --llm openai/gpt-4o")
    from rlhi_plugin.calls.opening import open_hosted
    from rlhi_plugin.calls.stack import equip

    return LLMPersonaBuilder(equip(open_hosted(llm)))


def main() -> None:
    """Entry point of the command line."""
    run(app, "rlhi")
