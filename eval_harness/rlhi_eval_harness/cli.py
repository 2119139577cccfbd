"""`rlhi-eval`: evaluate an adapter, score a stored evaluation again, list the suites."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rlhi_plugin import terminal

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Compare an adapter with its base on users and requests that training never saw.",
    epilog="Example: rlhi-eval run --suite smoke --adapter runs/1/adapter --out report/",
)

Verbose = Annotated[bool, typer.Option("--verbose", help="Log what happens inside.")]


@app.command(epilog="Example: rlhi-eval run --suite smoke --adapter runs/1/adapter --out report/")
def run(  # noqa: PLR0917 - typer turns every parameter into an option
    adapter: Annotated[str, typer.Option(help="Adapter folder, or an adapter id together with --registry.")],
    out: Annotated[Path, typer.Option(help="Folder for the evaluation and its report; a stopped run goes on there.")],
    suite: Annotated[
        str, typer.Option(help="A shipped suite (see rlhi-eval suites) or the path of a .toml file.")
    ] = "smoke",
    base: Annotated[str | None, typer.Option(help="Base model; default: the one that the adapter names.")] = None,
    registry: Annotated[Path | None, typer.Option(help="Registry folder in which --adapter is an id.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override an option: --set users=8")] = None,
    verbose: Verbose = False,  # noqa: ARG001 - read by rlhi_plugin.terminal before typer runs
) -> None:
    """Evaluate an adapter and write report.html, report.md and report.json."""
    from rlhi_eval_harness.evaluate import evaluate
    from rlhi_eval_harness.subjects import read_adapter_folder, read_registered_adapter
    from rlhi_eval_harness.suites import load_suite

    chosen = load_suite(suite, overrides=set_ or ())
    if registry is None:
        folder = read_adapter_folder(Path(adapter), base=base)
    else:
        folder = read_registered_adapter(registry, adapter, base=base)
    evaluate(chosen, folder, out)
    _show(out)


@app.command(epilog="Example: rlhi-eval score report/")
def score(
    folder: Annotated[Path, typer.Argument(help="Folder of an evaluation.")],
    verbose: Verbose = False,  # noqa: ARG001 - read by rlhi_plugin.terminal before typer runs
) -> None:
    """Score the stored answers again and rewrite the report; needs no model."""
    from rlhi_eval_harness.evaluate import score_again

    score_again(folder)
    _show(folder)


@app.command(epilog="Example: rlhi-eval suites --options")
def suites(
    options: Annotated[bool, typer.Option("--options", help="Every option with its default and meaning.")] = False,
) -> None:
    """List the suites that ship, one line each."""
    from rlhi_eval_harness.suites import Suite, shipped_suites

    if options:
        meanings = [
            (name, json.dumps(field.get_default(call_default_factory=True), default=_plain), field.description or "")
            for name, field in Suite.model_fields.items()
            if name not in {"name", "summary", "kind"}
        ]
        terminal.stdout.print(terminal.table("Options of a suite", ("option", "default", "meaning"), meanings))
        return
    rows = [(suite.name, suite.summary) for suite in shipped_suites().values()]
    terminal.stdout.print(terminal.table("Suites", ("suite", "what it does"), rows))


def _show(folder: Path) -> None:
    """Print the ranking, the findings, and where the report is."""
    from rlhi_eval_harness.records import EvalReport
    from rlhi_eval_harness.report.tables import summary, text_rows

    report = EvalReport.model_validate_json((folder / "report.json").read_text("utf-8"))
    grid = summary(report)
    terminal.stdout.print(terminal.table(f"Suite {report.suite}, best first", grid.columns, text_rows(grid)))
    for finding in report.findings:
        terminal.stdout.print(f"- {finding}", markup=False, highlight=False)
    terminal.stdout.print(f"report: {folder / 'report.html'}", markup=False, highlight=False)


def _plain(value: object) -> object:
    return value.model_dump() if hasattr(value, "model_dump") else str(value)


def main() -> None:
    """Entry point of the `rlhi-eval` command."""
    terminal.run(app, "rlhi-eval")
