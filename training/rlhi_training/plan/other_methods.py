"""What training methods ask for beyond the stages: later rounds' samples, and the sequences of self-distillation."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rlhi_training.methods.hindsight import HindsightTurn, hindsight
from rlhi_training.methods.rounds import ROUNDS
from rlhi_training.methods.sampling_round import RoundPipeline
from rlhi_training.pipeline import Pipeline
from rlhi_training.plan.stand_ins import Ledger
from rlhi_training.plan.tokens import TokenCounter
from rlhi_training.records import Stage
from rlhi_training.run_directory import StageEntry

_ASKING: tuple[Stage, ...] = ("reward", "contrast")
"""Stages of a round that ask a model."""


@dataclass(frozen=True)
class Logged:
    """Logged answers that self-distillation learns from.

    Attributes:
        turns: Turns whose follow-up carries feedback.
        prompts: Tokens of each kept one's prompt.
        teacher_prompts: The same with the follow-up shown.
        answers: Tokens of its answer.
    """

    turns: int
    prompts: tuple[int, ...]
    teacher_prompts: tuple[int, ...]
    answers: tuple[int, ...]


class ForecastRound(RoundPipeline):
    """The sampling of one later round, asking the stand-ins of the run's forecast."""

    def __init__(self, outer: Pipeline, number: int, ledger: Ledger) -> None:
        path = outer.run_dir.path / ROUNDS / f"{number:02d}"
        super().__init__(outer, path, number, path / "adapter", f"forecast {number}")
        self._ledger = ledger
        # Another adapter's answers are other answers, which are judged anew.
        ledger.forget()

    def before(self, stage: Stage) -> None:
        """See `Pipeline.before`."""
        self._ledger.stage = f"{stage} of round {self._number}"

    def sample(self, runner: asyncio.Runner) -> None:
        """Run the stages that ask."""
        for stage in _ASKING:
            self.step(stage, runner)


def later_rounds(pipeline: Pipeline, ledger: Ledger) -> tuple[Mapping[Stage, StageEntry], ...]:
    """What the stages of every round after the first would do, in order; calls are written down on the way.

    Args:
        pipeline: A forecast whose stages are done.
        ledger: Its.
    """
    made = []
    with asyncio.Runner() as runner:
        for number in range(2, pipeline.recipe.train.rounds + 1):
            later = ForecastRound(pipeline, number, ledger)
            later.sample(runner)
            made.append({stage: later.manifest.stages[stage] for stage in _ASKING})
    return tuple(made)


def logged_answers(pipeline: Pipeline, counter: TokenCounter) -> Logged | None:
    """What self-distillation would learn from, too long ones left out; None for methods that learn from pairs."""
    recipe = pipeline.recipe
    if recipe.train.method != "self_distillation":
        return None
    # The files of evaluation prompts need not be here yet.
    named = [Path(name) for name in recipe.filter.evaluation_prompts]
    evaluation = pipeline.resources.evaluation_prompts if all(path.exists() for path in named) else None
    found = hindsight(pipeline.turns(), pipeline.personas_before(), recipe, evaluation)
    sizes = [_sizes(turn, counter) for turn in found.turns]
    kept = [size for size in sizes if max(size[:2]) + size[2] <= recipe.train.max_length]
    prompts, shown, answers = zip(*kept, strict=True) if kept else ((), (), ())
    return Logged(len(found.turns) + len(found.dropped), prompts, shown, answers)


def _sizes(turn: HindsightTurn, counter: TokenCounter) -> tuple[int, int, int]:
    return counter.prompt(turn.prompt), counter.prompt(turn.teacher_prompt), counter.text(turn.answer)
