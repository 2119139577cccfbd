"""A plan: the forecast's numbers in one record; `rlhi_training.plan.rendering` shows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rlhi_plugin.records import Record
from rlhi_training.labelling.tiers import ASKING
from rlhi_training.plan import hardware, power
from rlhi_training.plan.filtering import asks
from rlhi_training.plan.forecast import FREE_LABELLER, Forecast, forecast, guided
from rlhi_training.plan.money import ELSEWHERE, cost, listed_price, price_of
from rlhi_training.plan.stand_ins import SHORT, Counted
from rlhi_training.plan.training_memory import SPARE, DType, slowdown, training_memory, would_fit
from rlhi_training.plan.training_work import Sizes, TrainingWork, of_logged, of_pairs
from rlhi_training.recipe import Recipe
from rlhi_training.run_directory import StageEntry

YIELDS: dict[str, tuple[float, float]] = {"rewrite": (0.19, 0.86), "reward": (0.33, 0.90), "contrast": (0.79, 0.93)}
"""Usable pairs an item that a stage works on. Measured on our own runs, but for the upper ends of the first two:
rewrites 0.19 to 0.40 with the embedded model, 0.86 of invented complaints met by 6 samples; rewards 0.33 to 0.58 with
the embedded reward, which a judge of ten grades should exceed; contrast, for each specification that a persona asked
for, 0.79 to 0.93 after the filter."""
HELD_OUT = 0.2
"""Share of the users with a history that an evaluation keeps to itself where the recipe holds nobody out (ours)."""


class PlannedCalls(Record):
    """What one stage asks of one model."""

    stage: str
    model: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    """None where the price is not known; 0 in this process."""


class PlannedPairs(Record):
    """What one method yields."""

    method: str
    """Names the round, too, where it is a later one; ``self_distillation`` yields logged answers, not pairs."""
    items: int
    """Turns that it works on; for contrast, specifications of candidates."""
    low: int
    high: int


class PlannedTraining(Record):
    """What is trained."""

    method: str
    trainings: int
    """One, or one a round."""
    steps: int
    """Optimiser steps, all trainings together."""
    forward_tokens: int
    """Of policy, reference and teacher."""
    backward_tokens: int


class Gpu(Record):
    """What the policy takes on one card."""

    card: str
    memory_gib: float
    """At the peak of training: the sum of the next four. What scoring takes is `scoring_gib`."""
    base_gib: float
    adapter_gib: float
    """Weights, gradients and the optimiser's moments."""
    activations_gib: float
    answers_gib: float
    fits: bool
    would_fit_with: str | None
    """Options with which it would; None where it does, or where nothing helps."""
    writing_hours: float
    scoring_hours: float
    """Of a trained reward model; 0 where there is none."""
    scoring_gib: float
    """Weights of the policy and of that reward model, which are on the card together while answers are scored."""
    training_hours: float


class Evaluation(Record):
    """What an evaluation on held-out users of this log could see."""

    users: int
    answers_per_user: float
    detectable_points: float | None
    users_for_3_points: int
    users_for_5_points: int


class Plan(Record):
    """Everything that a run will take."""

    schema_version: int = 1
    logs: str
    recipe: str
    rows: int
    """Of the log."""
    left_out: dict[str, int]
    """Rows that would not train, by reason: what cannot be read, what screens drop, who is held out."""
    conversations: int
    anonymous: int
    """Of these, conversations without a user: no persona can be known."""
    turns: int
    pairs: tuple[PlannedPairs, ...]
    calls: tuple[PlannedCalls, ...]
    total_calls: int
    total_prompt_tokens: int
    total_completion_tokens: int
    usd: float | None
    """Of the recipe's models; None where a price is not known."""
    elsewhere: dict[str, float | None]
    """US dollars for the hosted calls, or where there are none for all calls, with other models; None: not known."""
    training: PlannedTraining
    gpu: tuple[Gpu, ...]
    evaluation: Evaluation
    assumptions: tuple[str, ...]


def make_plan(
    logs: str | Path,
    recipe: Recipe,
    *,
    price_of_others: Sequence[str] = (),
    held_out: float | None = None,
    **stand_ins: Any,
) -> Plan:
    """Plan a run; see `forecast` for the other arguments and what is raised.

    Args:
        logs: The conversation log.
        recipe: What would be done.
        price_of_others: Models whose price is named too.
        held_out: Share of the users with a history to evaluate on; None: those whom the recipe holds out.
        stand_ins: For `forecast`.
    """
    found = forecast(logs, recipe, **stand_ins)
    hosted = _hosted(found, recipe)
    calls = tuple(_planned(row, recipe, hosted=row in hosted) for row in found.calls)
    known = [row.usd for row in calls]
    pairs = tuple(_pairs(found, recipe))
    work = _work(found, recipe, pairs)
    ingest = found.manifest.stages["ingest"]
    return Plan(
        logs=str(logs),
        recipe=recipe.name,
        rows=ingest.inputs,
        left_out=ingest.reasons,
        conversations=found.conversations,
        anonymous=ingest.notes["identity"]["anonymous"],
        turns=found.manifest.stages["label"].passed,
        pairs=pairs,
        calls=calls,
        total_calls=sum(row.calls for row in calls),
        total_prompt_tokens=sum(row.prompt_tokens for row in calls),
        total_completion_tokens=sum(row.completion_tokens for row in calls),
        usd=None if None in known else sum(usd for usd in known if usd is not None),
        elsewhere=_elsewhere(hosted or found.calls, price_of_others),
        training=PlannedTraining(
            method=recipe.train.method,
            trainings=work.trainings,
            steps=work.steps,
            forward_tokens=round(work.forward),
            backward_tokens=round(work.backward),
        ),
        gpu=_gpu(found, recipe, hosted, work),
        evaluation=_evaluation(found, recipe, held_out),
        assumptions=tuple(_assumptions(found, recipe, held_out)),
    )


def _elsewhere(calls: Sequence[Counted], others: Sequence[str]) -> dict[str, float | None]:
    """What the calls cost with our choice of models, as far as they have a price, and with those that were named."""
    prices = {name: listed_price(name) for name in (*ELSEWHERE, *others)}
    return {
        name: None if price is None else round(cost(calls, price), 4)
        for name, price in prices.items()
        if calls and (price is not None or name in others)
    }


def _hosted(found: Forecast, recipe: Recipe) -> list[Counted]:
    here = {recipe.model.base} if recipe.model.served is None else set()
    return [row for row in found.calls if row.model not in here]


def _planned(row: Counted, recipe: Recipe, *, hosted: bool) -> PlannedCalls:
    price = price_of(row.model, recipe) if hosted else None
    usd = (None if price is None else cost([row], price)) if hosted else 0.0
    return PlannedCalls(
        stage=row.stage,
        model=row.model,
        calls=row.calls,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        usd=usd,
    )


def _pairs(found: Forecast, recipe: Recipe) -> Iterator[PlannedPairs]:
    stages = found.manifest.stages
    if found.logged is not None:
        kept = len(found.logged.answers)
        yield PlannedPairs(method="self_distillation", items=found.logged.turns, low=kept, high=kept)
    for method in YIELDS:
        items = found.guided if method == "contrast" else _worked_on(stages[method])
        yield _yielded(method, method, items, recipe)
    for number, later in enumerate(found.later, start=2):
        for stage, entry in later.items():
            items = guided(entry, recipe) if stage == "contrast" else _worked_on(entry)
            yield _yielded(stage, f"{stage} of round {number}", items, recipe)


def _worked_on(entry: StageEntry) -> int:
    left_out = ("over_limit", "too_long", "no_persona", "nothing_checkable")
    return max(0, entry.inputs - sum(entry.reasons.get(why, 0) for why in left_out))


def _yielded(stage: str, method: str, items: int, recipe: Recipe) -> PlannedPairs:
    cap = recipe.filter.max_pairs or 10**12
    low, high = YIELDS[stage]
    return PlannedPairs(method=method, items=items, low=min(cap, int(low * items)), high=min(cap, round(high * items)))


def _work(found: Forecast, recipe: Recipe, pairs: Sequence[PlannedPairs]) -> TrainingWork:
    if found.logged is not None:
        return of_logged(recipe.train, found.logged)
    written = [row for row in found.calls if row.stage.partition(" ")[0] in YIELDS and row.calls]
    each = [row.prompt_tokens / row.calls for row in written] or [0.0]
    most = float(recipe.train.max_length)
    count = min(recipe.filter.max_pairs or 10**12, sum((row.low + row.high) // 2 for row in pairs))
    longest = min(most, max([row.longest_prompt for row in written], default=0) + found.answer_tokens)
    return of_pairs(recipe.train, Sizes(count, min(most, sum(each) / len(each)), found.answer_tokens, longest))


def _gpu(found: Forecast, recipe: Recipe, hosted: Sequence[Counted], work: TrainingWork) -> tuple[Gpu, ...]:
    shape = hardware.shape_of(recipe.model.base)
    if shape is None:
        return ()
    own = [row for row in found.calls if row not in hosted]
    judge = hardware.shape_of(recipe.reward.classifier or "") if found.scored.answers else None
    together = 0.0 if judge is None else hardware.BYTES * (judge.parameters + shape.parameters * bool(own))
    load = work.load
    dtype: DType = "float32" if recipe.model.dtype == "float32" else "bfloat16"
    memory = training_memory(shape, recipe.train, load, dtype=dtype)
    return tuple(
        Gpu(
            card=card.name,
            memory_gib=round(memory.gib, 1),
            base_gib=round(memory.base / hardware.GIB, 2),
            adapter_gib=round(memory.adapter / hardware.GIB, 2),
            activations_gib=round(memory.activations / hardware.GIB, 2),
            answers_gib=round(memory.answers / hardware.GIB, 2),
            fits=max(memory.gib, together / hardware.GIB) <= SPARE * card.memory_gib,
            would_fit_with=None
            if memory.gib <= SPARE * card.memory_gib
            else would_fit(shape, recipe.train, load, card.memory_gib, dtype=dtype),
            writing_hours=round(
                hardware.writing_hours(
                    shape,
                    card,
                    prompt_tokens=sum(row.prompt_tokens for row in own),
                    completion_tokens=sum(row.completion_tokens for row in own),
                ),
                6,
            ),
            scoring_hours=round(0.0 if judge is None else hardware.reading_hours(judge, card, found.scored.tokens), 6),
            scoring_gib=round(together / hardware.GIB, 2),
            training_hours=round(
                slowdown(recipe.train)
                * hardware.training_hours(shape, card, forward=work.forward, backward=work.backward),
                6,
            ),
        )
        for card in hardware.CARDS
    )


def _evaluation(found: Forecast, recipe: Recipe, held_out: float | None) -> Evaluation:
    own = held_out is None and recipe.split.held_out_users > 0
    asked = found.held_out if own else found.history
    users = len(asked) if own else round((HELD_OUT if held_out is None else held_out) * len(asked))
    answers = sum(asked.values()) / len(asked) if asked else 1.0
    seen = power.detectable(users, answers)
    return Evaluation(
        users=users,
        answers_per_user=round(answers, 2),
        detectable_points=None if seen is None else round(seen, 1),
        users_for_3_points=power.users_for(3, answers),
        users_for_5_points=power.users_for(5, answers),
    )


def _assumptions(found: Forecast, recipe: Recipe, held_out: float | None) -> Iterator[str]:
    yield f"tokens are counted by {found.counted_by}; a schema that a provider adds to the prompt is not counted"
    yield (
        f"new answers are as long as those in the log ({found.answer_tokens:.0f} tokens), cut at model.max_new_tokens, "
        f"and {SHORT:.0%} of that where a short one is asked for"
    )
    if found.scored.answers and hardware.shape_of(recipe.reward.classifier or "") is None:
        yield "the reward model's GPU memory and hours are not counted, since its name tells no size"
    if recipe.label.labeller in ASKING and recipe.label.llm is not None:
        yield f"follow-ups are what the {FREE_LABELLER} labeller takes them for"
    if recipe.personas.builder == "llm":
        yield "personas are as long as quotations of the feedback"
    if asks(recipe.filter):
        yield "the filter asks about every rewrite without a flaw: fewer where an earlier filter drops some"
    yield "calls that fail and are tried again are not counted"
    ranges = ", ".join(f"{method} {low:.2f} to {high:.2f}" for method, (low, high) in YIELDS.items())
    yield f"usable pairs an item: {ranges}, from our own runs"
    if recipe.train.rounds > 1:
        yield "every round finds pairs; sampling and training take turns, so memory is that of training"
    yield f"GPU hours: {hardware.TRAINING_SHARE:.0%} of peak in training, formulas in rlhi_training/plan/hardware.py"
    share = recipe.split.held_out_users
    who = f"the users whom split.held_out_users = {share:g} holds out, on their later conversations"
    if held_out is not None or not share:
        share = HELD_OUT if held_out is None else held_out
        who = f"{share:.0%} of the users with a history, on their last conversation"
    yield (
        f"evaluation: {who}; level {power.LEVEL}, "
        f"power {power.POWER}, correlation of a user's answers {power.CORRELATION}"
    )
