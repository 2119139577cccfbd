"""``rlhi-train report``: the pairs report of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlhi_plugin import terminal


def report(
    run_directory: Annotated[
        Path, typer.Argument(help="Run directory made by `rlhi-train run` or `rlhi-train ingest`.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="The file; default report.html in the run directory.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=0, help="Pairs that can be looked at in the page.")] = 300,
) -> None:
    """Write a run's pairs report: one HTML file that opens offline. It holds what users wrote; keep it like the log.

    Example: rlhi-train report runs/1
    """
    from rlhi_plugin.errors import UserError
    from rlhi_training.report import write_report
    from rlhi_training.run_directory import RunDirectory

    if not (run_directory / "manifest.json").is_file():
        raise UserError(
            f"{run_directory} is no run directory. Start one with: rlhi-train ingest logs.jsonl --out runs/1"
        )
    file = write_report(RunDirectory(run_directory), out, samples=samples)
    terminal.stdout.print(f"report: {file}", markup=False, highlight=False)
