"""How much a training computes: which sequences, how often, and the largest pass.

A step of DPO takes pairs, two sequences each, and the reference reads them once before. SFT takes the chosen sequence
alone. Self-distillation takes logged answers; its teacher reads them with their follow-up, once, or at every step where
it is the model as it is. Rounds take a number of steps that does not depend on how many pairs there are. Prefixes are
counted as often as they stand in a sequence: what sharing them saves is not promised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlhi_training.plan.other_methods import Logged
from rlhi_training.plan.training_memory import Load
from rlhi_training.train_options import TrainSection


@dataclass(frozen=True, slots=True)
class TrainingWork:
    """What all of a run's trainings together compute.

    Attributes:
        trainings: 1, or one a round.
        steps: Optimiser steps.
        forward: Tokens that go forward: of the policy, of the reference, of the teacher.
        backward: Tokens that gradients go back through.
        load: The largest pass with gradients.
    """

    trainings: int
    steps: int
    forward: float
    backward: float
    load: Load


@dataclass(frozen=True, slots=True)
class Sizes:
    """Tokens of pairs that do not exist yet.

    Attributes:
        count: Pairs.
        prompt: Of the average prompt.
        answer: Of the average answer.
        longest: Of the longest prompt with its answer.
    """

    count: int
    prompt: float
    answer: float
    longest: float


def of_pairs(train: TrainSection, sizes: Sizes) -> TrainingWork:
    """DPO or SFT on pairs, offline or in rounds."""
    sequences = 1 if train.method == "sft" else 2
    each = sequences * (sizes.prompt + sizes.answer)
    steps = _steps(train, sizes.count) if train.rounds == 1 else train.rounds * train.sync_every
    if train.rounds == 1:
        seen, asked = sizes.count * train.epochs, float(sizes.count)
    else:
        # Every row of a round's steps is a pair of its own to the reference, copies included.
        seen = asked = float(steps * train.batch_size)
    reference = asked if train.method == "dpo" else 0.0
    load = _load(train, round(sizes.longest), round(sizes.answer), answers=sequences)
    return TrainingWork(train.rounds, steps, each * (seen + reference), each * seen, load)


def of_logged(train: TrainSection, found: Logged) -> TrainingWork:
    """Self-distillation."""
    student = sum(found.prompts) + sum(found.answers)
    teacher = sum(found.teacher_prompts) + sum(found.answers)
    asked = train.epochs if train.teacher == "current" else 1.0
    longest = max((p + a for p, a in zip(found.prompts, found.answers, strict=True)), default=0)
    load = _load(train, longest, max(found.answers, default=0), answers=1)
    forward = student * train.epochs + teacher * asked
    return TrainingWork(1, _steps(train, len(found.answers)), forward, student * train.epochs, load)


def _steps(train: TrainSection, rows: int) -> int:
    return math.ceil(math.ceil(rows / train.batch_size) * train.epochs) if rows else 0


def _load(train: TrainSection, longest: int, answer: int, *, answers: int) -> Load:
    """The largest pass: the token budget where there is one, else items of the longest prompt."""
    item = longest + (answers - 1) * answer if train.share_prefixes else answers * longest
    tokens = train.token_budget or item * train.micro_batch_size
    scored = max(1, tokens // max(1, item)) * answers * answer
    return Load(max(tokens, item), min(tokens, scored), item)
