"""Peak memory of a step beside the loaded model, of each side in a process of its own."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from dpo_sides import apart
from dpo_sides.shapes import Shape
from dpo_sides.sides import Method, Side
from dpo_sides.workloads import Pair

_RETURNED = str(256 * 1024)
"""Bytes from which glibc returns freed memory at once. Left alone, it made a process's peak up to three times as high
in one run as in the next; returning costs time, so memory and time are never measured in the same process."""


def peaks(
    name: str, arguments: Sequence[str], micro_batch: int, sides: Sequence[str], advance: Callable[[int], None]
) -> dict[str, float]:
    """MiB of each side, and the ratio of trees to TRL's best.

    Args:
        name: Of the workload.
        arguments: What makes this very command measure the same sizes.
        micro_batch: Of TRL's best.
        sides: ``trl_best``, ``pairwise`` and ``tree``, or some of them.
        advance: Told of each side.
    """
    figures = {}
    for label in sides:
        how = f"trl_best_{micro_batch}" if label == "trl_best" else label
        peak = apart.figure("--peak-of", f"{name} {how}", arguments, {"MALLOC_MMAP_THRESHOLD_": _RETURNED})
        if peak is None:
            raise typer.BadParameter(f"this machine's memory is too small for {how} on {name}. Take fewer --pairs.")
        figures[f"{name}_{label}_peak_mib"] = peak
        advance(1)
    figures[f"{name}_memory_ratio"] = figures[f"{name}_tree_peak_mib"] / figures[f"{name}_trl_best_peak_mib"]
    return figures


def peak_of(conversations: Sequence[Sequence[Pair]], shape: Shape, method: Method) -> float:
    """MiB that the pass with the most tokens adds to what its model takes."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        side = Side(conversations, shape, method, Path(folder))
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            side.largest_alone()
            return float(torch.cuda.max_memory_allocated() - before) / 2**20
        # Makes the peak so far, of loading, the present (proc(5)).
        Path("/proc/self/clear_refs").write_text("5", "ascii")
        before_mib = _status_mib("VmRSS")
        side.largest_alone()
    # Not ru_maxrss: a process inherits its parent's.
    return _status_mib("VmHWM") - before_mib


def _status_mib(name: str) -> float:
    status = Path("/proc/self/status").read_text("ascii")
    found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
    if found is None:
        raise typer.BadParameter(f"/proc/self/status has no {name}; memory is measured on Linux only")
    return int(found[1]) / 1024
