"""The last stage: pairs become a LoRA adapter, and the adapter enters the registry as a candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rlhi_adapters.registry import AdapterRegistry, describe_adapter
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.persona import FRAME_DIGEST
from rlhi_training.recipe import Recipe
from rlhi_training.records import LabelledTurn, PreferencePair
from rlhi_training.run_directory import RunDirectory, StageResult
from rlhi_training.trainer import TrainResult, train_adapter


def train(
    directory: RunDirectory,
    pairs: Sequence[PreferencePair],
    turns: Mapping[str, LabelledTurn],
    recipe: Recipe,
    registry: Path | None,
) -> StageResult:
    """Train on the pairs and register the adapter.

    Drops: what the trainer could not use (``too_long``), never cut.
    """
    result = train_adapter(pairs, recipe, directory.path, persona_frame_digest=FRAME_DIGEST)
    adapters = AdapterRegistry(registry)
    adapter_id = register(adapters, result, pairs, turns, recipe, manifest=directory.path / "manifest.json")
    notes = {
        "adapter_id": adapter_id,
        "registry": str(adapters.root),
        "base_model": result.base.name,
        "base_digest": result.base.digest,
        "steps": result.steps,
        "resumed_from": result.resumed_from,
        "metrics": result.metrics,
        "warnings": list(result.warnings),
    }
    adapter = result.adapter_dir.relative_to(directory.path).as_posix()
    return StageResult(len(pairs), result.trained_pairs, result.dropped, {}, notes, [adapter])


def holders(pairs: Sequence[PreferencePair], turns: Mapping[str, LabelledTurn]) -> tuple[str, ...]:
    """Users whose words are in the pairs: owners of personas and authors of requests, sorted."""
    users = {pair.user_id for pair in pairs}
    users |= {turns[f"{p.provenance.conversation_id}#{p.provenance.turn}"].user_id for p in pairs}
    return tuple(sorted(user for user in users if user))


def register(
    adapters: AdapterRegistry,
    result: TrainResult,
    pairs: Sequence[PreferencePair],
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
