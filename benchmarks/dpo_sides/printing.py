"""Targets, and the tables that a run prints."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version

import typer

from rlhi_plugin import terminal

CPU_TARGETS = {"natural_speedup": 3.0, "turns_4_speedup": 4.0, "turns_8_speedup": 6.0, "turns_4_over_pairwise": 1.5}
CUDA_TARGETS = {"natural_speedup": 2.0, "turns_4_speedup": 2.5, "turns_8_speedup": 4.0, "turns_4_over_pairwise": 1.5}
"""Lower bounds, ours, as ratios to TRL's best. On CPUs TRL also scores every prompt position."""
CPU_MEMORY, CUDA_MEMORY = 0.5, 1.0
"""Upper bounds, ours, of peak memory over TRL's best."""

_LABELS = ("trl_default", "trl_best", "pairwise", "tree")


def judge(figures: dict[str, float], *, cuda: bool) -> tuple[dict[str, float], dict[str, bool]]:
    """Targets for the figures that there are, and whether each is met; said on the way."""
    targets = {name: bound for name, bound in (CUDA_TARGETS if cuda else CPU_TARGETS).items() if name in figures}
    met = {name: figures[name] >= bound for name, bound in targets.items()}
    for name in [name for name in figures if name.endswith("_memory_ratio")]:
        targets[name] = CUDA_MEMORY if cuda else CPU_MEMORY
        met[name] = figures[name] <= targets[name]
    for name, reached in met.items():
        terminal.stdout.print(f"{name}: {figures[name]:.2f}, target {targets[name]}: {'met' if reached else 'missed'}")
    return targets, met


def show(names: Sequence[str], figures: dict[str, float], shape: str) -> None:
    """Print what was measured.

    Raises:
        BadParameter: a loss is not a number.
    """
    timed = [name for name in names if f"{name}_pairs" in figures]
    columns = ("conversations", "pairs", *(label.replace("_", " ") for label in _LABELS), "over TRL's best",
               "over pairwise", "tokens", "matmul rate")  # fmt: skip
    rows = [
        (
            name.replace("_", " "),
            f"{figures[f'{name}_pairs']:.0f}",
            *(_number(figures, f"{name}_{label}_pairs_per_s", "{:.3f}") for label in _LABELS),
            _spread(figures, f"{name}_speedup"),
            _spread(figures, f"{name}_over_pairwise"),
            f"{figures[f'{name}_token_ratio']:.2f}x",
            f"{figures[f'{name}_tree_matmul_share']:.0%}",
        )
        for name in timed
    ]
    if rows:
        terminal.stdout.print(terminal.table(f"DPO, {shape}: pairs a second", columns, rows))
    rows = [
        (
            name.replace("_", " "),
            *(_number(figures, f"{name}_{label}_answer_tokens_per_s", "{:.0f}") for label in _LABELS),
        )
        for name in timed
    ]
    if rows:
        terminal.stdout.print(terminal.table("Answer tokens a second", ("conversations", *_LABELS), rows))
    rows = [
        (name.replace("_", " "), *(_number(figures, f"{name}_{label}_peak_mib", "{:.0f}") for label in _LABELS[1:]))
        for name in names
        if f"{name}_memory_ratio" in figures
    ]
    if rows:
        title = "Peak memory of a step beside the model, MiB"
        terminal.stdout.print(terminal.table(title, ("conversations", *_LABELS[1:]), rows))
    compared = [figures[key] for name in timed if (key := f"{name}_loss_difference") in figures]
    worst = max(compared, default=0.0)
    if compared:
        terminal.stdout.print(f"largest difference of a step's loss from TRL's: {worst:.1e}")
    if math.isnan(worst):
        raise typer.BadParameter("a loss is not a number")


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    packages = {name: version(name) for name in ("torch", "transformers", "trl", "peft")}
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "load": f"{os.getloadavg()[0]:.1f}",
        "device": device,
        **packages,
    }


def _number(figures: dict[str, float], key: str, form: str) -> str:
    return form.format(figures[key]) if key in figures else "-"


def _spread(figures: dict[str, float], key: str) -> str:
    if key not in figures:
        return "-"
    return f"{figures[key]:.2f} ({figures[f'{key}_min']:.2f}-{figures[f'{key}_max']:.2f})"
