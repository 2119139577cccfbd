"""Train on the pairs of a run with several processes, as TRL does it: one optimiser step is all processes' pairs.

    accelerate launch --num_processes 2 --module rlhi_training.train_together runs/1

Each process takes ``train.batch_size`` pairs of a step, so two processes do what one does with twice that. The main
process writes ``adapter/`` and registers it; the run's manifest stays as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlhi_plugin import terminal

app = typer.Typer(add_completion=False)


@app.command()
def train_together(
    run_directory: Annotated[Path, typer.Argument(help="A run whose pairs stage is done.")],
    registry: Annotated[Path | None, typer.Option("--registry", help="Folder of the registry.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="An option of the recipe, as KEY=VALUE.")] = None,
) -> None:
    """Train on a run's pairs with all processes of a launcher.

    Example: accelerate launch --num_processes 2 --module rlhi_training.train_together runs/1
    """
    from rlhi_adapters.registry import AdapterRegistry
    from rlhi_plugin.errors import UserError
    from rlhi_plugin.persona import FRAME_DIGEST
    from rlhi_training.processes import is_main
    from rlhi_training.recipe_files import override_recipe
    from rlhi_training.records import LabelledTurn, PreferencePair
    from rlhi_training.run_directory import RunDirectory
    from rlhi_training.stages.label import TURNS
    from rlhi_training.stages.pairs import PAIRS
    from rlhi_training.train_checks import check_together
    from rlhi_training.train_stage import register
    from rlhi_training.trainer import train_adapter

    if not (run_directory / PAIRS).is_file():
        raise UserError(f"{run_directory} has no {PAIRS}. Make the pairs first: rlhi-train pairs {run_directory}")
    directory = RunDirectory(run_directory)
    manifest = directory.manifest()
    if manifest is None:
        raise UserError(f"{run_directory} is no run directory. Start one with: rlhi-train ingest logs.jsonl --out DIR")
    recipe = override_recipe(manifest.recipe, overrides or [])
    check_together(recipe.train)
    pairs = directory.read(PAIRS, PreferencePair)
    progress = terminal.progress if is_main() else None
    result = train_adapter(pairs, recipe, directory.path, progress=progress, persona_frame_digest=FRAME_DIGEST)
    if is_main():
        turns = {turn.key: turn for turn in directory.read(TURNS, LabelledTurn)}
        adapters = AdapterRegistry(registry)
        name = register(adapters, result, pairs, turns, recipe, manifest=directory.path / "manifest.json")
        terminal.stdout.print(f"{result.steps} steps; registered {name} in {adapters.root}", markup=False)


if __name__ == "__main__":
    terminal.run(app, "rlhi_training.train_together")
