"""How many items each stage passed on, and why the others were dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.table import Table

from rlhi_plugin.terminal import table
from rlhi_training.run_directory import Manifest, StageEntry

_SHOWN = 4
_COUNTED = ("in", "passed")


def render_funnel(manifest: Manifest) -> Table:
    """One row per finished stage."""
    rows = [
        [name, entry.inputs, entry.passed, entry.dropped, entry.outputs, f"{entry.seconds:.1f}", main_reasons([entry])]
        for name, entry in manifest.stages.items()
    ]
    columns = ["stage", "in", "passed", "dropped", "written", "seconds", "why dropped"]
    return table(f"From {manifest.logs} to pairs", columns, rows)


def render_rounds(manifest: Manifest) -> Table | None:
    """One row per round of a semi-online training; None where there was none."""
    rounds = manifest.stages["train"].notes.get("rounds") if "train" in manifest.stages else None
    if not rounds:
        return None
    rows = [
        [
            one["number"],
            one["sampled_with"][:12],
            one["samples"],
            *("" if one[name] is None else f"{one[name]:.3f}" for name in ("mean_score", "best_score")),
            one["pairs"],
            one["steps"],
            f"{one['metrics'].get('rewards/margins', 0.0):.3f}",
            ", ".join(f"{reason} {n}" for reason, n in one["funnel"]["reward"].items() if reason not in _COUNTED),
        ]
        for one in rounds
    ]
    columns = ["round", "sampled with", "samples", "mean score", "best", "pairs", "steps", "margin", "why no pair"]
    return table("Rounds: what each adapter's samples earned before it was trained on", columns, rows)


def identity_notes(manifest: Manifest) -> list[str]:
    """What can be learned about whom, in sentences: who is known, who is held out, what was found but kept."""
    entry = manifest.stages.get("ingest")
    if entry is None or "identity" not in entry.notes:
        return []
    known = entry.notes["identity"]
    many = f"{known['users_with_history']} of them with several conversations"
    lines = [f"{known['conversations']} conversations to learn from; {known['users']} known users, {many}."]
    if known["anonymous"]:
        lines.append(
            f"{known['anonymous']} carry no user: usable for methods without personas only (rewrites, user-agnostic"
            " rewards); they have no persona and cannot be held out."
        )
    if known["without_time"]:
        lines.append(f"{known['without_time']} of known users have no time: nobody knows what came before, no persona.")
    held = {part: n for part, n in entry.notes.get("split", {}).items() if part != "train"}
    if held:
        said = ", ".join(f"{part} {n['conversations']} ({n['users']} users)" for part, n in held.items())
        lines.append(f"Kept away from training, see split.jsonl: {said}.")
    if entry.notes.get("marked"):
        said = ", ".join(f"{reason} {count}" for reason, count in sorted(entry.notes["marked"].items()))
        lines.append(f"Noticed and kept: {said}.")
    return lines


def main_reasons(entries: Sequence[StageEntry]) -> str:
    """The most frequent reasons with their counts, ``no_persona 12, over_limit 3``; empty where nothing was dropped."""
    total: Counter[str] = Counter()
    for entry in entries:
        total.update(entry.reasons)
    shown = [f"{reason} {count}" for reason, count in total.most_common(_SHOWN)]
    rest = len(total) - _SHOWN
    return ", ".join([*shown, *([f"{rest} more"] if rest > 0 else [])])
