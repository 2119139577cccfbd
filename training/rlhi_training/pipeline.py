"""The pipeline: which stage can be reused, and in which order they run (`rlhi_training.steps` says what each reads)."""

from __future__ import annotations

import asyncio
import platform
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from rich.console import RenderableType

from rlhi_plugin import terminal
from rlhi_plugin.errors import UserError
from rlhi_plugin.persona import FRAME_DIGEST
from rlhi_plugin.records import Conversation, Persona
from rlhi_training.filters.contamination import evaluation_files
from rlhi_training.follow_up_table import FollowUpTable, render_follow_ups
from rlhi_training.funnel import identity_notes, main_reasons, render_funnel
from rlhi_training.generation import Sampling
from rlhi_training.log_source import log_source
from rlhi_training.methods.choice import sections
from rlhi_training.methods.hindsight import Hindsight, hindsight
from rlhi_training.preflight import check_base
from rlhi_training.recipe import Recipe
from rlhi_training.records import LabelledTurn, PersonaBefore, PreferencePair, Stage
from rlhi_training.resources import Resources
from rlhi_training.run_directory import (
    Manifest,
    RunDirectory,
    StageEntry,
    StageResult,
    digest_of,
    digest_path,
    writing_to,
)
from rlhi_training.stages.ingest import CONVERSATIONS
from rlhi_training.stages.label import TURNS
from rlhi_training.stages.pairs import PAIRS
from rlhi_training.stages.personas import PERSONAS
from rlhi_training.steps import STEPS, TABLE

STAGES: tuple[Stage, ...] = get_args(Stage)
CALLS = "calls.db"
_PACKAGES = ("rlhi", "torch", "transformers", "trl", "peft", "numpy", "scikit-learn")

Say = Callable[[RenderableType], None]


class Pipeline:
    """One run: a log, a recipe and a run directory.

    Args:
        logs: The conversations (`rlhi_training.log_source`).
        recipe: What to do.
        directory: Where.
        resources: Models and clients; by default what the recipe names.
        registry: Folder of the adapter registry; None is the default one.
        say: Prints lines and tables.
    """

    engine_name = "memory"

    def __init__(
        self,
        logs: str | Path,
        recipe: Recipe,
        directory: RunDirectory,
        *,
        resources: Resources | None = None,
        registry: Path | None = None,
        say: Say = terminal.stdout.print,
    ) -> None:
        self.recipe = recipe
        self.run_dir = directory
        self.registry = registry
        self.logs = log_source(logs)
        self.resources = resources or Resources(recipe)
        self.reused: list[Stage] = []
        self.say = say
        self._manifest = self._open_manifest()

    def run(self, until: Stage = "train") -> Manifest:
        """Run every stage up to and including `until`; what is done already is reused, and said to be.

        Raises:
            UserError: the log cannot be read or holds nothing usable, no pair survived, the run directory has no room
                or no rights, or (before anything is done) the base model cannot be trained as the recipe wants.
            ArtefactError: a file of the run is damaged, or a stage lost items.
            ModelCallError: a model that a stage depends on failed at every call, or cannot be reached.
            BudgetReachedError: the next call could cost more than the budget leaves.
        """
        if STAGES.index(until) >= STAGES.index("rewrite"):
            self.resources.check_pair_sources()
        if until == "train":
            check_base(self.recipe, registry=self.registry)
        journal = self.run_dir.path / CALLS
        with (
            writing_to(self.run_dir.path),
            self.run_dir.locked(),
            self.resources.calling(journal),
            asyncio.Runner() as runner,
        ):
            try:
                for stage in STAGES[: STAGES.index(until) + 1]:
                    self.step(stage, runner)
                    self._after(stage)
            finally:
                # Also after an error or Ctrl-C: what is on its way is paid for.
                runner.run(self.resources.settle())
        return self._manifest

    def step(self, stage: Stage, runner: asyncio.Runner) -> None:
        """Run one stage, or reuse what it made."""
        step = STEPS[stage]
        inputs = self.inputs_digest(stage)
        done = self._manifest.stages.get(stage)
        if done is not None and done.inputs_digest == inputs and self.run_dir.intact(done):
            self.reused.append(stage)
            self.say(f"{stage}: reused")
            return
        started = time.monotonic()
        self.before(stage)
        if stage == "train":
            # Not inside the event loop, which would swallow the first Ctrl-C until training is over.
            result = self._train(runner)
        elif stage in ("rewrite", "reward", "contrast") and not getattr(self.recipe, stage).enabled:
            result = StageResult(0, 0, [], {name: [] for name in step.files}, {"enabled": False})
        else:
            result = runner.run(step.run(self))
        written = self.run_dir.finish(stage, result)
        entry = StageEntry(
            inputs_digest=inputs,
            files=written,
            inputs=result.inputs,
            passed=result.passed,
            dropped=len(result.dropped),
            outputs=len(result.files[step.files[0]]) if step.files else result.passed,
            reasons=dict(sorted(Counter(drop.reason for drop in result.dropped).items())),
            seconds=round(time.monotonic() - started, 3),
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            notes=dict(result.notes or {}),
        )
        self.save(self._manifest.model_copy(update={"stages": {**self._manifest.stages, stage: entry}}))
        self.say(f"{stage}: {entry.inputs} in, {entry.passed} passed, {entry.dropped} dropped ({entry.seconds:.1f} s)")

    def before(self, stage: Stage) -> None:
        """Called when a stage begins to work."""
        self.resources.purpose = stage

    def _after(self, stage: Stage) -> None:
        """Print what a stage is for, and stop where nothing is left to work on."""
        entry = self._manifest.stages[stage]
        if stage == "ingest" and not entry.passed:
            if not entry.inputs:
                raise UserError(f"{self.logs.name} is empty. Write a log with: rlhi export --out logs.jsonl")
            raise UserError(
                f"no conversation in {self.logs.name} can be used: {main_reasons([entry])}."
                f" {self.where_dropped(stage)}, and check that it is a conversation log."
            )
        if stage == "ingest":
            for line in identity_notes(self._manifest):
                self.say(line)
        if stage == "label":
            text = (self.run_dir.path / TABLE).read_text("utf-8")
            self.say(render_follow_ups(FollowUpTable.model_validate_json(text)))
        if stage == "pairs":
            self.say(render_funnel(self._manifest))
            if not entry.passed and self.recipe.train.method != "self_distillation":
                makers: list[Stage] = ["rewrite", "reward", "contrast", "filter"]
                reasons = main_reasons([self._manifest.stages[name] for name in makers])
                raise UserError(
                    f"no usable pairs. Dropped: {reasons or 'nothing, every pair source is off or had no input'}."
                    f" See {self.run_dir.path / 'dropped'}; more conversations with feedback, or other limits in the"
                    " recipe (--set), may help."
                )

    def where_dropped(self, stage: Stage) -> str:
        """Where a reader finds what a stage dropped: the beginning of a sentence."""
        return f"See {self.run_dir.path / 'dropped' / f'{stage}.jsonl'}"

    def _train(self, runner: asyncio.Runner) -> StageResult:
        from rlhi_training.train_stage import train, train_in_rounds

        self.resources.release()
        turns = {turn.key: turn for turn in self.turns()}
        if self.recipe.train.rounds > 1:
            return train_in_rounds(self, turns, runner)
        material: list[PreferencePair] | Hindsight = self.run_dir.read(PAIRS, PreferencePair)
        if self.recipe.train.method == "self_distillation":
            prompts = self.resources.evaluation_prompts
            material = hindsight(turns.values(), self.personas_before(), self.recipe, prompts)
        return train(self.run_dir, material, turns, self.recipe, self.registry)

    # What stages read.

    @property
    def manifest(self) -> Manifest:
        """What is done so far."""
        return self._manifest

    def conversations(self) -> list[Conversation]:
        """Usable conversations, in file order."""
        return self.run_dir.read(CONVERSATIONS, Conversation)

    def turns(self) -> list[LabelledTurn]:
        """Answered user messages with their labels."""
        return self.run_dir.read(TURNS, LabelledTurn)

    def personas_before(self) -> dict[str, Persona | None]:
        """By conversation: the persona as of its beginning, or None."""
        return {entry.conversation_id: entry.persona for entry in self.run_dir.read(PERSONAS, PersonaBefore)}

    def sampling(self, stage: Stage) -> Sampling:
        """How a stage samples; each has its own seed."""
        model = self.recipe.model
        seed = int(digest_of([self.recipe.seed, stage])[:8], 16)
        return Sampling(model.temperature, model.max_new_tokens, seed)

    # The manifest.

    def _open_manifest(self) -> Manifest:
        old = self.run_dir.manifest()
        if self.logs.exists:
            digest = self.logs.digest()
        elif old is not None and old.logs == self.logs.name:
            digest = old.logs_digest
        else:
            self.logs.require()
        return Manifest(
            recipe=self.recipe.model_dump(mode="json"),
            logs=self.logs.name,
            logs_digest=digest,
            versions={"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
            seed=self.recipe.seed,
            engine=self.engine_name,
            stages=old.stages if old else {},
        )

    def save(self, manifest: Manifest) -> None:
        """Make the manifest so, on disk too."""
        self._manifest = manifest
        self.run_dir.write_manifest(manifest)

    def made_by(self, stage: Stage) -> dict[str, str]:
        """What stands for the output of an earlier stage in the digests of later ones."""
        made = self._manifest.stages[stage].files
        return {path: digest for path, digest in made.items() if not path.startswith("dropped/")}

    def _frozen_split(self) -> dict[str, str]:
        frozen = self.recipe.split.frozen
        return {"frozen": digest_path(Path(frozen))} if frozen and Path(frozen).is_file() else {}

    def inputs_digest(self, stage: Stage) -> str:
        """What the stage's output depends on: log, sections of the recipe, earlier stages, prompts, version."""
        step = STEPS[stage]
        earlier = {name: self.made_by(name) for name in step.upstream}
        recipe = self.recipe.model_dump(mode="json")
        beside: dict[str, Any] = {**self.logs.beside(), **self._frozen_split()} if stage == "ingest" else {}
        if stage == "train":
            beside |= sections(self.recipe)
        if stage == "filter":
            files_read = evaluation_files(self.recipe.filter.evaluation_prompts)
            beside |= {"evaluation_prompts": [digest_path(path) for path in files_read]} if files_read else {}
        return digest_of(
            {
                **beside,
                "stage": stage,
                "version": _version("rlhi"),
                "logs": self._manifest.logs_digest if stage == "ingest" else None,
                "recipe": {section: recipe[section] for section in step.sections},
                "upstream": earlier,
                "texts": {name: digest_path(Path(str(files("rlhi_training") / name))) for name in step.texts},
                "frame": FRAME_DIGEST,
            }
        )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
