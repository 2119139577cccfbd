"""What a report holds of one subject, sample by sample; those that have no answer included."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlhi_eval_harness.compare.sides import Side
from rlhi_eval_harness.numbers import ALL
from rlhi_eval_harness.records import Estimate, EvalReport, EvalSample, Metric, PlannedSample, Score
from rlhi_eval_harness.run_folder import RunFolder, read_records
from rlhi_eval_harness.statistics import Value
from rlhi_eval_harness.subjects import parse_subjects
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import ChatMessage

NO_OUTPUT = "no_output: nobody was asked, or the run stopped before"


@dataclass(frozen=True)
class Answer:
    """One planned sample of a subject.

    Attributes:
        item: Its id, the same for every subject.
        user: The cluster.
        group: As the suite splits its items.
        prompt: What was asked; empty where the report does not know because there is no answer, and no plan beside it.
        sample: The answer; None where there is none at all.
        planned: The plan's entry, where the plan lies beside the report.
        scores: By metric.
    """

    item: str
    user: str
    group: str
    prompt: tuple[ChatMessage, ...]
    sample: EvalSample | None
    planned: PlannedSample | None
    scores: Mapping[str, Score]

    @property
    def failed(self) -> str | None:
        """Why there is no answer."""
        return NO_OUTPUT if self.sample is None else self.sample.failed

    @property
    def request(self) -> str:
        """The last user message."""
        return self.prompt[-1].content if self.prompt else self.item


@dataclass(frozen=True)
class Subject:
    """One subject of a report.

    Attributes:
        name: As in the report.
        source: What answered (`rlhi_eval_harness.subjects`).
        report: All of it.
        answers: Its samples.
        metrics: Those that it was scored on; the first is the headline.
    """

    name: str
    source: str
    report: EvalReport
    answers: Sequence[Answer]
    metrics: Sequence[Metric]

    def estimates(self, metric: str) -> list[Estimate]:
        """Overall first, then by group."""
        mine = [each for each in self.report.estimates if (each.subject, each.metric) == (self.name, metric)]
        return sorted(mine, key=lambda each: each.group != ALL)

    def values(self, metric: str, group: str = ALL) -> list[Value]:
        """One value a sample that has the metric."""
        return [
            Value(each.user, each.item, each.scores[metric].value)
            for each in self.answers
            if metric in each.scores and group in {ALL, each.group}
        ]

    @property
    def file_name(self) -> str:
        """The name with nothing that a file system minds."""
        return re.sub(r"[^\w.+-]+", "-", self.name)

    @property
    def digest(self) -> str:
        """22 characters that tell this subject of this report from any other."""
        text = f"{self.report.created_at.isoformat()}/{self.report.suite}/{self.name}/{self.source}"
        return hashlib.sha256(text.encode()).hexdigest()[:22]

    @property
    def settings(self) -> dict[str, Any]:
        """Everything needed to do it again: suite options, models, digests, judges."""
        kept = ("suite", "models", "persona_frame_digest", "judging", "answering", "machine")
        judges = [each.model_dump(mode="json") for each in self.report.judges]
        found = {key: self.report.config[key] for key in kept if key in self.report.config}
        return {**found, **({"judges": judges} if judges else {})}


def subjects_in(path: Path, report: EvalReport, wanted: Sequence[str] = ()) -> list[Subject]:
    """All subjects of a report, or those that are wanted.

    Args:
        path: Where the report was read; a plan beside it gives the prompts of what has no answer.
        report: What was read.
        wanted: Names; all, where there are none.

    Raises:
        ConfigError: there is no such subject.
        ArtefactError: the plan is damaged.
    """
    side = Side(path, report)
    if unknown := [name for name in wanted if name not in side.subjects]:
        raise ConfigError(f"{path} has no subject {unknown[0]}. It has: {', '.join(side.subjects)}.")
    folder = RunFolder(path if path.is_dir() else path.parent)
    plan = {each.sample_id: each for each in read_records(folder.plan, PlannedSample)} if folder.plan.exists() else {}
    samples = {each.sample_id: each for each in report.samples}
    scores: dict[str, dict[str, dict[str, Score]]] = {}
    for score in report.scores:
        _, subject = side.apart(score.sample_id)
        scores.setdefault(subject, {}).setdefault(score.sample_id, {})[score.metric] = score
    sources = {each.name: each.source for each in parse_subjects(report.config["suite"]["subjects"])}
    return [
        Subject(
            name=name,
            source=sources.get(name, name),
            report=report,
            answers=[
                _answer(side, sample_id, samples.get(sample_id), plan.get(sample_id), mine)
                for sample_id, mine in scores.get(name, {}).items()
            ],
            metrics=side.measured(name),
        )
        for name in side.subjects
        if not wanted or name in wanted
    ]


def _answer(
    side: Side, sample_id: str, sample: EvalSample | None, planned: PlannedSample | None, scores: Mapping[str, Score]
) -> Answer:
    item, _ = side.apart(sample_id)
    known = sample or planned
    return Answer(
        item=item,
        user=known.user if known else side.user_of(item),
        group=known.group if known else ALL,
        prompt=known.prompt if known else (),
        sample=sample,
        planned=planned,
        scores=scores,
    )


def standard_error(values: Sequence[Value]) -> float | None:
    """Standard error of the mean of the scored values, clustered by user; None for fewer than two users.

    Linearised ratio of per-user sums and counts (Cochran, Sampling Techniques, 1977, section 6.5).
    """
    scored = [each for each in values if each.value is not None]
    users = sorted({each.user for each in scored})
    if len(users) < 2:  # noqa: PLR2004 - one user has no spread
        return None
    found = np.array([each.value for each in scored], dtype=np.float64)
    owner = np.searchsorted(users, [each.user for each in scored])
    residuals = np.bincount(owner, weights=found - found.mean(), minlength=len(users))
    spread = len(users) / (len(users) - 1) * float((residuals**2).sum())
    return float(np.sqrt(spread) / len(found))
