"""`rlhi db`: which schema a store has, and bringing it up to date."""

from __future__ import annotations

from typing import Annotated

import typer

from rlhi_plugin.stores.address import display_url
from rlhi_plugin.stores.schema import STORE_SCHEMA
from rlhi_plugin.terminal import stdout

db_app = typer.Typer(
    help="The tables of a store.\n\nExample: `rlhi db current --store sqlite:///rlhi.db`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Store = Annotated[str, typer.Option(help="URL of the store, such as sqlite:///rlhi.db", show_default=False)]
Verbose = Annotated[bool, typer.Option("--verbose", help="Log what happens in detail.")]


@db_app.command("current")
def current(store: Store, verbose: Verbose = False) -> None:
    """Say which schema the store has, and which one this program needs. Changes nothing.

    Example: `rlhi db current --store sqlite:///rlhi.db`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    from rlhi_plugin.stores.upgrading import current_schema

    found = current_schema(store)
    _say(f"{display_url(store)} has schema {found}; this program needs {STORE_SCHEMA}")


@db_app.command("upgrade")
def upgrade(
    store: Store,
    yes: Annotated[
        bool, typer.Option("--yes", help="For a store on a server: say that there is a backup of it.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Bring the tables up to date. An SQLite file is copied first, beside itself.

    Example: `rlhi db upgrade --store sqlite:///rlhi.db`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    from rlhi_plugin.stores.upgrading import upgrade_store

    done = upgrade_store(store, backed_up=yes)
    if done.backup is not None:
        _say(f"copied to {done.backup}")
    if done.before == done.after:
        _say(f"{display_url(store)} has schema {done.after} already; nothing to do")
    else:
        _say(f"{display_url(store)} upgraded from schema {done.before} to {done.after}")


def _say(line: str) -> None:
    stdout.print(line, markup=False, highlight=False)
