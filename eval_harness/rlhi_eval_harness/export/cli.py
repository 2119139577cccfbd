"""`rlhi-eval export`: a report for Inspect or lm-eval."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rlhi_plugin import terminal


class Format(StrEnum):
    """Whose files."""

    INSPECT = "inspect"
    LM_EVAL = "lm-eval"


def add_to(app: typer.Typer) -> None:
    """Mount ``export`` on a command line."""
    app.command(epilog="Example: rlhi-eval export report/ --to inspect --out logs/")(export)


def export(
    report: Annotated[Path, typer.Argument(help="Folder of an evaluation, or its report.json.")],
    to: Annotated[Format, typer.Option(help="inspect: .eval logs. lm-eval: results_*.json and samples_*.jsonl.")],
    out: Annotated[Path, typer.Option(help="Folder for the files; one file or folder a subject.")],
    subject: Annotated[list[str] | None, typer.Option(help="Only this subject. Repeat it.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what happens inside.")] = False,  # noqa: ARG001 - read by rlhi_plugin.terminal before typer runs
) -> None:
    """Write a report as another harness would have: all samples, scores, errors, times and tokens."""
    from rlhi_eval_harness.compare.sides import read_report
    from rlhi_eval_harness.export.inspect_log import write_logs
    from rlhi_eval_harness.export.lm_eval_results import write_results
    from rlhi_eval_harness.export.subjects import subjects_in
    from rlhi_plugin.errors import ConfigError

    subjects = subjects_in(report, read_report(report), subject or ())
    write = write_logs if to is Format.INSPECT else write_results
    try:
        out.mkdir(parents=True, exist_ok=True)
        paths = write(subjects, out)
    except OSError as error:
        raise ConfigError(f"cannot write to {out}: {error.strerror}. Choose another --out.") from error
    for path in paths:
        terminal.stdout.print(str(path), markup=False, highlight=False)
