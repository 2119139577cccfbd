"""What a reader of a reasoning report has to know beside the scores."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rlhi_eval_harness.reasoning.benchmark import Benchmark
from rlhi_eval_harness.reasoning.options import ReasoningOptions
from rlhi_eval_harness.records import PlannedSample, Score
from rlhi_eval_harness.suites.kind import Stored
from rlhi_eval_harness.suites.wholeness import Holding

SHOWN = 16
"""Digits of a digest that are printed; report.json has the plan's own."""


def what_to_know(
    options: ReasoningOptions, plan: Sequence[PlannedSample], held: Holding, benchmark: Benchmark
) -> list[str]:
    """Sentences on what makes these numbers others than published ones, and the suite's own notice."""
    found = [] if (part := held.sentence()) is None else [part]
    asked = len({sample.item_id for sample in plan})
    if asked < held.found:
        found.append(
            f"Only {asked} of {held.found} items were asked (limit = {options.limit}): a sample, and no comparison "
            "with published numbers."
        )
    usual = {file.few_shot for file in benchmark.files}
    if options.few_shot is not None and {options.few_shot} != usual:
        found.append(
            f"Prompts hold {options.few_shot} examples, and not {' or '.join(map(str, sorted(usual)))} as the "
            "benchmark has it: no comparison with published numbers."
        )
    if options.notice:
        found.append(options.notice)
    return found


def benchmark_tables(
    stored: Stored, scores: Iterable[Score], metric: str, benchmark: Benchmark
) -> list[dict[str, Any]]:
    """Tables: each task with version, items, examples and the digest of its prompts; why answers are unscored."""
    return [_tasks(stored, benchmark), *_unscored(stored, scores, metric)]


def _tasks(stored: Stored, benchmark: Benchmark) -> dict[str, Any]:
    models = stored.folder.read_config()["models"]
    versions = dict(each.rsplit(" ", 1) for each in models["tasks"].split(", "))
    few_shot = {file.name: benchmark.few_shot(file) for file in benchmark.files}
    rows = []
    for task in dict.fromkeys(str(sample.facts["task"]) for sample in stored.plan):
        mine = [sample for sample in stored.plan if sample.facts["task"] == task]
        for subject in dict.fromkeys(sample.subject for sample in mine):
            asked = [sample for sample in mine if sample.subject == subject]
            rows.append(
                [task, versions.get(task, "unknown"), subject, str(len(asked)), str(few_shot.get(task, "unknown")),
                 prompt_digest(asked)[:SHOWN]]
            )  # fmt: skip
    return {
        "title": "Tasks and prompts",
        "columns": ["Task", "Version", "Subject", "Items", "Examples", "Digest of the prompts"],
        "rows": rows,
        "note": (
            f"lm_eval {models['lm_eval']}; items from {models['items_from']}, {models['items']} in all, digest "
            f"{models['items_digest'][:SHOWN]}. Prompts go through the model's chat template, examples "
            f"{_placed(stored)}; answers end at the task's stop texts or at the token limit."
        ),
    }


def _placed(stored: Stored) -> str:
    as_turns = stored.folder.read_config()["suite"].get("few_shot_as_turns")
    return "as earlier turns" if as_turns else "in the user message"


def prompt_digest(samples: Iterable[PlannedSample]) -> str:
    """SHA-256 over whole prompts in the plan's order."""
    digest = hashlib.sha256()
    for sample in samples:
        for message in sample.prompt:
            digest.update(message.to_json().encode() + b"\n")
        digest.update(b"\n")
    return digest.hexdigest()


def _unscored(stored: Stored, scores: Iterable[Score], metric: str) -> list[dict[str, Any]]:
    reasons = {score.sample_id: score.unscored for score in scores if score.metric == metric}
    subjects = dict.fromkeys(sample.subject for sample in stored.plan)
    counts = {
        name: Counter(reasons[sample.sample_id] for sample in stored.plan if sample.subject == name)
        for name in subjects
    }
    names = sorted({reason for each in counts.values() for reason in each if reason is not None})
    if not names:
        return []
    rows = [[name, str(each[None]), *(str(each[reason]) for reason in names)] for name, each in counts.items()]
    return [
        {
            "title": "Answers without a verdict",
            "columns": ["Subject", "Judged", *(name.replace("_", " ") for name in names)],
            "rows": rows,
            "note": "lm_eval's own metrics count them as wrong, and published numbers do so, too.",
        }
    ]
