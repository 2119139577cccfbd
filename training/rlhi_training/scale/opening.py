"""Which pipeline a command runs: the one in memory, or in shards."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rlhi_plugin.errors import ConfigError
from rlhi_training.pipeline import Pipeline
from rlhi_training.recipe import Recipe
from rlhi_training.run_directory import Manifest, RunDirectory
from rlhi_training.scale.engine import Engine, LocalEngine
from rlhi_training.scale.pipeline import ShardedPipeline
from rlhi_training.scale.sharded_run import Sharding

ENGINES = ("memory", "local", "ray")


@dataclass(frozen=True)
class EngineOptions:
    """What a command says about who does the work.

    Attributes:
        engine: One of `ENGINES`.
        shards: How many; None: by the size of the log.
        processes: At once; None: one for each core.
    """

    engine: str = "memory"
    shards: int | None = None
    processes: int | None = None


def open_pipeline(
    logs: str, recipe: Recipe, directory: RunDirectory, options: EngineOptions, registry: Path | None = None
) -> Pipeline:
    """The pipeline that does it.

    Raises:
        ConfigError: there is no such engine, or a number is out of range.
        MissingExtraError: the engine is not installed.
    """
    if options.engine not in ENGINES:
        raise ConfigError(f"there is no engine {options.engine!r}. Use one of: {', '.join(ENGINES)}")
    if options.engine == "memory":
        if options.shards is not None or options.processes is not None:
            raise ConfigError("--shards and --processes are for runs in shards. Add: --engine local")
        return Pipeline(logs, recipe, directory, registry=registry)
    processes = options.processes if options.processes is not None else max(1, os.cpu_count() or 1)
    if processes < 1 or not 1 <= (options.shards or 1) <= 10_000:  # noqa: PLR2004 - files that can be open at once
        raise ConfigError("--processes is 1 or more, --shards is 1 to 10,000.")
    sharding = Sharding(shards=options.shards, processes=processes)
    return ShardedPipeline(
        logs, recipe, directory, registry=registry, sharding=sharding, engine=_engine(options.engine, processes)
    )


def as_before(manifest: Manifest) -> EngineOptions:
    """How a run was done that is to go on."""
    notes = next((entry.notes for entry in manifest.stages.values() if "shards" in entry.notes), {})
    return EngineOptions(manifest.engine, notes.get("shards"))


def _engine(name: str, processes: int) -> Engine:
    if name == "ray":
        from rlhi_training.scale.ray_engine import RayEngine

        return RayEngine(processes)
    return LocalEngine(processes)
