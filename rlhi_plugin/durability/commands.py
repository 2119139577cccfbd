"""`rlhi journal`: what waits for the store, and putting it there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlhi_plugin.durability.folders import JournalReport, read_folder, replay_folder
from rlhi_plugin.durability.location import journal_folders
from rlhi_plugin.errors import StoreError
from rlhi_plugin.stores import SQLStore, open_store
from rlhi_plugin.terminal import stdout, table

journal_app = typer.Typer(
    help="The journal: turns that the store has not taken yet.\n\n"
    "Example: `rlhi journal status --store sqlite:///rlhi.db`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_Store = Annotated[str, typer.Option(help="URL of the store, such as sqlite:///rlhi.db", show_default=False)]
_Journal = Annotated[Path | None, typer.Option(help="Folder of the journal. Default: where the middleware puts it.")]
_Verbose = Annotated[bool, typer.Option("--verbose", help="Log what happens in detail.")]


@journal_app.command("status")
def journal_status(store: _Store, journal: _Journal = None, verbose: _Verbose = False) -> None:
    """Show what waits in the journal of a store, and what was set aside. Changes nothing; needs no running store.

    Example: `rlhi journal status --store sqlite:///rlhi.db`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    first, *others = _folders(store, journal)
    _show(read_folder(first))
    for folder in others:
        report = read_folder(folder)
        if report.files or report.refused or report.withheld:
            _show(report)


def _show(report: JournalReport) -> None:
    rows: list[tuple[object, ...]] = [
        (file.path.name, file.turns, file.messages, file.damaged, "running" if file.owned else "ended")
        for file in report.files
    ]
    rows += [(path.name, lines, "", "", "set aside") for path, lines in report.refused]
    if rows:
        stdout.print(table(str(report.folder), ("file", "turns", "messages", "damaged", "process"), rows))
    else:
        stdout.print(f"nothing waits in {report.folder}", markup=False, highlight=False)
    if report.withheld:
        stdout.print(withheld_line(report), markup=False, highlight=False)
    if report.waiting:
        stdout.print("Running processes replay their own. The others': rlhi journal replay", highlight=False)
    if report.set_aside:
        stdout.print("What was set aside, once its reason is mended: rlhi journal replay --refused", highlight=False)


def withheld_line(report: JournalReport) -> str:
    """What became of turns whose users changed their mind before the store took them, for people."""
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(report.withheld.items()))
    return f"{sum(report.withheld.values())} turn(s) were erased from the journal and not stored: {counts}"


def _folders(store: str, journal: Path | None) -> list[Path]:
    return journal_folders(store) if journal is None else [journal]


@journal_app.command("replay")
def journal_replay(
    store: _Store,
    journal: _Journal = None,
    refused: Annotated[bool, typer.Option("--refused", help="Also offer what was set aside once more.")] = False,
    verbose: _Verbose = False,
) -> None:
    """Put what ended processes left in the journal into the store, in order. What the store holds is not added twice.

    Example: `rlhi journal replay --store sqlite:///rlhi.db`
    """
    del verbose  # read by rlhi_plugin.terminal.run
    with open_store(store) as opened:
        for number, folder in enumerate(_folders(store, journal)):
            # An unusual folder is worth a word only where there is one.
            if number == 0 or folder.is_dir():
                _replay(folder, opened, refused=refused)


def _replay(folder: Path, opened: SQLStore, *, refused: bool) -> None:
    done = replay_folder(folder, opened, refused=refused)
    line = f"{done.replayed} turn(s) replayed, {done.refused} refused, {done.left} left in {folder}"
    stdout.print(line, markup=False, highlight=False)
    if done.withheld:
        stdout.print(f"{done.withheld} erased: their users were forgotten, or withdrew their consent", highlight=False)
    if done.left:
        raise StoreError(f"{done.left} turn(s) could not be stored: {done.error}. Mend the store and replay again.")
