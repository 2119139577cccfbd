"""The pipeline: which stage reads what, which one can be reused, and in which order they run.

Read `STEPS` as the table of contents of the package.
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from rich.console import RenderableType

from rlhi_plugin import terminal
from rlhi_plugin.errors import ArtefactError, UserError
from rlhi_plugin.persona import FRAME_DIGEST
from rlhi_plugin.records import Conversation, FollowUp, Persona
from rlhi_training.export import export_pairs
from rlhi_training.filters.contamination import evaluation_files
from rlhi_training.follow_up_table import FollowUpTable, follow_up_table, render_follow_ups
from rlhi_training.funnel import identity_notes, main_reasons, render_funnel
from rlhi_training.generation import Sampling
from rlhi_training.log_source import log_source
from rlhi_training.methods.choice import sections
from rlhi_training.methods.hindsight import Hindsight, hindsight
from rlhi_training.preflight import check_base
from rlhi_training.recipe import Recipe
from rlhi_training.records import (
    Candidate,
    LabelledTurn,
    PersonaBefore,
    PreferencePair,
    ProposedPair,
    ScoredCandidate,
    Stage,
)
from rlhi_training.resources import Resources
from rlhi_training.run_directory import (
    Manifest,
    RunDirectory,
    StageEntry,
    StageResult,
    digest_of,
    digest_path,
    write_atomically,
)
from rlhi_training.stages.audience import Audience
from rlhi_training.stages.contrast import CONTRASTS, Material, contrast
from rlhi_training.stages.fewer_users import keep_fewer_users
from rlhi_training.stages.filter import KEPT, filter_pairs
from rlhi_training.stages.ingest import CONVERSATIONS, HELD_OUT, SPLIT, ingest
from rlhi_training.stages.label import FOLLOW_UPS, TURNS, label
from rlhi_training.stages.pairs import PAIRS
from rlhi_training.stages.personas import LATEST, PERSONAS, personas
from rlhi_training.stages.reward import REWARDS, SCORED, reward
from rlhi_training.stages.rewrite import REWRITES, REWRITTEN, Writers, rewrite

STAGES: tuple[Stage, ...] = get_args(Stage)
TABLE = "follow_ups.json"
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
        self._say = say
        self._manifest = self._open_manifest()

    def run(self, until: Stage = "train") -> Manifest:
        """Run every stage up to and including `until`; what is done already is reused, and said to be.

        Raises:
            UserError: the log cannot be read or holds nothing usable, no pair survived, or (before anything is done)
                the base model cannot be trained as the recipe wants.
            ArtefactError: a file of the run is damaged, or a stage lost items.
            ModelCallError: a model that a stage depends on failed at every call, or cannot be reached.
            BudgetReachedError: the next call could cost more than the budget leaves.
        """
        if STAGES.index(until) >= STAGES.index("rewrite"):
            self.resources.check_pair_sources()
        if until == "train":
            check_base(self.recipe, registry=self.registry)
        journal = self.run_dir.path / CALLS
        with self.run_dir.locked(), self.resources.calling(journal), asyncio.Runner() as runner:
            try:
                for stage in STAGES[: STAGES.index(until) + 1]:
                    self._step(stage, runner)
                    self._after(stage)
            finally:
                # Also after an error or Ctrl-C: what is on its way is paid for.
                runner.run(self.resources.settle())
        return self._manifest

    def _step(self, stage: Stage, runner: asyncio.Runner) -> None:
        step = STEPS[stage]
        inputs = self._inputs_digest(stage)
        done = self._manifest.stages.get(stage)
        if done is not None and done.inputs_digest == inputs and self.run_dir.intact(done):
            self.reused.append(stage)
            self._say(f"{stage}: reused")
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
            reasons=_count([drop.reason for drop in result.dropped]),
            seconds=round(time.monotonic() - started, 3),
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            notes=dict(result.notes or {}),
        )
        self._save(self._manifest.model_copy(update={"stages": {**self._manifest.stages, stage: entry}}))
        self._say(f"{stage}: {entry.inputs} in, {entry.passed} passed, {entry.dropped} dropped ({entry.seconds:.1f} s)")

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
                self._say(line)
        if stage == "label":
            text = (self.run_dir.path / TABLE).read_text("utf-8")
            self._say(render_follow_ups(FollowUpTable.model_validate_json(text)))
        if stage == "pairs":
            self._say(render_funnel(self._manifest))
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
        material: Sequence[PreferencePair] | Hindsight = self.run_dir.read(PAIRS, PreferencePair)
        if self.recipe.train.method == "self_distillation":
            prompts = self.resources.evaluation_prompts
            material = hindsight(turns.values(), self.personas_before(), self.recipe, prompts)
        return train(self.run_dir, material, turns, self.recipe, self.registry)

    def tell(self, text: str) -> None:
        """Print a line."""
        self._say(text)

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
            stages=old.stages if old else {},
        )

    def _save(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self.run_dir.write_manifest(manifest)

    def _frozen_split(self) -> dict[str, str]:
        frozen = self.recipe.split.frozen
        return {"frozen": digest_path(Path(frozen))} if frozen and Path(frozen).is_file() else {}

    def _inputs_digest(self, stage: Stage) -> str:
        """What the stage's output depends on: log, sections of the recipe, earlier stages, prompts, version."""
        step = STEPS[stage]
        earlier = {}
        for name in step.upstream:
            made = self._manifest.stages[name].files
            earlier[name] = {path: digest for path, digest in made.items() if not path.startswith("dropped/")}
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


@dataclass(frozen=True)
class Step:
    """A stage's place in the pipeline.

    Attributes:
        run: Reads what it needs and runs the stage.
        files: What the stage writes; the first is its output.
        sections: Sections of the recipe that it reads.
        upstream: Stages whose files it reads.
        texts: Files of this package that decide its output: prompts, prototypes, examples.
    """

    run: Callable[[Pipeline], Coroutine[None, None, StageResult]]
    files: tuple[str, ...]
    sections: tuple[str, ...]
    upstream: tuple[Stage, ...] = ()
    texts: tuple[str, ...] = ()


async def _ingest(pipeline: Pipeline) -> StageResult:
    logs, recipe = pipeline.logs, pipeline.recipe
    result = ingest(logs.conversations(), recipe, logs.tombstones(), logs.exclusions())
    return keep_fewer_users(result, CONVERSATIONS, recipe.users.max_users, recipe.seed)


async def _label(pipeline: Pipeline) -> StageResult:
    conversations = pipeline.conversations()
    result = await label(conversations, pipeline.resources.labeller, pipeline.recipe.ingest)
    follow_ups = [record for record in result.files[FOLLOW_UPS] if isinstance(record, FollowUp)]
    table = follow_up_table(conversations, follow_ups, (result.notes or {})["labeller"])
    write_atomically(pipeline.run_dir.path / TABLE, table.model_dump_json(indent=2) + "\n")
    notes = {**(result.notes or {}), "table": table.model_dump(mode="json")}
    return StageResult(result.inputs, result.passed, result.dropped, result.files, notes, [TABLE])


async def _personas(pipeline: Pipeline) -> StageResult:
    conversations = pipeline.conversations()
    if not pipeline.recipe.personas.enabled:
        off = [
            PersonaBefore(conversation_id=c.conversation_id, user_id=c.user_id, why_none="personas_off")
            for c in conversations
        ]
        return StageResult(len(off), len(off), [], {PERSONAS: off, LATEST: []}, {"enabled": False})
    follow_ups = pipeline.run_dir.read(FOLLOW_UPS, FollowUp)
    return await personas(conversations, follow_ups, pipeline.resources.persona_builder)


async def _rewrite(pipeline: Pipeline) -> StageResult:
    section, resources = pipeline.recipe.rewrite, pipeline.resources
    return await rewrite(
        pipeline.turns(),
        pipeline.personas_before(),
        Writers(rewriter=resources.client(section.llm), policy=resources.client()),
        (resources.asked_for, resources.encoder),
        (section, pipeline.sampling("rewrite")),
    )


async def _reward(pipeline: Pipeline) -> StageResult:
    resources = pipeline.resources
    return await reward(
        pipeline.turns(),
        pipeline.personas_before(),
        resources.client(),
        (resources.reward_model, resources.asked_for),
        (pipeline.recipe.reward, pipeline.sampling("reward")),
    )


async def _contrast(pipeline: Pipeline) -> StageResult:
    before = pipeline.run_dir.read(PERSONAS, PersonaBefore)
    section, resources = pipeline.recipe.contrast, pipeline.resources
    material = Material(
        audience=Audience(pipeline.conversations(), before, pipeline.run_dir.read(LATEST, Persona)),
        asked_for=resources.asked_for,
        more=_more_candidates(pipeline),
        reward_model=resources.reward_model if section.rank_by == "reward_model" else None,
    )
    return await contrast(
        pipeline.turns(),
        material,
        resources.client(),
        (section, pipeline.sampling("contrast")),
    )


def _more_candidates(pipeline: Pipeline) -> dict[str, list[Candidate]]:
    """By turn, what the stages before contrast wrote, as far as the recipe lets it into the pools."""
    section = pipeline.recipe.contrast
    written = pipeline.run_dir.read(REWRITTEN, Candidate) if section.use_rewrites else []
    if section.use_samples:
        written += [scored.candidate for scored in pipeline.run_dir.read(SCORED, ScoredCandidate)]
    more: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in written:
        more[f"{candidate.conversation_id}#{candidate.turn}"].append(candidate)
    return more


async def _filter(pipeline: Pipeline) -> StageResult:
    proposed = [p for name in (REWRITES, REWARDS, CONTRASTS) for p in pipeline.run_dir.read(name, ProposedPair)]
    turns = {turn.key: turn for turn in pipeline.turns()}
    recipe, resources = pipeline.recipe, pipeline.resources
    tools = (resources.encoder, resources.rewrite_judges, resources.evaluation_prompts)
    return await filter_pairs(proposed, turns, tools, recipe.filter, recipe.seed)


async def _pairs(pipeline: Pipeline) -> StageResult:
    return export_pairs(pipeline.run_dir, pipeline.recipe, pipeline.manifest)


async def _no_loop(_: Pipeline) -> StageResult:
    raise ArtefactError("training does not run in the event loop. This is a defect; please report it.")


_READING = ("asked_for.toml",)
_SCREENS = ("screens/jailbreak.toml", "screens/refusal.toml")
STEPS: dict[Stage, Step] = {
    "ingest": Step(
        _ingest, (CONVERSATIONS, HELD_OUT, SPLIT), ("seed", "ingest", "screens", "split", "users"), (), _SCREENS
    ),
    "label": Step(_label, (TURNS, FOLLOW_UPS), ("ingest", "label"), ("ingest",), ("labelling/weights",)),
    "personas": Step(_personas, (PERSONAS, LATEST), ("personas",), ("ingest", "label")),
    "rewrite": Step(
        _rewrite, (REWRITES, REWRITTEN), ("seed", "model", "rewrite"), ("label", "personas"), (*_READING, "prompts")
    ),
    "reward": Step(
        _reward, (REWARDS, SCORED), ("seed", "model", "reward"), ("label", "personas"), (*_READING, "prompts")
    ),
    "contrast": Step(
        _contrast,
        (CONTRASTS,),
        # The reward model is one of contrast's, and its candidates are.
        ("seed", "model", "reward", "contrast"),
        ("ingest", "label", "personas", "rewrite", "reward"),
        (*_READING, "prompts"),
    ),
    "filter": Step(
        _filter,
        (KEPT,),
        ("seed", "model", "reward", "filter"),
        ("label", "rewrite", "reward", "contrast"),
        ("prompts",),
    ),
    "pairs": Step(
        _pairs,
        (PAIRS,),
        ("seed", "pairs", "contrast", "screens", "dataset"),
        ("ingest", "label", "filter"),
        ("screens/refusal.toml",),
    ),
    "train": Step(_no_loop, (), ("name", "seed", "model", "train"), ("label", "personas", "pairs")),
}
"""Every stage, in order."""


def _count(names: Sequence[str]) -> dict[str, int]:
    return {name: names.count(name) for name in sorted(set(names))}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
