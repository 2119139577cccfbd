"""What the four command lines share: exit codes, logging, and how things look.

On a terminal, Rich draws tables and progress bars; piped, the same calls print plain lines. Logs go to stderr through
the standard `logging` module, as text or as JSON (``RLHI_LOG=json``).
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from rlhi_plugin.errors import RLHIError

stdout = Console(soft_wrap=not sys.stdout.isatty())
stderr = Console(stderr=True, soft_wrap=not sys.stderr.isatty())

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells count it."""

Advance = Callable[[int], None]
"""Reports that so many more units of work are done."""


class JSONFormatter(logging.Formatter):
    """One JSON object per log record, with whatever the caller put into ``extra={"fields": {...}}``."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        body = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            body["exception"] = self.formatException(record.exc_info)
        return json.dumps(body, ensure_ascii=False)


def setup_logging(*, verbose: bool = False) -> None:
    """Log to stderr: Rich on a terminal, plain lines when piped, JSON with ``RLHI_LOG=json``."""
    if os.environ.get("RLHI_LOG") == "json":
        handler: logging.Handler = logging.StreamHandler()
        handler.setFormatter(JSONFormatter())
    elif sys.stderr.isatty():
        handler = RichHandler(console=stderr, show_path=False, rich_tracebacks=True)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("rlhi").setLevel(logging.DEBUG if verbose else logging.INFO)


def run(app: typer.Typer, prog_name: str) -> None:
    """Run a command line and exit: 0 done, 2 the user's mistake with its remedy, 1 a failure, 130 interrupted."""
    setup_logging(verbose="--verbose" in sys.argv)
    try:
        app(prog_name=prog_name)
    except RLHIError as error:
        stderr.print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(error.exit_code)
    except SystemExit as exit_:
        if exit_.code == INTERRUPTED:
            # What is done stays in its files; the next run continues from there.
            stderr.print("interrupted; run the same command again to continue", style="yellow")
        raise


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A Rich table whose first column is left-aligned and whose others are right-aligned."""
    result = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        result.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        result.add_row(*(str(cell) for cell in row))
    return result


_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


@contextmanager
def quietly() -> Iterator[None]:
    """Let `progress` show nothing inside: for parts of a work that shows its own."""
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Advance]:
    """A progress bar on a terminal; one line at the start and one at the end when piped.

    Args:
        description: What is done, and in which unit.
        total: How many there are; None where nobody knows.
    """
    if _QUIET.get():
        yield lambda _: None
        return
    if not stderr.is_terminal:
        stderr.print(f"{description}: {'an unknown number' if total is None else total} to do")
        done = 0

        def count(n: int) -> None:
            nonlocal done
            done += n

        yield count
        stderr.print(f"{description}: {done}{'' if total is None else f' of {total}'} done")
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr) as bar:
        task = bar.add_task(description, total=total)
        yield lambda n: bar.advance(task, n)


Report = Callable[[int, str], None]
"""Reports that so many more units of work are done, and how it stands."""


@contextmanager
def measured(description: str, total: int) -> Iterator[Report]:
    """As `progress`, with a line on how it stands behind the bar; piped, the last such line ends it."""
    last = ""
    if not stderr.is_terminal:
        with progress(description, total) as advance:

            def count(n: int, note: str) -> None:
                nonlocal last
                last = note or last
                advance(n)

            yield count
        if last:
            stderr.print(f"{description}: {last}", markup=False)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=stderr) as bar:
        task = bar.add_task(description, total=total, note="")

        def show(n: int, note: str) -> None:
            bar.update(task, advance=n, note=note)

        yield show


@contextmanager
def waiting(description: str) -> Iterator[None]:
    """A moving bar with the elapsed time, on a terminal, for what takes seconds and has no steps to count.

    May be used inside `progress`. Piped, it prints nothing.
    """
    if not stderr.is_terminal:
        yield
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True) as bar:
        bar.add_task(description, total=None)
        yield
