"""`rlhi-eval compare`: two reports, item by item, for a person or for continuous integration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rlhi_plugin import terminal

PIPED_WIDTH = 140
"""Columns of the table where the output is no terminal."""
Report = Annotated[Path, typer.Argument(help="Folder of an evaluation, or its report.json.")]


def add_to(app: typer.Typer) -> None:
    """Mount ``compare`` on a command line."""
    app.command(epilog="Example: rlhi-eval compare main/ branch/ --fail-on-regression --margin 0.02")(compare)


def compare(  # noqa: PLR0917 - typer turns every parameter into an option
    before: Report,
    after: Report,
    fail_on_regression: Annotated[
        bool, typer.Option("--fail-on-regression", help="Exit 1 where something got worse beyond noise.")
    ] = False,
    margin: Annotated[
        list[str] | None,
        typer.Option(
            help="How much worse is no regression: 0.02 (2 points of a share), or METRIC=NUMBER. Repeat it; default: 0."
        ),
    ] = None,
    subject: Annotated[
        list[str] | None,
        typer.Option(
            help="Compare only this one; NAME=NAME where the second report calls it otherwise. Repeat it; default: all."
        ),
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Compare only this metric. Repeat it; default: all but single parts.")
    ] = None,
    by_group: Annotated[bool, typer.Option("--by-group", help="Compare each group of items as well.")] = False,
    level: Annotated[float, typer.Option(help="Chance, 0 to 1, of any false regression, over all comparisons.")] = 0.05,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="Compare although these differ: suite, models, judges, subjects, metrics, items. Repeat it."),
    ] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Write the comparison to this file as well.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write a summary for a comment on a pull request to this file as well.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page that opens offline to this file as well.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what happens inside.")] = False,  # noqa: ARG001 - read by rlhi_plugin.terminal before typer runs
) -> None:
    """Compare two reports of one suite on the same items: exit 0, or 1 for a regression, or 2 where they do not fit."""
    from rlhi_eval_harness.compare import item_by_item, texts
    from rlhi_eval_harness.compare.differences import compare as compute
    from rlhi_eval_harness.compare.options import Options
    from rlhi_eval_harness.compare.sides import open_side
    from rlhi_eval_harness.report.tables import text_rows

    options = Options(
        subjects=tuple(subject or ()), metrics=tuple(metric or ()), by_group=by_group, margins=tuple(margin or ()),
        allowed=tuple(allow or ()), level=level,
    )  # fmt: skip
    found = compute(open_side(before), open_side(after), options)
    _write(json_, found.model_dump_json(indent=1) + "\n")
    _write(markdown, texts.markdown(found))
    if html is not None:
        from rlhi_eval_harness.compare.page import render

        _write(html, render(found))
    title = f"Suite {found.suite}: {after} against {before}"
    # Piped, as in continuous integration, it is not folded to 80 columns.
    console = terminal.stdout if terminal.stdout.is_terminal else Console(width=PIPED_WIDTH)
    console.print(terminal.table(title, texts.COLUMNS, texts.table_rows(found)))
    by_item = item_by_item.grid(found)
    if by_item.rows:
        console.print(terminal.table("Yes or no, item by item", by_item.columns, text_rows(by_item)))
    for line in (texts.headline(found), *found.notes):
        terminal.stdout.print(f"- {line}", markup=False, highlight=False)
    if fail_on_regression and found.regressions:
        raise typer.Exit(1)


def _write(path: Path | None, text: str) -> None:
    from rlhi_eval_harness.run_folder import write_text
    from rlhi_plugin.errors import ConfigError

    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}. Choose another file.") from error
