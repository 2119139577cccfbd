"""From a run directory to its report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from rlhi_plugin.errors import UserError
from rlhi_plugin.page import render_page, script_json
from rlhi_training.follow_up_table import KINDS, PAPER, PAPER_LATE_WITH_FEEDBACK, FollowUpTable
from rlhi_training.funnel import identity_notes
from rlhi_training.records import LabelledTurn, PreferencePair
from rlhi_training.report import facts, plots
from rlhi_training.run_directory import Manifest, RunDirectory, write_atomically
from rlhi_training.stages.label import TURNS
from rlhi_training.stages.pairs import PAIRS

REPORT = "report.html"
_NAMES = {
    "initial": "initial request",
    "new_request": "new request",
    "reattempt_with_feedback": "re-attempt with feedback",
    "reattempt_without_feedback": "re-attempt without feedback",
    "positive_feedback": "positive feedback",
}


def write_report(directory: RunDirectory, out: Path | None = None, *, samples: int = 300) -> Path:
    """Write the report of a run. A run whose pairs are not made yet is reported as far as it is.

    Args:
        directory: The run.
        out: The file; by default ``report.html`` in the run directory.
        samples: Pairs that can be looked at in the page.

    Raises:
        UserError: the run has not begun.
        ArtefactError: one of its files is damaged.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    manifest = directory.manifest()
    if manifest is None or not manifest.stages:
        raise UserError(f"{directory.path} holds no finished stage. Start with: rlhi-train run logs.jsonl")
    pairs = directory.read(PAIRS, PreferencePair) if "pairs" in manifest.stages else []
    read = directory.read(TURNS, LabelledTurn) if "label" in manifest.stages else []
    turns = {turn.key: turn for turn in read}
    table = None
    if "label" in manifest.stages:
        table = FollowUpTable.model_validate(manifest.stages["label"].notes["table"])
    shown = facts.sample_pairs(pairs, turns, most=samples)
    target = out or directory.path / REPORT
    funnel = facts.funnel_rows(manifest, directory.path, turns)
    write_atomically(target, _page(funnel, manifest, pairs, table, shown))
    return target


def _page(
    funnel: list[facts.FunnelRow],
    manifest: Manifest,
    pairs: Sequence[PreferencePair],
    table: FollowUpTable | None,
    shown: list[dict[str, Any]],
) -> str:
    said = facts.findings(manifest, pairs, table)
    settings = {"recipe": manifest.recipe, "versions": manifest.versions, "logs_digest": manifest.logs_digest}
    return render_page(
        files("rlhi_training.report") / "page_files",
        title=Path(manifest.logs).name,
        recipe=manifest.recipe.get("name", ""),
        findings=said,
        identity=identity_notes(manifest),
        funnel=funnel,
        table=_table(table) if table else None,
        labeller=table.labeller if table else "",
        places=facts.curve_rows(table) if table else [],
        paper_late=f"{100 * PAPER_LATE_WITH_FEEDBACK:.1f}",
        curve=plots.curve_plot(table) if table and any(table.counts_by_turn.values()) else "",
        bias=facts.length_bias(pairs),
        lengths=plots.length_plot(pairs) if pairs else "",
        margins=plots.margin_plot(pairs) if pairs else "",
        pairs=len(pairs),
        samples=script_json({"items": shown, "names": _NAMES}),
        shown=len(shown),
        settings=json.dumps(settings, indent=2, ensure_ascii=False),
    )


def _table(table: FollowUpTable) -> list[tuple[str, float, float, list[float | None]]]:
    """Kind, our share, the paper's, and the shares by place; None where the kind cannot stand."""
    places = [place for place in table.by_turn if table.counts_by_turn[place]]
    return [
        (
            _NAMES[kind],
            table.overall.get(kind, 0.0),
            PAPER[kind],
            [None if kind == "initial" else table.by_turn[place].get(kind, 0.0) for place in places],
        )
        for kind in KINDS
    ]
