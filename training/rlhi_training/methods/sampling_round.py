"""The stages reward, contrast, filter and pairs once more, with an adapter of this run as the policy."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rlhi_plugin.records import Record
from rlhi_training.generation import derive_seed
from rlhi_training.pipeline import Pipeline
from rlhi_training.records import Stage
from rlhi_training.resources import PolicyClient
from rlhi_training.run_directory import RunDirectory, digest_of, write_records
from rlhi_training.stages.rewrite import REWRITES, REWRITTEN

R = TypeVar("R", bound=Record)

SAMPLED: tuple[Stage, ...] = ("reward", "contrast", "filter", "pairs")
"""What a round does anew. Users' follow-ups are about the logged answers, so rewrites are the first round's alone."""


class RoundDirectory(RunDirectory):
    """A run directory inside another one, whose files it reads where it has none of its own.

    Args:
        path: Of the round.
        outer: The run's directory.
    """

    def __init__(self, path: Path, outer: RunDirectory) -> None:
        super().__init__(path)
        self._outer = outer

    def read(self, name: str, record: type[R]) -> list[R]:
        """All records of one file, the round's or else the run's."""
        return super().read(name, record) if (self.path / name).exists() else self._outer.read(name, record)


class RoundPipeline(Pipeline):
    """One round's sampling.

    Args:
        outer: The run.
        path: Of the round.
        number: 1-based.
        adapter: Folder of the adapter that answers.
        digest: Of its weights: other weights are other answers.
    """

    def __init__(self, outer: Pipeline, path: Path, number: int, adapter: Path, digest: str) -> None:
        # Not the run's own start: log, recipe, models and what is done so far are the outer run's.
        self.recipe = outer.recipe.model_copy(update={"seed": derive_seed(outer.recipe.seed, "round", str(number))})
        self.run_dir = RoundDirectory(path, outer.run_dir)
        self.registry = outer.registry
        self.logs = outer.logs
        self.resources = outer.resources
        self.reused = []
        self.say = lambda _: None
        self._number, self._adapter, self._digest = number, adapter, digest
        for name in (REWRITES, REWRITTEN):
            write_records(self.run_dir.path / name, [])
        known = self.run_dir.manifest()
        own = {name: entry for name, entry in (known.stages if known else {}).items() if name in SAMPLED}
        theirs = {name: entry for name, entry in outer.manifest.stages.items() if name not in SAMPLED}
        self._manifest = outer.manifest.model_copy(
            update={"recipe": self.recipe.model_dump(mode="json"), "seed": self.recipe.seed, "stages": theirs | own}
        )

    def sample(self, runner: asyncio.Runner) -> None:
        """Run the stages; what is done is reused, and answered calls are in the run's journal."""
        with self._policy():
            for stage in SAMPLED:
                self.step(stage, runner)
        self.resources.release()

    def before(self, stage: Stage) -> None:
        """Called when a stage begins to work."""
        self.resources.purpose = f"{stage} of round {self._number}"

    def inputs_digest(self, stage: Stage) -> str:
        """The run's, and which adapter answers."""
        return digest_of([super().inputs_digest(stage), self._digest])

    @contextmanager
    def _policy(self) -> Iterator[None]:
        """The adapter answers for the policy inside, in this process; loaded at the first call."""
        name = f"round-{self._number}-{self._digest[:12]}"
        client = PolicyClient(self.recipe.model, (name, self._adapter))
        try:
            with self.resources.speaking(client):
                yield
        finally:
            client.release()
