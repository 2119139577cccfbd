"""Seconds a pair of every side, taken in turn."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from dpo_sides import apart
from dpo_sides.shapes import Shape, matmul_rate
from dpo_sides.sides import Method, Side, methods
from dpo_sides.workloads import Pair
from rlhi_plugin import terminal


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        pairs: In a step, at least.
        shrink: Divides every length.
        repeats: Timed steps of each side.
        micro_batches: That TRL at its best is tried with, on the first pairs; the fastest is timed.
        sides: Which are timed beside ``trl_best`` and ``tree``; ``trl_default`` once.
        arguments: What makes the command measure the same sizes in another process.
        trl_every: TRL at its best is timed on each so many-th of its passes, and the time scaled by their tokens. Short
            pairs come first and attention grows with the square, so what that leaves out is in TRL's favour.
    """

    pairs: int
    shrink: int
    repeats: int
    micro_batches: tuple[int, ...]
    sides: tuple[str, ...] = ("trl_default", "pairwise")
    trl_every: int = 1
    arguments: tuple[str, ...] = ()


def compare(
    name: str, conversations: Sequence[Sequence[Pair]], shape: Shape, plan: Plan, advance: Callable[[int], None]
) -> dict[str, float]:
    """Time all sides in turn.

    Returns:
        Figures whose names begin with `name`.
    """
    pairs = sum(map(len, conversations))
    with tempfile.TemporaryDirectory() as folder:
        sides = {
            label: Side(conversations, shape, how, Path(folder))
            for label, how in methods(plan.micro_batches).items()
            if label.startswith(("trl_best", "tree")) or (label in plan.sides and not _apart(label))
        }
        sides = _those_that_fit(sides)
        chosen = _best_of_trl(sides, plan.micro_batches, pairs)
        timed = {"trl_best": sides[f"trl_best_{chosen}"], **{k: s for k, s in sides.items() if "trl_best" not in k}}
        seconds: dict[str, list[float]] = {label: [] for label in timed}
        losses: dict[str, float] = {}
        for repeat in range(plan.repeats):
            for label, side in timed.items():
                if repeat and label == "trl_default":
                    continue
                spent, loss = side.step(advance, every=plan.trl_every if label == "trl_best" else 1)
                losses.setdefault(label, loss)
                said = f"{name}, {label}: {spent:.1f} s for {pairs} pairs, loss {loss:.6f}"
                terminal.stderr.print(said, markup=False)
                seconds[label].append(spent)
    if "trl_default" in plan.sides and _apart("trl_default"):
        seconds |= _as_it_comes(name, plan, advance, pairs)
    shared = sides["tree"].trainer.shared
    if shared.reason is not None:
        raise typer.BadParameter(f"prefixes were not shared: {shared.reason}")
    rows = [pair for conversation in conversations for pair in conversation]
    figures = _figures(name, seconds, rows)
    scored = sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows)
    computed = tree_tokens(rows)
    work = shape.matmul_work() * computed + shape.head_work() * scored
    figures[f"{name}_tree_matmul_share"] = work / statistics.median(seconds["tree"]) / matmul_rate()
    figures |= {f"{name}_token_ratio": _row_tokens(rows) / computed, f"{name}_micro_batch": float(chosen)}
    if plan.trl_every == 1:
        figures[f"{name}_loss_difference"] = abs(losses["trl_best"] - losses["tree"])
    return figures


def _apart(label: str) -> bool:
    """Whether a side is timed in a process of its own, so that no other ends with it when memory runs out."""
    import torch

    return label == "trl_default" and not torch.cuda.is_available()


def _as_it_comes(name: str, plan: Plan, advance: Callable[[int], None], pairs: int) -> dict[str, list[float]]:
    spent = apart.figure("--seconds-of", f"{name} trl_default", plan.arguments, {})
    advance(pairs)
    if spent is None:
        terminal.stderr.print(f"{name}, trl_default: ended by the system, out of memory; left out", markup=False)
        return {}
    terminal.stderr.print(f"{name}, trl_default: {spent:.1f} s for {pairs} pairs", markup=False)
    return {"trl_default": [spent]}


def seconds_of(conversations: Sequence[Sequence[Pair]], shape: Shape, method: Method) -> float:
    """Of one step of one side."""
    with tempfile.TemporaryDirectory() as folder:
        return Side(conversations, shape, method, Path(folder)).step()[0]


def _those_that_fit(sides: dict[str, Side]) -> dict[str, Side]:
    """On CUDA every side is run once, so that its kernels are compiled; one that takes too much memory is left out.

    Raises:
        BadParameter: trees, or TRL with every micro-batch, take too much.
    """
    import torch

    if not torch.cuda.is_available():
        return sides
    found = {}
    for label, side in sides.items():
        try:
            side.step(at_most=len(side))
        except torch.cuda.OutOfMemoryError:
            terminal.stderr.print(f"{label}: out of memory, left out", markup=False)
        else:
            found[label] = side
        side.forget()
    if "tree" not in found or not any(label.startswith("trl_best") for label in found):
        raise typer.BadParameter("this device's memory is too small. Take fewer --pairs, or --micro-batch 1.")
    return found


def _best_of_trl(sides: dict[str, Side], micro_batches: Sequence[int], pairs: int) -> int:
    """The micro-batch with which TRL is fastest on the first pairs."""
    spent: dict[int, float] = {}
    for label, side in sides.items():
        if label.startswith("trl_best"):
            micro = int(label.rpartition("_")[2])
            spent[micro] = 0.0
            if len(micro_batches) > 1:
                spent[micro] = side.step(at_most=max(1, min(max(micro_batches), pairs) // micro))[0]
    return min(spent, key=lambda micro: spent[micro])


def _row_tokens(rows: Sequence[Pair]) -> int:
    return sum(2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows)


def tree_tokens(rows: Sequence[Pair]) -> int:
    """Tokens that the trees of all rows hold, all of them together."""
    from rlhi_training.tree.prefix_tree import Layout, plant

    whole = [row["prompt_ids"] + row[side] for row in rows for side in ("chosen_ids", "rejected_ids")]
    return plant(whole, Layout(sparse=True)).nodes


def _figures(name: str, seconds: dict[str, list[float]], rows: Sequence[Pair]) -> dict[str, float]:
    useful = sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows)
    figures: dict[str, float] = {f"{name}_pairs": float(len(rows))}
    for label, each in seconds.items():
        middle = statistics.median(each)
        figures[f"{name}_{label}_pairs_per_s"] = len(rows) / middle
        figures[f"{name}_{label}_answer_tokens_per_s"] = useful / middle
        figures |= {f"{name}_{label}_s_min": min(each), f"{name}_{label}_s_max": max(each)}
    for key, slower in (("speedup", "trl_best"), ("over_default", "trl_default"), ("over_pairwise", "pairwise")):
        if slower in seconds:
            ratios = [a / b for a, b in zip(seconds[slower], seconds["tree"], strict=False)]
            figures[f"{name}_{key}"] = statistics.median(ratios)
            figures |= {f"{name}_{key}_min": min(ratios), f"{name}_{key}_max": max(ratios)}
    return figures
