"""How many items each stage passed on, and why the others were dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.table import Table

from rlhi_plugin.terminal import table
from rlhi_training.run_directory import Manifest, StageEntry

_SHOWN = 4


def render_funnel(manifest: Manifest) -> Table:
    """One row per finished stage."""
    rows = [
        [name, entry.inputs, entry.passed, entry.dropped, entry.outputs, f"{entry.seconds:.1f}", main_reasons([entry])]
        for name, entry in manifest.stages.items()
    ]
    columns = ["stage", "in", "passed", "dropped", "written", "seconds", "why dropped"]
    return table(f"From {manifest.logs} to pairs", columns, rows)


def main_reasons(entries: Sequence[StageEntry]) -> str:
    """The most frequent reasons with their counts, ``no_persona 12, over_limit 3``; empty where nothing was dropped."""
    total: Counter[str] = Counter()
    for entry in entries:
        total.update(entry.reasons)
    shown = [f"{reason} {count}" for reason, count in total.most_common(_SHOWN)]
    rest = len(total) - _SHOWN
    return ", ".join([*shown, *([f"{rest} more"] if rest > 0 else [])])
