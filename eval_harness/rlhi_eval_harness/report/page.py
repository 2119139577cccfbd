"""The report as one HTML file that opens offline: everything it shows is inside it, and it asks nobody for anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from rlhi_eval_harness.records import EvalReport, EvalSample
from rlhi_eval_harness.report import plots
from rlhi_eval_harness.report.analysis import ADAPTED, PERSONA_ONLY, SHUFFLED
from rlhi_eval_harness.report.findings import Numbers, verdict
from rlhi_eval_harness.report.tables import cell, comparisons, preferences, ranking
from rlhi_eval_harness.scoring import KEPT, KEPT_PREFIX, WORDS
from rlhi_plugin import page
from rlhi_plugin.checks import CHECKS
from rlhi_plugin.page import script_json

MOODS = {1: "good", 0: "even", -1: "bad"}


def render_page(report: EvalReport) -> str:
    """The whole page. The same report gives the same bytes."""
    numbers = Numbers(report.estimates, report.differences)
    gain = numbers.difference(KEPT, ADAPTED, PERSONA_ONLY)
    curve = report.config.get("training_curve") or []
    return page.render_page(
        files("rlhi_eval_harness.report") / "page_files",
        report=report,
        config=report.config,
        mood=MOODS[verdict(gain)] if gain else "even",
        cards=_cards(numbers),
        ranking=ranking(report),
        comparisons=comparisons(report),
        preferences=preferences(report),
        styles=plots.STYLE,
        kept_plot=plots.kept_plot(report),
        preference_plot=plots.preference_plot(report),
        health_plot=plots.health_plot(report),
        training_plot=plots.training_plot(curve) if len(curve) > 1 else "",
        settings=json.dumps(_settings(report), indent=2, ensure_ascii=False),
        samples=script_json(_samples(report)),
    )


def _cards(numbers: Numbers) -> list[tuple[str, str, str]]:
    """Label, value and interval of the four numbers that matter most."""
    cards = []
    for label, subject in (
        ("Base with persona", PERSONA_ONLY),
        ("Adapter with persona", ADAPTED),
        ("Adapter, someone else's persona", SHUFFLED),
    ):
        if (found := numbers.of(KEPT, subject)) is not None:
            text = cell(found)
            cards.append((label, text.value, text.interval))
    if (gain := numbers.difference(KEPT, ADAPTED, PERSONA_ONLY)) is not None and gain.value is not None:
        text = cell(gain, signed=True)
        cards.insert(2, ("Difference", text.value.replace("pts", "points"), text.interval))
    return cards


def _settings(report: EvalReport) -> dict[str, Any]:
    """Everything needed to do it again; what has a place of its own on the page is left out."""
    shown = {"users", "history", "training_curve", "training_funnel", "follow_up_shares"}
    return {key: value for key, value in report.config.items() if key not in shown}


def _samples(report: EvalReport) -> dict[str, Any]:
    """The samples as the page's script wants them: one item per prompt with every subject's answer."""
    scores: dict[str, dict[str, float | None]] = {}
    for score in report.scores:
        scores.setdefault(score.sample_id, {})[score.metric] = score.value
    users: Mapping[str, Mapping[str, Any]] = report.config.get("users", {})
    items: dict[tuple[str, str], dict[str, Any]] = {}
    for sample in report.samples:
        request = sample.prompt[-1].content
        item = items.setdefault(
            (sample.user, request),
            {
                "user": sample.user,
                "group": sample.group,
                "request": request,
                "wants": list(users.get(sample.user, {}).get("preferences", ())),
                "answers": {},
            },
        )
        item["answers"][sample.subject] = _answer(sample, scores.get(sample.sample_id, {}))
    names = {name for item in items.values() for name in item["wants"]}
    return {
        "labels": {name: CHECKS[name].description if name in CHECKS else name for name in sorted(names)},
        "colours": {name: colour for name, (colour, _) in plots.STYLE.items()},
        "compare": [PERSONA_ONLY, ADAPTED],
        "items": list(items.values()),
    }


def _answer(sample: EvalSample, values: Mapping[str, float | None]) -> dict[str, Any]:
    system = next((message.content for message in sample.prompt if message.role == "system"), "")
    return {
        "text": sample.output,
        "system": system,
        "cut": sample.finish_reason == "length",
        "words": values.get(WORDS),
        "kept": values.get(KEPT),
        "each": {
            name.removeprefix(KEPT_PREFIX): value for name, value in values.items() if name.startswith(KEPT_PREFIX)
        },
    }
