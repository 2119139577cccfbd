"""Which stage reads what: `STEPS` is the table of contents of the package."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhi_plugin.errors import ArtefactError
from rlhi_plugin.records import FollowUp, Persona
from rlhi_training.export import export_pairs
from rlhi_training.follow_up_table import follow_up_table
from rlhi_training.records import Candidate, PersonaBefore, ProposedPair, ScoredCandidate, Stage
from rlhi_training.run_directory import StageResult, write_atomically
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

if TYPE_CHECKING:
    from rlhi_training.pipeline import Pipeline

TABLE = "follow_ups.json"


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
