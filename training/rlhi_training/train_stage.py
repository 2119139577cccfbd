"""The last stage: pairs become a LoRA adapter, and the adapter enters the registry as a candidate."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhi_adapters.registry import AdapterRegistry, describe_adapter
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.persona import FRAME_DIGEST
from rlhi_plugin.records import Record
from rlhi_training.methods.choice import Item
from rlhi_training.methods.hindsight import HINDSIGHT, PROMPT, Hindsight
from rlhi_training.recipe import Recipe
from rlhi_training.records import LabelledTurn
from rlhi_training.run_directory import RunDirectory, StageResult
from rlhi_training.trainer import TrainResult, train_adapter

if TYPE_CHECKING:
    from rlhi_training.pipeline import Pipeline


def train(
    directory: RunDirectory,
    material: Sequence[Item] | Hindsight,
    turns: Mapping[str, LabelledTurn],
    recipe: Recipe,
    registry: Path | None,
) -> StageResult:
    """Train on pairs, or on logged answers with their follow-ups, and register the adapter.

    Drops: what the trainer could not use (`rlhi_training.tokenised_pairs`, `rlhi_training.train_limits`), never cut;
    and what `Hindsight` left out.
    """
    pairs, left_out = (material.turns, material.dropped) if isinstance(material, Hindsight) else (material, ())
    result = train_adapter(pairs, recipe, directory.path, persona_frame_digest=FRAME_DIGEST, registry=registry)
    notes = _registered(directory, result, pairs, turns, recipe, registry)
    files: dict[str, Sequence[Record]] = {}
    if isinstance(material, Hindsight):
        notes["prompt"] = PROMPT.version
        files[HINDSIGHT] = material.turns
    adapter = result.adapter_dir.relative_to(directory.path).as_posix()
    inputs, dropped = len(pairs) + len(left_out), (*left_out, *result.dropped)
    return StageResult(inputs, result.trained_pairs, dropped, files, notes, [adapter])


def train_in_rounds(pipeline: Pipeline, turns: Mapping[str, LabelledTurn], runner: asyncio.Runner) -> StageResult:
    """The same over several rounds of sampling and training; a pair counts once for each round that has it."""
    from rlhi_training.methods.rounds import RECORD, ROUNDS, train_rounds

    made = train_rounds(pipeline, runner)
    notes = _registered(pipeline.run_dir, made.train, made.pairs, turns, pipeline.recipe, pipeline.registry)
    notes["rounds"] = [
        record.model_dump(mode="json", exclude={"dropped", "inputs_digest", "warnings"}) for record in made.records
    ]
    result = made.train
    written = ["adapter", *(f"{ROUNDS}/{record.number:02d}/{RECORD}" for record in made.records)]
    return StageResult(len(made.pairs), result.trained_pairs, result.dropped, {}, notes, written)


def _registered(  # noqa: PLR0917 - what a registration needs, and no more
    directory: RunDirectory,
    result: TrainResult,
    pairs: Sequence[Item],
    turns: Mapping[str, LabelledTurn],
    recipe: Recipe,
    registry: Path | None,
) -> dict[str, Any]:
    """Register the adapter; what the manifest says of the training."""
    adapters = AdapterRegistry(registry)
    adapter_id = register(adapters, result, pairs, turns, recipe, manifest=directory.path / "manifest.json")
    return {
        "adapter_id": adapter_id,
        "registry": str(adapters.root),
        "base_model": result.base.name,
        "base_digest": result.base.digest,
        "method": recipe.train.method,
        "steps": result.steps,
        "resumed_from": result.resumed_from,
        "metrics": result.metrics,
        "warnings": list(result.warnings),
    }


def holders(pairs: Sequence[Item], turns: Mapping[str, LabelledTurn]) -> tuple[str, ...]:
    """Users whose words were learnt from: owners of personas and authors of requests, sorted."""
    users = {pair.user_id for pair in pairs}
    users |= {turns[f"{p.provenance.conversation_id}#{p.provenance.turn}"].user_id for p in pairs}
    return tuple(sorted(user for user in users if user))


def register(
    adapters: AdapterRegistry,
    result: TrainResult,
    pairs: Sequence[Item],
    turns: Mapping[str, LabelledTurn],
    recipe: Recipe,
    *,
    manifest: Path,
) -> str:
    """Register a candidate named after recipe and weights; one that is there already with the same weights stays."""
    record = describe_adapter(
        result.adapter_dir,
        "unnamed",
        base=result.base,
        persona_prompt_digest=FRAME_DIGEST,
        run_manifest=manifest,
        user_ids=holders(pairs, turns),
        parent=result.parent,
    )
    name = recipe.name.lower().replace("_", "-")
    known = {other.adapter_id: other for other in adapters.list()}
    for number in range(1, 1000):
        suffix = "" if number == 1 else f"-{number}"
        adapter_id = f"{name}-{record.weights_digest[:8]}{suffix}"
        same = known.get(adapter_id)
        if same is not None and (same.weights_digest, same.path) == (record.weights_digest, record.path):
            return adapter_id
        if same is None:
            adapters.register(record.model_copy(update={"adapter_id": adapter_id}))
            return adapter_id
    raise ConfigError(f"a thousand adapters are named {name}. Give the recipe another name.")
