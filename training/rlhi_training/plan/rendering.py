"""A plan as tables and sentences for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType

from rlhi_plugin.terminal import table
from rlhi_training.plan.report import Evaluation, Gpu, Plan, PlannedTraining


def render(plan: Plan) -> Iterator[RenderableType]:
    """The plan as tables and sentences."""
    yield (
        f"{plan.logs}, recipe {plan.recipe}: {plan.conversations} usable conversations of {plan.rows} rows, "
        f"{plan.turns} answered requests"
    )
    if plan.left_out:
        yield "Left out: " + ", ".join(f"{reason} {count}" for reason, count in plan.left_out.items()) + "."
    if plan.anonymous:
        yield (
            f"{plan.anonymous} carry no user: usable for methods without personas only (rewrites, user-agnostic"
            " rewards)."
        )
    yield table(
        "Expected usable pairs",
        ("method", "items", "pairs"),
        [(p.method, p.items, f"{p.low} to {p.high}") for p in plan.pairs],
    )
    rows = [
        (row.stage, row.model, row.calls, f"{row.prompt_tokens:,}", f"{row.completion_tokens:,}", _usd(row.usd))
        for row in plan.calls
    ]
    total = (
        "all",
        "",
        plan.total_calls,
        f"{plan.total_prompt_tokens:,}",
        f"{plan.total_completion_tokens:,}",
        _usd(plan.usd),
    )
    calls = table("Model calls", ("stage", "model", "calls", "prompt tokens", "answer tokens", "USD"), [*rows, total])
    calls.columns[1].justify = "left"
    yield calls
    if plan.elsewhere:
        here = all(row.usd == 0.0 for row in plan.calls)
        title = "All of them, if they were hosted, with" if here else "The same hosted calls with"
        yield table(title, ("model", "USD"), [(n, _usd(v)) for n, v in plan.elsewhere.items()])
    yield _trained(plan.training)
    if plan.gpu:
        scores = any(g.scoring_gib for g in plan.gpu)
        gpus = [
            (
                g.card,
                f"{g.memory_gib:.1f}",
                "yes" if g.fits else "no",
                _hours(g.writing_hours),
                *([_hours(g.scoring_hours)] if scores else []),
                _hours(g.training_hours),
            )
            for g in plan.gpu
        ]
        hours = ("hours writing", *(["hours scoring"] if scores else []), "hours training")
        yield table("GPU of the policy", ("card", "GiB", "fits", *hours), gpus)
        yield _parts(plan.gpu[0])
        for g in plan.gpu:
            if not g.fits:
                yield f"{g.card} is too small. {_remedy(g)}"
    else:
        yield "GPU: the size of the base model is not known; give a folder, or a name that holds it, such as ...-8B"
    yield _seen(plan.evaluation)
    yield "Assumed: " + "; ".join(plan.assumptions) + "."


def _trained(found: PlannedTraining) -> str:
    rounds = f" in {found.trainings} rounds" if found.trainings > 1 else ""
    return (
        f"Training ({found.method}): {found.steps:,} steps{rounds}, {found.forward_tokens:,} tokens forward and "
        f"{found.backward_tokens:,} backward."
    )


def _parts(gpu: Gpu) -> str:
    return (
        f"Memory of training: base {gpu.base_gib:.2f} GiB, adapter with its optimiser {gpu.adapter_gib:.2f}, "
        f"activations {gpu.activations_gib:.2f}, answers {gpu.answers_gib:.2f}."
        + (f" While answers are scored: {gpu.scoring_gib:.2f} GiB." if gpu.scoring_gib else "")
    )


def _remedy(gpu: Gpu) -> str:
    if gpu.would_fit_with is None and gpu.scoring_gib > gpu.memory_gib:
        return "Policy and reward model are there together while answers are scored: serve the policy (model.served)."
    if gpu.would_fit_with is None:
        return "Neither smaller passes nor 4 bits help: choose a smaller base or a larger card."
    return f"It would fit with {gpu.would_fit_with}"


def _seen(found: Evaluation) -> str:
    needed = f"+3 points take {found.users_for_3_points} users, +5 points {found.users_for_5_points}"
    if found.detectable_points is None:
        return f"Evaluation: too few users with a history in this log to hold any out; {needed}."
    return (
        f"Evaluation: with {found.users} held-out users and {found.answers_per_user:.1f} answers each you can see "
        f"+{found.detectable_points:.1f} points of win rate; {needed}."
    )


def _hours(value: float) -> str:
    return "< 0.01" if 0 < value < 0.01 else f"{value:.2f}"  # noqa: PLR2004 - what two digits can show


def _usd(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.4f}" if value < 1 else f"{value:,.2f}"
