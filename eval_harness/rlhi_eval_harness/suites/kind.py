"""What a kind of suite is: samples in, outputs out, then scores with values or "unscored, because".

A new suite is one folder with one subclass of `SuiteKind`, named in `rlhi_eval_harness.suites.kinds` or in another
package's entry point of the group ``rlhi.suites``. What is between is shared: answering, judging, statistics, report.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from rlhi_eval_harness.judging import Judgment, Question
from rlhi_eval_harness.models import Assistants
from rlhi_eval_harness.numbers import ALL, Numbers, Pick
from rlhi_eval_harness.records import EvalSample, Metric, PlannedSample, Score
from rlhi_eval_harness.run_folder import RunFolder
from rlhi_eval_harness.suites.suite import Suite

BASELINE = "base"
PERSONA_ONLY = "base+persona"
ADAPTED = "adapter+persona"
SHUFFLED = "adapter+shuffled-persona"
NO_PERSONA = "adapter"
NO_LENGTH_WISH = "no wish about length"
"""Users who want neither short nor detailed answers: for them a change of length is a side effect."""

COMPARISONS = (
    (ADAPTED, PERSONA_ONLY),
    (ADAPTED, BASELINE),
    (ADAPTED, SHUFFLED),
    (SHUFFLED, PERSONA_ONLY),
    (PERSONA_ONLY, BASELINE),
    (NO_PERSONA, BASELINE),
)
"""Paired differences, first minus second: what training adds, what all of it adds, whether it is the persona that does
it, what any persona does, what a prompt alone does, and what happens to users without history."""


@dataclass(frozen=True)
class Stored:
    """What a folder holds once its subjects have answered.

    Attributes:
        folder: Where.
        plan: All samples.
        outputs: By sample id. A sample that is not here, or whose output says `failed`, has no answer.
    """

    folder: RunFolder
    plan: Sequence[PlannedSample]
    outputs: Mapping[str, EvalSample]


class SuiteKind(ABC):
    """A suite that can be run and scored.

    Attributes:
        options: The model of its TOML file.
        suite: Its options. Scoring gets by with these and the folder: it needs neither data files nor models.
    """

    options: ClassVar[type[Suite]]
    judged: ClassVar[bool] = False
    """Whether there is anything that a judge is asked."""
    dimensions: ClassVar[Mapping[str, str]] = MappingProxyType({"overall": "Overall preference"})
    """What people are asked about two answers, label by name. Where a metric of that name is a judge's win rate against
    the first subject, the two are compared."""
    clusters: ClassVar[str] = "users"
    """What intervals resample, in the plural: `PlannedSample.user` says which one a sample belongs to."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite

    @property
    def identity(self) -> Mapping[str, str]:
        """Names and digests of what the plan is made from; a resumed run must match. None unless a kind has any."""
        return {}

    @abstractmethod
    def plan(self, assistants: Assistants, folder: RunFolder) -> Sequence[PlannedSample]:
        """Every prompt of every subject.

        Raises:
            ConfigError: data is missing; the message says which, and how to get it.
            ModelCallError: a model that the plan needs failed; the folder keeps what is done.
        """

    def questions(self, stored: Stored) -> Sequence[Question]:
        """What a judge is to be asked about the outputs; nothing unless a kind has any."""
        del stored
        return ()

    @abstractmethod
    def score(self, stored: Stored, judgments: Mapping[str, Judgment]) -> Sequence[Score]:
        """Score every planned sample on every metric that applies to it.

        Args:
            stored: Plan and outputs.
            judgments: By question id; what is not here was not judged.

        Returns:
            Scores, those without a value with the reason. A sample is never left out because something is missing.
        """

    @abstractmethod
    def metrics(self, stored: Stored) -> tuple[Metric, ...]:
        """What is measured; the first is what subjects are ranked by."""

    def groups(self, metric: str, stored: Stored) -> Mapping[str, Pick]:
        """What is reported apart for a metric: everything, and each `PlannedSample.group` where there are several."""
        del metric
        found: dict[str, Pick] = {ALL: lambda _: True}
        names = sorted({sample.group for sample in stored.plan}, reverse=True)
        if len(names) > 1:
            for name in names:
                found[name] = lambda sample, name=name: sample.group == name  # type: ignore[misc]
        return found

    def comparisons(self, subjects: Sequence[str]) -> Sequence[tuple[str, str]]:
        """Pairs of subjects to compare on the same prompts: the usual questions, and every other one with the first."""
        usual = [pair for pair in COMPARISONS if set(pair) <= set(subjects)]
        answered = {name for pair in usual for name in pair}
        return [*usual, *((name, subjects[0]) for name in subjects[1:] if name not in answered)]

    def findings(self, numbers: Numbers, metrics: Sequence[Metric]) -> tuple[str, ...]:
        """What the numbers say, the most important first."""
        from rlhi_eval_harness.report.general_findings import general_findings

        return general_findings(numbers, metrics, clusters=self.clusters)

    def write_more(self, stored: Stored, judgments: Mapping[str, Judgment]) -> None:
        """Write files of the benchmark's own form into the folder; nothing unless a kind has any."""
        del stored, judgments

    def facts(self, stored: Stored, judgments: Mapping[str, Judgment]) -> dict[str, Any]:
        """What else a reader has to know; goes into the report's config."""
        del stored, judgments
        return {}
