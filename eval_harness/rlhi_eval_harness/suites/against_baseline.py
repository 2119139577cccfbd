"""What AlpacaEval and Arena-Hard have in common: single requests, each judged against a published baseline's answer.

Every item is a cluster of its own. These benchmarks know no users: where a subject is to have a persona in its prompt,
personas are dealt out over the items, which asks what any persona does to answers that have no use for one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from rlhi_eval_harness.judging import Judgment
from rlhi_eval_harness.models import Assistants
from rlhi_eval_harness.numbers import Numbers
from rlhi_eval_harness.prompting import prompt_with, seed_of
from rlhi_eval_harness.records import EvalSample, Metric, PlannedSample, Score
from rlhi_eval_harness.run_folder import RunFolder, read_records
from rlhi_eval_harness.scoring import HEALTH_TABLE, health_scores, no_answer, scored
from rlhi_eval_harness.subjects import Subject, parse_subjects
from rlhi_eval_harness.suites.kind import Stored, SuiteKind
from rlhi_eval_harness.suites.suite import Suite
from rlhi_eval_harness.suites.wholeness import Holding
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import Persona

WIN_RATE = "win_rate"


class AgainstBaselineOptions(Suite):
    """Options of a benchmark that is judged against a published baseline."""

    data: str | None = None
    """Folder of the benchmark's files; None: the model hub."""
    limit: int | None = Field(default=None, ge=1)
    """Only so many items, for a trial; the report says so."""
    partial: bool = False
    """Ask what is there where files do not hold the whole benchmark; the report says so."""
    personas: str | None = None
    """JSON lines of personas, such as personas.jsonl of a UserEval suite, for subjects with +persona."""
    subjects: tuple[str, ...] = ("base",)
    """Who answers; each is judged against the benchmark's own baseline."""
    max_new_tokens: int = Field(default=2048, ge=1)
    """Cap on every answer (ours)."""
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    """Of the evaluated answers."""


@dataclass(frozen=True)
class BaselineItem:
    """One item of the benchmark.

    Attributes:
        uid: Its id.
        group: The part that it comes from.
        request: What is asked.
        baseline: The baseline's answer.
        facts: What else the scoring has to know.
    """

    uid: str
    group: str
    request: str
    baseline: str
    facts: Mapping[str, Any] = field(default_factory=dict)


class AgainstBaseline(SuiteKind):
    """A benchmark that is judged against a published baseline."""

    judged = True
    benchmark: ClassVar[str]
    """Its name in sentences."""
    where: ClassVar[str]
    """A sentence on where its files are published."""

    def __init__(self, suite: Suite) -> None:
        super().__init__(suite)
        self._found: int | None = None
        """Items that there were, once a plan was scored."""

    @cached_property
    @abstractmethod
    def items(self) -> Sequence[BaselineItem]:
        """All items, in the benchmark's order.

        Raises:
            ConfigError: a file is missing; the message says which, and how to get it.
        """

    @property
    def total(self) -> int:
        """How many items the whole benchmark has."""
        return len(self.items)

    @property
    @abstractmethod
    def published(self) -> int:
        """How many items the published benchmark has."""

    @property
    def options_given(self) -> AgainstBaselineOptions:
        """The suite's options.

        Raises:
            ConfigError: they are another kind's.
        """
        if not isinstance(self.suite, AgainstBaselineOptions):
            raise ConfigError(f"{self.suite.name} is no suite of {self.benchmark}. Take its own kind.")
        return self.suite

    def plan(self, assistants: Assistants, folder: RunFolder) -> Sequence[PlannedSample]:
        """Every item for every subject."""
        del assistants, folder
        subjects = parse_subjects(self.suite.subjects)
        personas = self._personas(subjects)
        self.refuse_part()
        chosen = self.items[: self.options_given.limit]
        return [
            self._sample(number, item, subject, personas) for number, item in enumerate(chosen) for subject in subjects
        ]

    def refuse_part(self) -> None:
        """Stop where the files hold a part of the benchmark only, unless that was said to be known.

        Raises:
            ConfigError: items are missing.
        """
        held = Holding(self.benchmark, self.total, self.published)
        held.refuse(partial=self.options_given.partial, how_to_get=self.where)

    def _personas(self, subjects: Sequence[Subject]) -> Sequence[Persona]:
        path = self.options_given.personas
        if all(subject.persona == "none" for subject in subjects):
            return ()
        found = read_records(Path(path), Persona) if path is not None and Path(path).is_file() else []
        if len(found) < 2:  # noqa: PLR2004 - the shuffled control needs another one's
            raise ConfigError(
                f"{self.benchmark} knows no users: a subject with a persona needs a file of at least two personas "
                f"({path or 'none was given'}). Write --set personas=FILE, such as personas.jsonl of a UserEval suite, "
                "or leave +persona out."
            )
        return found

    def _sample(self, number: int, item: BaselineItem, subject: Subject, personas: Sequence[Persona]) -> PlannedSample:
        shift = {"none": None, "own": 0, "shuffled": max(len(personas) // 2, 1)}[subject.persona]
        persona = None if shift is None else personas[(number + shift) % len(personas)]
        return PlannedSample(
            sample_id=f"{item.uid}/0/{subject.name}",
            suite=self.suite.name,
            subject=subject.name,
            source=subject.source,
            user=item.uid,
            group=item.group,
            request=item.request,
            prompt=prompt_with(self.suite.system_prompt, persona, item.request),
            max_tokens=self.suite.max_new_tokens,
            temperature=self.suite.temperature,
            seed=seed_of(self.suite.seed, item.uid),
            facts={**item.facts, "uid": item.uid, "baseline": item.baseline, "of": self.total},
        )

    def score(self, stored: Stored, judgments: Mapping[str, Judgment]) -> Sequence[Score]:
        """Whether each answer wins, and its health."""
        scores: list[Score] = []
        self._found = max((int(sample.facts["of"]) for sample in stored.plan), default=None)
        for sample in stored.plan:
            output = stored.outputs.get(sample.sample_id)
            reason = no_answer(output)
            if output is None or reason is not None:
                value: float | str = reason or "no_output"
            else:
                value = self.win(sample, output, judgments)
            scores.append(scored(sample.sample_id, WIN_RATE, value))
            scores += health_scores(sample, output)
        return scores

    @abstractmethod
    def win(self, sample: PlannedSample, output: EvalSample, judgments: Mapping[str, Judgment]) -> float | str:
        """How far the answer was preferred to the baseline's, 0 to 1, or why that is not known."""

    @property
    @abstractmethod
    def win_rate(self) -> Metric:
        """What a win is."""

    def metrics(self, stored: Stored) -> tuple[Metric, ...]:
        """Win rate against the baseline, then health."""
        del stored
        return (self.win_rate, *HEALTH_TABLE)

    def findings(self, numbers: Numbers, metrics: Sequence[Metric]) -> tuple[str, ...]:
        """The general ones, and before them that nobody has judged yet, or that this is a part only."""
        general = super().findings(numbers, metrics)
        first: list[str] = []
        if not any(each.n for each in numbers.estimates if each.metric == WIN_RATE):
            first.append("Nothing was judged yet: name a judge with rlhi-eval score FOLDER --judge MODEL.")
        if self.options_given.limit is not None:
            first.append(
                f"Only the first {self.options_given.limit} items of {self.benchmark} were asked (limit): do not "
                "compare these numbers with a leaderboard."
            )
        if self._found is not None and (part := Holding(self.benchmark, self._found, self.published).sentence()):
            first.append(part)
        return (*first, *general)
