"""`rlhi consent`, `rlhi forget` and `rlhi retention`, for the `rlhi` command line to take in with `add_to`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from rlhi_plugin.durability.location import journal_folders
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.privacy.consent import ConsentCache
from rlhi_plugin.privacy.forgetting import Forgetting, Places, forget_user, is_known
from rlhi_plugin.privacy.policy import ConsentPolicy
from rlhi_plugin.privacy.protocols import PrivacyStore
from rlhi_plugin.privacy.retention import Retention, apply_retention
from rlhi_plugin.privacy.traces import default_registry
from rlhi_plugin.records import Purpose
from rlhi_plugin.stores import open_store
from rlhi_plugin.terminal import stdout, table

consent_app = typer.Typer(
    help="Who allows what: log, personalise, train.\n\nExample: `rlhi consent show u42 --store sqlite:///rlhi.db`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
retention_app = typer.Typer(
    help="How long things are kept.\n\nExample: `rlhi retention apply --store sqlite:///rlhi.db --days 365`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

User = Annotated[str, typer.Argument(help="The app's own id, or a pseudonym.", show_default=False)]
Store = Annotated[str, typer.Option(help="URL of the store, such as sqlite:///rlhi.db", show_default=False)]
For = Annotated[Purpose, typer.Option(help="What the words may be used for.", show_default=False)]
Verbose = Annotated[bool, typer.Option("--verbose", help="Log what happens in detail.")]

_PSEUDONYM = re.compile(r"u_[0-9a-f]{32}")


def add_to(app: typer.Typer) -> None:
    """Take the commands into a command line."""
    app.add_typer(consent_app, name="consent")
    app.add_typer(retention_app, name="retention")
    app.command("forget")(forget)


@consent_app.command("show")
def consent_show(user: User, store: Store, verbose: Verbose = False) -> None:
    """Show what a user decided, and when.

    Example: `rlhi consent show u42 --store sqlite:///rlhi.db`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    user_id = user_id_of(user)
    with _opened(store) as opened:
        decisions = opened.consents(user_id)
    rows = []
    for purpose in Purpose:
        decision = decisions.get(purpose)
        answer = "as the app's policy says" if decision is None else _answer(decision.granted)
        rows.append((purpose, answer, "" if decision is None else decision.decided_at.isoformat(timespec="seconds")))
    stdout.print(table(user_id, ("purpose", "allowed", "decided at"), rows))


@consent_app.command("grant")
def consent_grant(user: User, purpose: For, store: Store, verbose: Verbose = False) -> None:
    """Allow one purpose.

    Example: `rlhi consent grant u42 --purpose train --store sqlite:///rlhi.db`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    _decide(user, purpose, store, granted=True)


@consent_app.command("withdraw")
def consent_withdraw(user: User, purpose: For, store: Store, verbose: Verbose = False) -> None:
    """No longer allow one purpose. What is stored stays; to delete it: rlhi forget.

    Example: `rlhi consent withdraw u42 --purpose train --store sqlite:///rlhi.db`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    _decide(user, purpose, store, granted=False)


@retention_app.command("apply")
def retention_apply(
    store: Store,
    days: Annotated[int, typer.Option(help="Delete what is older than so many days, of everybody.", min=1)],
    days_without_train: Annotated[
        int | None,
        typer.Option(help="The same for users who do not allow train; at most --days. Default: --days.", min=1),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Delete messages, feedback and replaced personas that were kept long enough. Run it daily.

    The persona of a user of whom no message is left goes with them.

    Example: `rlhi retention apply --store sqlite:///rlhi.db --days 365`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    shorter = {} if days_without_train is None else {Purpose.TRAIN: days_without_train}
    retention = Retention(days=days, days_without=shorter)
    with _opened(store) as opened:
        allows = ConsentCache(opened).allows if shorter else None
        deleted = apply_retention(opened, retention, allows=allows)
    stdout.print(f"{deleted} message(s) deleted", markup=False, highlight=False)


def forget(
    user: User,
    *,
    store: Store,
    runs: Annotated[
        list[Path] | None,
        typer.Option(help="Folder with training runs to search. Repeatable. Default: runs, where there is one."),
    ] = None,
    registry: Annotated[
        Path | None,
        typer.Option(help="Adapter registry to search. Default: RLHI_REGISTRY, else in the user's data folder."),
    ] = None,
    journal: Annotated[
        list[Path] | None, typer.Option(help="Folder with journals, besides the store's own. Repeatable.")
    ] = None,
    log: Annotated[list[Path] | None, typer.Option(help="Exported log to erase them from. Repeatable.")] = None,
    vault: Annotated[
        list[Path] | None, typer.Option(help="File of the app's vault to erase them from. Repeatable.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also a user of whom nothing is stored.")] = False,
    verbose: Verbose = False,
) -> None:
    """Delete everything of a user, and keep it from coming back. Names the runs and adapters that learned from it.

    Example: `rlhi forget u42 --store sqlite:///rlhi.db --runs runs`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    user_id = user_id_of(user)
    places = Places(
        journals=[*_own_journal(store), *(journal or ())],
        logs=log or (),
        vaults=vault or (),
        runs=runs if runs is not None else [path for path in (Path("runs"),) if path.is_dir()],
        registry=registry or default_registry(),
    )
    with _opened(store) as opened:
        if not force and not is_known(opened, user_id) and not opened.consents(user_id):
            raise ConfigError(
                f"the store holds nothing of user {user!r}. Check the id and the key (RLHI_KEY), or leave a tombstone "
                "all the same with --force."
            )
        if not yes and not typer.confirm(f"Delete everything of {user_id}? This cannot be undone."):
            stdout.print("nothing was deleted")
            return
        result = forget_user(opened, user_id, places)
    _report(result, places)


def _own_journal(store: str) -> list[Path]:
    """The folders in which an app with this store keeps turns that the store did not take, where there are any."""
    return [folder for folder in journal_folders(store) if folder.is_dir()]


def user_id_of(user: str) -> str:
    """The pseudonym that an argument means: itself if it is one, else that of the app's own id.

    Raises:
        ConfigError: it is empty, or the identity key is unusable.
    """
    return user if _PSEUDONYM.fullmatch(user) else pseudonym(user)


def _decide(user: str, purpose: Purpose, store: str, *, granted: bool) -> None:
    user_id = user_id_of(user)
    with _opened(store) as opened:
        ConsentCache(opened, ConsentPolicy(), quiet=True).decide(user_id, purpose, granted=granted)
    line = f"{user_id}: {purpose} is {'allowed' if granted else 'no longer allowed'}"
    stdout.print(line, markup=False, highlight=False)


def _answer(granted: bool) -> str:
    return "yes" if granted else "no"


def _report(result: Forgetting, places: Places) -> None:
    def say(line: str) -> None:
        stdout.print(line, markup=False, highlight=False)

    deleted = ", ".join(f"{count} {what}" for what, count in result.deleted.items()) or "nothing else to count"
    say(f"{result.user_id} is forgotten: {deleted}")
    if result.refused:
        say(f"they had refused {', '.join(result.refused)}: that stays")
    if not result.erased:
        say("deleted rows may still be in the database's files: close what uses it, and forget again with --force")
    for run in result.runs:
        files = ", ".join(f"{name} ({count})" for name, count in run.lines.items())
        say(f"run {run.path} still holds lines of theirs: {files}. Delete it.")
    for adapter in result.adapters:
        remedy = (
            "is retired; delete its files"
            if adapter.stage == "retired"
            else (f"retire it (rlhi-adapters retire {adapter.adapter_id} --reason ...) and train again")
        )
        say(f"adapter {adapter.adapter_id} ({adapter.stage}): {adapter.why}; {remedy}. Files: {adapter.path}")
    searched = ", ".join(str(path) for path in places.runs) or "no folder (name one with --runs)"
    say(f"searched for runs: {searched}; for adapters: {places.registry}")
    vault = "" if places.vaults else "a vault of the app (name it with --vault), "
    say(f"not reached: {vault}a persona_store= of its own (it calls `forget_user`), backups, copies of exported logs,")
    say("and what other processes hold in memory for up to a minute")


@contextmanager
def _opened(url: str) -> Iterator[PrivacyStore]:
    with open_store(url, create=False) as store:
        if not isinstance(store, PrivacyStore):
            raise ConfigError("this store keeps no consent and cannot forget. Upgrade it with: rlhi db upgrade")
        yield store
