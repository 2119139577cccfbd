"""What a run in shards is, whatever its passes do: when one is reused, what the manifest says of it, who works.

A pass does several stages together; it is reused or done as a whole.
"""

from __future__ import annotations

import asyncio
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlhi_plugin import terminal
from rlhi_plugin.errors import ArtefactError
from rlhi_training.pipeline import Pipeline
from rlhi_training.records import Stage
from rlhi_training.run_directory import WORKING, Manifest, StageEntry, cannot_write, digest_of
from rlhi_training.scale.engine import Engine, LocalEngine
from rlhi_training.scale.layout import Layout, MakeResources, Summary
from rlhi_training.scale.ledger import MAKERS

PASSES: tuple[tuple[Stage, ...], ...] = (("ingest", "label", "personas"), MAKERS, ("pairs",), ("train",))
"""Stages that are done together."""
LOG_BYTES_PER_SHARD = 64 << 20
"""Of a log whose shards nobody numbered (ours): a quarter of a gigabyte of records."""


@dataclass(frozen=True)
class Sharding:
    """How a run is divided.

    Attributes:
        shards: How many; None: by the size of the log.
        processes: That work at once.
        make: Makes models and clients in workers.
        pairs_in_workers: Whether workers ask the models themselves. By default the process that was started does, so
            that journal, budget and rate limits hold for the run as a whole.
    """

    shards: int | None = None
    processes: int = max(1, os.cpu_count() or 1)
    make: MakeResources | None = None
    pairs_in_workers: bool = False


class ShardedRun(Pipeline, ABC):
    """One run in shards. Arguments and errors are those of `Pipeline`.

    Args:
        sharding: How it is divided.
        engine: Who works; by default processes of this machine.
    """

    def __init__(
        self, *args: Any, sharding: Sharding = Sharding(), engine: Engine | None = None, **kwargs: Any
    ) -> None:
        self._sharding = sharding
        self._engine = engine or LocalEngine(sharding.processes)
        self.engine_name = self._engine.name
        super().__init__(*args, **kwargs)
        made: dict[str, MakeResources] = {"make": sharding.make} if sharding.make else {}
        self._layout = Layout(
            folder=self.run_dir.path.resolve() / WORKING,
            recipe=self.recipe,
            shards=sharding.shards or self._shards_by_size(),
            **made,
        )
        self._digests: dict[Stage, str] = {}

    def _shards_by_size(self) -> int:
        from rlhi_plugin.importers.files import size_of

        size = 0 if self.logs.hub or not self.logs.exists else size_of(self.logs.path)
        return max(self._sharding.processes, -(-size // LOG_BYTES_PER_SHARD))

    def run(self, until: Stage = "train") -> Manifest:
        """See `Pipeline.run`."""
        try:
            return super().run(until)
        finally:
            self._engine.close()
            # Those of workers that were ended, or killed.
            self.run_dir.clear_drafts()

    # Reuse.

    def made_by(self, stage: Stage) -> dict[str, str]:
        """What an earlier stage depended on: files of shards are too large to be read for their digest each time."""
        return {"inputs": self._digests[stage]}

    def step(self, stage: Stage, runner: asyncio.Runner) -> None:
        """Run the pass that a stage begins, or reuse it; the other stages of the pass are done then."""
        (together,) = [some for some in PASSES if stage in some]
        if stage == "train":
            self._digests[stage] = ""
            super().step(stage, runner)
            return
        if stage != together[0]:
            return
        for name in together:
            self._digests[name] = digest_of([self.inputs_digest(name), self._layout.shards, self._also(stage)])
        done = self.manifest.stages
        if all(name in done and self._same(name, done[name]) for name in together):
            self.reused += together
            for name in together:
                self.say(f"{name}: reused")
            return
        started = time.monotonic()
        self.before(stage)
        try:
            entries = self.work_on(stage)
        except OSError as error:
            if error.errno is None:
                raise
            raise cannot_write(self._layout.folder, error) from error
        seconds = round((time.monotonic() - started) / len(together), 3)
        stages = {**self.manifest.stages}
        for name in together:
            entry = entries[name]
            stages[name] = entry.model_copy(update={"inputs_digest": self._digests[name], "seconds": seconds})
            self.say(f"{name}: {entry.inputs} in, {entry.passed} passed, {entry.dropped} dropped ({seconds:.1f} s)")
        self.save(self.manifest.model_copy(update={"stages": stages}))

    def _also(self, stage: Stage) -> Any:
        """Sections of the recipe that a pass reads beside those of its stages.

        What later ones have to know is collected while conversations are in memory.
        """
        recipe = self.recipe.model_dump(mode="json")
        names = {"ingest": ("seed", "contrast", "rewrite", "reward"), "rewrite": ("pairs", "screens")}.get(stage, ())
        return {name: recipe[name] for name in names}

    def _same(self, stage: Stage, entry: StageEntry) -> bool:
        return entry.inputs_digest == self._digests[stage] and all(
            (self.run_dir.path / name).is_file() and _size(self.run_dir.path / name) == size
            for name, size in entry.files.items()
        )

    def _entry(
        self,
        stage: Stage,
        counts: tuple[int, int, int],
        reasons: Mapping[str, int],
        files: Sequence[str],
        notes: Mapping[str, Any] | None = None,
    ) -> StageEntry:
        """What the manifest says of a stage; `counts` are of inputs, passed and outputs."""
        inputs, passed, outputs = counts
        dropped = {name: count for name, count in sorted(reasons.items()) if count}
        if inputs != passed + sum(dropped.values()):
            raise ArtefactError(
                f"stage {stage} lost track of its items: {inputs} in, {passed} passed on, {dropped} dropped."
                " This is a defect; please report it."
            )
        return StageEntry(
            inputs_digest="",
            files={name: _size(self.run_dir.path / name) for name in (*files, f"dropped/{stage}.jsonl")},
            inputs=inputs,
            passed=passed,
            dropped=sum(dropped.values()),
            outputs=outputs,
            reasons=dropped,
            seconds=0.0,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            notes={"shards": self._layout.shards, **(notes or {})},
        )

    def _each(self, description: str, work: Callable[[int], Summary], *, here: bool = False) -> list[Summary]:
        """The work on every shard, by whoever does it; `here` in this process, with the run's own clients."""
        shards = range(self._layout.shards)
        found: dict[int, Summary] = {}
        with terminal.progress(description, self._layout.shards) as advance:
            if here:
                for shard in shards:
                    found[shard] = work(shard)
                    advance(1)
            else:
                for number, summary in self._engine.map(work, shards):
                    found[number] = summary
                    advance(1)
        return [found[shard] for shard in shards]

    @abstractmethod
    def work_on(self, stage: Stage) -> dict[Stage, StageEntry]:
        """Do the pass that a stage begins; an entry for each of its stages."""


def _size(path: Path) -> str:
    """Stands for the content of a file that is too large to be read for its digest at every start."""
    return f"size:{path.stat().st_size}"
