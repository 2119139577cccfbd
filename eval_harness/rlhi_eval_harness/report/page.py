"""The report as one HTML file that opens offline: everything it shows is inside it, and it asks nobody for anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from rlhi_eval_harness.numbers import Numbers, verdict
from rlhi_eval_harness.records import EvalReport, EvalSample, Metric
from rlhi_eval_harness.report import binary_outcomes, plots, tests_of_differences
from rlhi_eval_harness.report.harm_plot import gain_and_harm_plot
from rlhi_eval_harness.report.judges import identity_grid
from rlhi_eval_harness.report.people import EXPLAINED, about, judge_grid, people_grid, rater_grid, trust_grid
from rlhi_eval_harness.report.roles import roles_of
from rlhi_eval_harness.report.tables import by_group, cell, comparisons, preferences, ranking, subjects_of
from rlhi_eval_harness.scoring import KEPT_PREFIX, WORDS
from rlhi_eval_harness.suites.kind import ADAPTED, BASELINE, PERSONA_ONLY, SHUFFLED
from rlhi_plugin import page
from rlhi_plugin.checks import CHECKS
from rlhi_plugin.page import script_json

MOODS = {1: "good", 0: "even", -1: "bad"}


def render_page(report: EvalReport) -> str:
    """The whole page. The same report gives the same bytes."""
    numbers = Numbers(report.estimates, report.differences)
    first = report.metrics[0]
    versus = PERSONA_ONLY if numbers.difference(first.name, ADAPTED, PERSONA_ONLY) else BASELINE
    gain = numbers.difference(first.name, ADAPTED, versus)
    curve = report.config.get("training_curve") or []
    samples = _samples(report)
    details = any(metric.role == "detail" for metric in report.metrics)
    return page.render_page(
        files("rlhi_eval_harness.report") / "page_files",
        report=report,
        config=report.config,
        simulated=bool(report.config.get("history")),
        mood=MOODS[verdict(gain)] if gain else "even",
        cards=_cards(numbers, first),
        ranking=ranking(report),
        roles=roles_of(report.config["suite"]["subjects"]),
        comparisons=comparisons(report),
        tests=tests_of_differences.grid(report),
        about_tests=tests_of_differences.note(report),
        by_item=binary_outcomes.grid(report),
        about_items=binary_outcomes.note(report),
        preferences=preferences(report),
        by_group=None if details else by_group(report),
        styles=plots.style_of(subjects_of(report)),
        headline_plot=plots.headline_plot(report),
        dimension_plots=[] if details else _dimension_plots(report),
        harm_plot=gain_and_harm_plot(report),
        preference_plot=plots.preference_plot(report),
        health_plot=plots.health_plot(report),
        training_plot=plots.training_plot(curve) if len(curve) > 1 else "",
        settings=json.dumps(_settings(report), indent=2, ensure_ascii=False),
        samples=script_json(samples),
        compared=samples["compare"],
        identities=identity_grid(report),
        trust=trust_grid(report.config.get("judge_trust") or []),
        studies=[(each, about(each), people_grid(each), judge_grid(each), rater_grid(each)) for each in report.human],
        explained=EXPLAINED,
    )


def _dimension_plots(report: EvalReport) -> list[tuple[str, str, str]]:
    """Label, meaning and plot of every further side of the gain, and of every harm."""
    wanted = [metric for metric in report.metrics[1:] if metric.role in {"dimension", "harm"}]
    measured = {each.metric for each in report.estimates}
    return [
        (metric.label, metric.meaning, plots.metric_plot(report, metric))
        for metric in wanted
        if metric.name in measured
    ]


def _cards(numbers: Numbers, metric: Metric) -> list[tuple[str, str, str]]:
    """Label, value and interval of the numbers that matter most."""
    usual = (
        ("Base with persona", PERSONA_ONLY),
        ("Adapter with persona", ADAPTED),
        ("Adapter, someone else's persona", SHUFFLED),
    )
    if numbers.of(metric.name, ADAPTED) is None:
        names = dict.fromkeys(each.subject for each in numbers.estimates)
        usual = tuple((f"{metric.label}: {name}", name) for name in names)[:4]  # type: ignore[assignment]
    cards = []
    for label, subject in usual:
        if (found := numbers.of(metric.name, subject)) is not None:
            text = cell(found, metric)
            cards.append((label, text.value, text.interval))
    gain = numbers.difference(metric.name, ADAPTED, PERSONA_ONLY)
    if gain is not None and gain.value is not None:
        text = cell(gain, metric, signed=True)
        cards.insert(2, ("Difference", text.value.replace("pts", "points"), text.interval))
    return cards


def _settings(report: EvalReport) -> dict[str, Any]:
    """Everything needed to do it again; what has a place of its own on the page is left out."""
    shown = {
        "users",
        "history",
        "judging",
        "judge_trust",
        "answering",
        "training_curve",
        "training_funnel",
        "follow_up_shares",
        "tables",
        "tests",
    }
    return {key: value for key, value in report.config.items() if key not in shown}


def _samples(report: EvalReport) -> dict[str, Any]:
    """The samples as the page's script wants them: one item per prompt with every subject's answer."""
    scores: dict[str, dict[str, float | str | None]] = {}
    for score in report.scores:
        value = score.value if score.unscored is None else f"unscored: {score.unscored}"
        scores.setdefault(score.sample_id, {})[score.metric] = value
    users: Mapping[str, Mapping[str, Any]] = report.config.get("users", {})
    items: dict[str, dict[str, Any]] = {}
    for sample in report.samples:
        item = items.setdefault(
            sample.sample_id.removesuffix(f"/{sample.subject}"),
            {
                "user": sample.user,
                "group": sample.group,
                "request": sample.prompt[-1].content,
                "history": [f"{each.role}: {each.content}" for each in sample.prompt[:-1] if each.role != "system"],
                "wants": list(users.get(sample.user, {}).get("preferences", ())),
                "answers": {},
            },
        )
        item["answers"][sample.subject] = _answer(report, sample, scores.get(sample.sample_id, {}))
    names = {name for item in items.values() for name in item["wants"]}
    compared = next(([each.versus, each.subject] for each in report.differences if each.versus), ["", ""])
    subjects = subjects_of(report)
    usual = {PERSONA_ONLY, ADAPTED} <= set(subjects)
    return {
        "labels": {name: CHECKS[name].description if name in CHECKS else name for name in sorted(names)},
        "colours": {name: colour for name, (colour, _) in plots.style_of(subjects).items()},
        "compare": [PERSONA_ONLY, ADAPTED] if usual else compared,
        "neutral": report.metrics[0].neutral,
        "lower_is_better": report.metrics[0].better == "lower",
        "items": list(items.values()),
    }


def _answer(report: EvalReport, sample: EvalSample, values: Mapping[str, float | str | None]) -> dict[str, Any]:
    system = next((message.content for message in sample.prompt if message.role == "system"), "")
    first = values.get(report.metrics[0].name)
    words = values.get(WORDS)
    described = {metric.name: metric for metric in report.metrics if metric.role not in {"health", "detail"}}
    return {
        "text": sample.output if sample.failed is None else f"(no answer: {sample.failed})",
        "system": system,
        "cut": sample.finish_reason == "length",
        "words": words if isinstance(words, float) else None,
        "kept": first if isinstance(first, float) else None,
        "each": {
            name.removeprefix(KEPT_PREFIX): value for name, value in values.items() if name.startswith(KEPT_PREFIX)
        },
        "scores": {
            described[name].label: f"{100 * value:.0f} %" if isinstance(value, float) else value
            for name, value in values.items()
            if name in described
        },
    }
