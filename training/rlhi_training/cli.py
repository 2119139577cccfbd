"""The `rlhi-train` command: logs in, adapter out, one sub-command per stage."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhi_plugin import terminal
from rlhi_training.labelling import commands as labelling_commands
from rlhi_training.plan.command import plan
from rlhi_training.report_command import report
from rlhi_training.terminating import terminating_in_order

if TYPE_CHECKING:
    from rlhi_training.records import Stage
    from rlhi_training.run_directory import Manifest, RunDirectory

app = typer.Typer(
    name="rlhi-train",
    help="Conversation logs to a trained adapter.\n\nExample: rlhi-train run logs.jsonl --out runs/1",
    no_args_is_help=True,
    add_completion=False,
)

Logs = Annotated[
    str,
    typer.Argument(
        help="Conversation log: an rlhi export, WildChat rows or any log that `rlhi import` reads, as a file or folder;"
        " or hf://datasets/OWNER/NAME."
    ),
]
RecipeName = Annotated[
    str, typer.Option("--recipe", help="A recipe that `rlhi-train recipes` lists, or path of a .toml file.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Run directory; default runs/TIME. An existing one continues.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one option of the recipe; repeatable."),
]
Registry = Annotated[
    Path | None,
    typer.Option(
        "--registry", help="Folder of the adapter registry; default RLHI_REGISTRY, else the user's data folder."
    ),
]
Run = Annotated[Path, typer.Argument(help="Run directory made by `rlhi-train run` or `rlhi-train ingest`.")]


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", help="Log more.")] = False,
) -> None:
    """Conversation logs to a trained adapter."""


@app.command()
def run(
    logs: Logs,
    recipe: RecipeName = "smoke_cpu",
    out: Out = None,
    overrides: Overrides = None,
    *,
    registry: Registry = None,
    max_cost: Annotated[
        float | None,
        typer.Option(
            "--max-cost",
            metavar="USD",
            help="Stop before the run, all its starts together, has cost more; exit code 3. What is done is kept.",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            help="memory; local: in shards, for logs larger than memory; ray: in shards, on many machines.",
        ),
    ] = "memory",
    shards: Annotated[
        int | None,
        typer.Option(
            "--shards", help="With local and ray: number of shards, 1 to 10000; default: by the size of the log."
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option("--processes", help="With local and ray: processes at once; default: one for each core."),
    ] = None,
) -> None:
    """Run every stage: from a conversation log to a registered adapter. Run it again to continue or reuse.

    Example: rlhi-train run logs.jsonl --recipe rewrites_lora --out runs/1 --set train.epochs=1
    """
    if max_cost is not None:
        overrides = [*(overrides or []), f"calls.max_cost_usd={max_cost}"]
    options = (engine, shards, processes)
    directory, manifest = _start(logs, recipe, out, overrides, registry, until="train", options=options)
    notes = manifest.stages["train"].notes
    for warning in notes["warnings"]:
        terminal.stderr.print(f"warning: {warning}", style="yellow", markup=False)
    terminal.stdout.print(f"adapter: {directory.path / 'adapter'}", markup=False)
    terminal.stdout.print(f"registered as {notes['adapter_id']} in {notes['registry']}", markup=False)
    terminal.stdout.print(f"manifest: {directory.path / 'manifest.json'}", markup=False)


app.command()(plan)


@app.command()
def recipes() -> None:
    """List the shipped recipes, one line each.

    Example: rlhi-train recipes
    """
    from rlhi_training.recipe_files import shipped_recipes

    rows = [(name, recipe.summary) for name, recipe in shipped_recipes().items()]
    shown = terminal.table("Shipped recipes", ("recipe", "what it is for"), rows)
    shown.columns[1].justify = "left"
    terminal.stdout.print(shown)


@app.command()
def show(run_directory: Run) -> None:
    """Show what a run did: the follow-up table, and how many items each stage passed on and why it dropped others.

    Example: rlhi-train show runs/1
    """
    from rlhi_training.calls_table import render_calls
    from rlhi_training.follow_up_table import FollowUpTable, render_follow_ups
    from rlhi_training.funnel import identity_notes, render_funnel, render_rounds
    from rlhi_training.pipeline import CALLS

    manifest = _existing(run_directory).manifest()
    assert manifest is not None  # noqa: S101 - _existing raises where there is none
    if "label" in manifest.stages:
        counts = FollowUpTable.model_validate(manifest.stages["label"].notes["table"])
        terminal.stdout.print(render_follow_ups(counts))
    terminal.stdout.print(render_funnel(manifest))
    rounds = render_rounds(manifest)
    if rounds is not None:
        terminal.stdout.print(rounds)
    for line in identity_notes(manifest):
        terminal.stdout.print(line, markup=False, highlight=False)
    calls = render_calls(run_directory / CALLS)
    if calls is not None:
        terminal.stdout.print(calls)


@app.command("ingest")
def ingest_command(logs: Logs, recipe: RecipeName = "smoke_cpu", out: Out = None, overrides: Overrides = None) -> None:
    """Start a run: screen the conversations of a log.

    Example: rlhi-train ingest logs.jsonl --recipe smoke_cpu --out runs/1
    """
    directory, _ = _start(logs, recipe, out, overrides, None, until="ingest")
    terminal.stdout.print(f"run directory: {directory.path}", markup=False)


def _stage_command(stage: Stage, summary: str) -> None:
    """Add the sub-command of one stage."""

    def command(run_directory: Run, overrides: Overrides = None, registry: Registry = None) -> None:
        _run_stage(stage, run_directory, overrides, registry)

    command.__doc__ = f"{summary} Earlier stages are reused where they can be.\n\nExample: rlhi-train {stage} runs/1"
    app.command(stage)(command)


@app.command("label")
def label_command(  # noqa: PLR0917 - a command's options, not a call's arguments
    source: Annotated[
        str, typer.Argument(metavar="LOG|RUN", help="A log in any known format, hf://datasets/..., or a run directory.")
    ],
    out: Annotated[Path | None, typer.Option("--out", help="With a log: file for one JSON line per follow-up.")] = None,
    labeller: Annotated[
        str | None,
        typer.Option(
            "--labeller", help="With a log: fast, encoder, llm, cascade, or another package's; default: encoder."
        ),
    ] = None,
    llm: Annotated[
        str | None, typer.Option("--llm", help="With a log: model of llm and cascade: openai/gpt-4o or local:FOLDER.")
    ] = None,
    votes: Annotated[
        int, typer.Option("--votes", help="With a log: how often that model is asked about each follow-up.")
    ] = 1,
    workers: Annotated[int, typer.Option("--workers", help="With a log: processes of the fast tier.")] = 1,
    log_format: Annotated[
        str | None,
        typer.Option("--format", help="With a log: its format, as in `rlhi import`; default: told by its fields."),
    ] = None,
    hindsight: Annotated[
        bool, typer.Option("--hindsight", help="With a log: add what neutral follow-ups inherit from a later one.")
    ] = False,
    signals: Annotated[
        Path | None,
        typer.Option(
            "--signals",
            help="With a log: file for signals without words: thumbs, copies, regenerations; default: none.",
        ),
    ] = None,
    refused: Annotated[
        Path | None,
        typer.Option(
            "--refused", help="With a log: file for rows that cannot be read or labelled; default: a few are named."
        ),
    ] = None,
    overrides: Overrides = None,
    registry: Registry = None,
) -> None:
    """Label every follow-up: of a log, into a file; or of a run, as its stage.

    Example: rlhi-train label logs.jsonl --labeller encoder --out labels.jsonl
    """
    from rlhi_plugin.errors import UserError
    from rlhi_training.labelling.commands import label_command as label_a_log
    from rlhi_training.labelling.label_log import LabelOptions

    is_run = (Path(source) / "manifest.json").is_file()
    for_a_log = {
        "--out": out is not None, "--labeller": labeller is not None, "--llm": llm is not None, "--votes": votes != 1,
        "--workers": workers != 1, "--format": log_format is not None, "--hindsight": hindsight,
        "--signals": signals is not None, "--refused": refused is not None,
    }  # fmt: skip
    for_a_run = {"--set": overrides is not None, "--registry": registry is not None}
    _refuse_unused(source, for_a_log if is_run else for_a_run, is_run=is_run)
    if is_run:
        _run_stage("label", Path(source), overrides, registry)
        return
    if out is None:
        raise UserError(
            f"{source} is no run directory. Start one with: rlhi-train ingest logs.jsonl --out {source}"
            " Or label a log into a file: add --out labels.jsonl"
        )
    options = LabelOptions(log_format, hindsight=hindsight, signals=signals, refused=refused)
    label_a_log(source, out, labeller or "encoder", options, llm=llm, votes=votes, workers=workers)


def _refuse_unused(source: str, given: Mapping[str, bool], *, is_run: bool) -> None:
    """Refuse options of `label` that would change nothing."""
    from rlhi_plugin.errors import UserError

    unused = ", ".join(name for name, is_given in given.items() if is_given)
    if unused and is_run:
        raise UserError(
            f"{source} is a run, whose recipe says how it is labelled: {unused} would change nothing. "
            "Give --set label.labeller=fast and so on."
        )
    if unused:
        raise UserError(
            f"{source} is a log, which has no recipe: {unused} would change nothing. "
            "Give --labeller and the options beside it, or a run directory."
        )


for _stage, _summary in (
    ("personas", "Build each user's persona as of before each conversation."),
    ("rewrite", "User-Guided Rewrites: improve answers that drew feedback."),
    ("reward", "User-Based Rewards: sample answers and rank them under the persona."),
    ("contrast", "Persona contrast: one request's answers ranked under several personas."),
    ("filter", "Keep the pairs that pass every quality filter."),
    ("pairs", "Render the pairs with persona and provenance."),
    ("train", "Train and register the adapter."),
):
    _stage_command(_stage, _summary)  # type: ignore[arg-type]  # the names above are Stage's

app.command("report")(report)


labelling_commands.mount(app)


def _run_stage(stage: Stage, run_directory: Path, overrides: list[str] | None, registry: Path | None) -> None:
    from rlhi_training.recipe_files import override_recipe
    from rlhi_training.scale.opening import as_before, open_pipeline

    directory = _existing(run_directory)
    manifest = directory.manifest()
    assert manifest is not None  # noqa: S101 - _existing raises where there is none
    recipe = override_recipe(manifest.recipe, overrides or [])
    open_pipeline(manifest.logs, recipe, directory, as_before(manifest), registry).run(until=stage)


def _start(
    logs: str,
    recipe: str,
    out: Path | None,
    overrides: list[str] | None,
    registry: Path | None,
    *,
    until: Stage,
    options: tuple[str, int | None, int | None] = ("memory", None, None),
) -> tuple[RunDirectory, Manifest]:
    from rlhi_plugin.errors import UserError
    from rlhi_training.log_source import log_source
    from rlhi_training.recipe_files import load_recipe
    from rlhi_training.run_directory import RunDirectory
    from rlhi_training.scale.opening import EngineOptions, open_pipeline

    loaded = load_recipe(recipe, overrides=overrides or [])
    # Before a run directory is made for it.
    log_source(logs).require()
    place = out or Path("runs") / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    if place.resolve().is_relative_to(Path(logs).resolve()) and Path(logs).is_dir():
        raise UserError(f"{place} is inside the logs, which would then hold the run's files. Give another --out.")
    directory = RunDirectory(place)
    later = "" if out else f"; to go on with it later, add: --out {directory.path}"
    terminal.stdout.print(f"run directory: {directory.path}{later}", markup=False)
    pipeline = open_pipeline(logs, loaded, directory, EngineOptions(*options), registry)
    return directory, pipeline.run(until=until)


def _existing(path: Path) -> RunDirectory:
    from rlhi_plugin.errors import UserError
    from rlhi_training.run_directory import RunDirectory

    if not (path / "manifest.json").is_file():
        raise UserError(f"{path} is no run directory. Start one with: rlhi-train ingest logs.jsonl --out {path}")
    return RunDirectory(path)


def main() -> None:
    """Entry point."""
    with terminating_in_order():
        terminal.run(app, "rlhi-train")
