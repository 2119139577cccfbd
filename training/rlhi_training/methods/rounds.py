"""Semi-online training (arXiv 2506.21495): sample with the adapter so far, score, pair, train a few steps, and again.

Round 1 trains on the run's own pairs, which the base has written. Every later round runs the stages reward, contrast,
filter and pairs once more with the adapter of the round before as the policy, in ``rounds/NN/``, a run directory of its
own with the same files, funnel and digests; scores come from the recipe's reward model, which does not change.
Optimiser and learning rate go on from round to round. A round that is finished is neither sampled nor trained again;
one that was killed continues from its last answered call or its last checkpoint.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pydantic import Field, ValidationError

from rlhi_adapters.base_models import resolve_base
from rlhi_adapters.digests import adapter_digests
from rlhi_plugin.errors import ArtefactError
from rlhi_plugin.persona import FRAME_DIGEST
from rlhi_plugin.records import Record
from rlhi_training.methods.sampling_round import SAMPLED, RoundPipeline
from rlhi_training.methods.segment import Segment
from rlhi_training.pipeline import Pipeline
from rlhi_training.recipe import Recipe
from rlhi_training.records import Dropped, PreferencePair, ScoredCandidate
from rlhi_training.run_directory import digest_of, digest_path, write_atomically
from rlhi_training.stages.pairs import PAIRS
from rlhi_training.stages.reward import SCORED
from rlhi_training.trainer import TrainResult, train_adapter

ROUNDS = "rounds"
RECORD = "round.json"
_STATE = "state"

_log = logging.getLogger("rlhi.training")


class RoundRecord(Record):
    """rounds/NN/round.json: written last, so that a round without it is not finished."""

    number: int = Field(ge=1)
    inputs_digest: str
    """Over everything that the round's training depends on: recipe, pairs, the adapter before it."""
    sampled_with: str
    """``base``, or the digest of the adapter that wrote the candidates."""
    samples: int = Field(ge=0)
    """Scored candidates of User-Based Rewards."""
    mean_score: float | None = None
    """What that policy earns: mean over requests of their candidates' mean score; None where nothing was scored."""
    best_score: float | None = None
    """Mean over requests of their best candidate's score."""
    funnel: dict[str, dict[str, int]] = Field(default_factory=dict)
    """By stage of the round: ``in``, ``passed``, and dropped items by reason."""
    pairs: int = Field(ge=0)
    trained_pairs: int = Field(ge=0)
    dropped: tuple[Dropped, ...] = ()
    """Pairs that were not trained on; keys of later rounds begin with their number."""
    steps: int = Field(ge=0)
    """Optimiser steps of the whole training when this round ended."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """TRL's, as last logged."""
    seconds: float = Field(ge=0.0)
    """Of the training; the stages' are in the round's manifest."""
    warnings: tuple[str, ...] = ()
    adapter: str
    """Digest of the adapter's weights after the round."""


@dataclass(frozen=True)
class RoundsResult:
    """What all rounds together made.

    Attributes:
        train: As of a training without rounds: all pairs, steps and seconds, the last metrics and adapter.
        pairs: Every round's pairs.
        records: One a round, in order.
    """

    train: TrainResult
    pairs: tuple[PreferencePair, ...]
    records: tuple[RoundRecord, ...]


@dataclass(frozen=True)
class _Material:
    """What a round learns from, and who wrote it."""

    number: int
    path: Path
    pairs: list[PreferencePair]
    scores: list[ScoredCandidate]
    funnel: dict[str, dict[str, int]]
    digest: str
    before: Path | None
    came_from: str


def train_rounds(pipeline: Pipeline, runner: asyncio.Runner) -> RoundsResult:
    """Train ``train.rounds`` rounds of ``train.sync_every`` steps. Ends early where a later round finds no pair.

    Args:
        pipeline: The run, with everything before stage train done.
        runner: Runs the sampling stages; not the training, which must hear Ctrl-C.

    Raises:
        ConfigError: settings that do not fit each other, or no pair left to train on.
        ArtefactError: a file of the run is damaged, or training ended in numbers that are not finite.
        ModelCallError: the adapter or a judge failed at every call.
    """
    recipe = pipeline.recipe
    folder = pipeline.run_dir.path / ROUNDS
    _forget_later(folder, recipe.train.rounds)
    records: list[RoundRecord] = []
    pairs: list[PreferencePair] = []
    warnings: list[str] = []
    for number in range(1, recipe.train.rounds + 1):
        material = _gather(pipeline, folder, number, records[-1].adapter if records else "", runner)
        if not material.pairs:
            warnings.append(f"round {number} found no pair, so training ended with round {number - 1}")
            _log.warning(warnings[-1])
            break
        record = _finished(material, recipe) or _train(material, recipe)
        records.append(record)
        pairs += material.pairs
        pipeline.say(line(record, recipe.train.rounds))
    return _together(pipeline, records, pairs, warnings)


def line(record: RoundRecord, of: int) -> str:
    """One round in one line."""
    score = "" if record.mean_score is None else f", mean score {record.mean_score:.3f}"
    loss = f", loss {record.metrics['loss']:.3f}" if "loss" in record.metrics else ""
    return (
        f"round {record.number} of {of}: {record.samples} samples of {record.sampled_with[:12]}{score}; "
        f"{record.pairs} pairs; {record.steps} steps in all{loss}"
    )


def _forget_later(folder: Path, rounds: int) -> None:
    """Rounds that an earlier, longer training left behind."""
    for path in sorted(folder.glob("[0-9][0-9]")):
        if int(path.name) > rounds:
            shutil.rmtree(path)


def _gather(pipeline: Pipeline, folder: Path, number: int, came_from: str, runner: asyncio.Runner) -> _Material:
    """The run's own pairs, or those of the adapter so far."""
    path, before = folder / f"{number:02d}", folder / f"{number - 1:02d}"
    source = pipeline
    if number > 1:
        source = RoundPipeline(pipeline, path, number, before / "adapter", came_from)
        source.sample(runner)
    directory, stages = source.run_dir, source.manifest.stages
    path.mkdir(parents=True, exist_ok=True)
    return _Material(
        number=number,
        path=path,
        pairs=directory.read(PAIRS, PreferencePair),
        scores=directory.read(SCORED, ScoredCandidate),
        funnel={
            name: {"in": stages[name].inputs, "passed": stages[name].passed, **stages[name].reasons} for name in SAMPLED
        },
        digest=digest_path(directory.path / PAIRS),
        before=before / _STATE if number > 1 else None,
        came_from=came_from,
    )


def _inputs(material: _Material, recipe: Recipe) -> str:
    read = recipe.model_dump(mode="json", include={"model", "train"})
    return digest_of([read, material.digest, material.came_from, material.number])


def _finished(material: _Material, recipe: Recipe) -> RoundRecord | None:
    """The record of a round that needs no training any more."""
    path = material.path
    try:
        record = RoundRecord.model_validate_json((path / RECORD).read_text("utf-8"))
        weights = adapter_digests(path / "adapter").weights
    except (OSError, ValidationError, ArtefactError):
        return None
    usable = (path / _STATE).is_dir() and weights == record.adapter
    return record if usable and record.inputs_digest == _inputs(material, recipe) else None


def _train(material: _Material, recipe: Recipe) -> RoundRecord:
    path = material.path
    (path / RECORD).unlink(missing_ok=True)
    segment = Segment(
        number=material.number,
        of=recipe.train.rounds,
        steps=recipe.train.sync_every,
        before=material.before,
        came_from=material.came_from,
    )
    result = train_adapter(material.pairs, recipe, path, persona_frame_digest=FRAME_DIGEST, segment=segment)
    mean, best = _earned(material.scores)
    mark = "" if material.number == 1 else f"round {material.number}: "
    record = RoundRecord(
        number=material.number,
        inputs_digest=_inputs(material, recipe),
        sampled_with=material.came_from or "base",
        samples=len(material.scores),
        mean_score=mean,
        best_score=best,
        funnel=material.funnel,
        pairs=len(material.pairs),
        trained_pairs=result.trained_pairs,
        dropped=tuple(drop.model_copy(update={"key": mark + drop.key}) for drop in result.dropped),
        steps=result.steps,
        metrics=result.metrics,
        seconds=round(result.seconds, 3),
        warnings=result.warnings,
        adapter=adapter_digests(path / "adapter").weights,
    )
    write_atomically(path / RECORD, record.model_dump_json(indent=2) + "\n")
    return record


def _earned(scores: Sequence[ScoredCandidate]) -> tuple[float | None, float | None]:
    """Mean over requests of the mean, and of the best, score of their candidates."""
    pools: dict[str, list[float]] = defaultdict(list)
    for scored in scores:
        pools[f"{scored.candidate.conversation_id}#{scored.candidate.turn}"].append(scored.score)
    if not pools:
        return None, None
    return fmean(map(fmean, pools.values())), fmean(map(max, pools.values()))


def _together(
    pipeline: Pipeline, records: Sequence[RoundRecord], pairs: Sequence[PreferencePair], warnings: Sequence[str]
) -> RoundsResult:
    """Put the last round's adapter where a run has it, and say what all rounds were."""
    run, last = pipeline.run_dir.path, records[-1]
    source = run / ROUNDS / f"{last.number:02d}"
    shutil.rmtree(run / "adapter", ignore_errors=True)
    shutil.copytree(source / "adapter", run / "adapter")
    log = (source / "training_log.jsonl").read_text("utf-8")
    write_atomically(run / "training_log.jsonl", log)
    train = TrainResult(
        adapter_dir=run / "adapter",
        base=resolve_base(pipeline.recipe.model.base),
        trained_pairs=sum(record.trained_pairs for record in records),
        dropped=tuple(drop for record in records for drop in record.dropped),
        steps=last.steps,
        seconds=sum(record.seconds for record in records),
        metrics=last.metrics,
        log_history=tuple(json.loads(entry) for entry in log.splitlines()),
        warnings=tuple(dict.fromkeys([*(said for record in records for said in record.warnings), *warnings])),
    )
    return RoundsResult(train, tuple(pairs), tuple(records))
