"""The kind ``reasoning``: plan, scores and metrics. See README.md in this folder for every choice that is ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from rlhi_eval_harness.judging import Judgment
from rlhi_eval_harness.models import Assistants
from rlhi_eval_harness.numbers import ALL, Numbers, Pick
from rlhi_eval_harness.prompting import prompt_with, seed_of
from rlhi_eval_harness.reasoning import lm_eval_tasks
from rlhi_eval_harness.reasoning.benchmark import Asked, Benchmark
from rlhi_eval_harness.reasoning.checking import Checker, Verdict
from rlhi_eval_harness.reasoning.facts import benchmark_tables, what_to_know
from rlhi_eval_harness.reasoning.lm_eval_tasks import Rows
from rlhi_eval_harness.reasoning.options import ReasoningOptions
from rlhi_eval_harness.records import Metric, PlannedSample, Score
from rlhi_eval_harness.run_folder import RunFolder
from rlhi_eval_harness.scoring import HEALTH_TABLE, health_scores, no_answer, scored
from rlhi_eval_harness.subjects import Subject, parse_subjects
from rlhi_eval_harness.suites.kind import Stored, SuiteKind
from rlhi_eval_harness.suites.suite import Suite
from rlhi_eval_harness.suites.wholeness import Holding
from rlhi_plugin.errors import ArtefactError, ConfigError
from rlhi_plugin.records import ChatMessage, Evidence, Persona, PersonaStatement

CORRECT = "correct"
VERDICTS = "verdicts.jsonl"
"""In the evaluation's folder: what has been checked is not checked again."""
_GIVES_LIKELIHOODS = frozenset({"base", "adapter", "model"})


class Reasoning(SuiteKind):
    """The kind ``reasoning``."""

    options = ReasoningOptions
    clusters: ClassVar[str] = "items"

    def __init__(self, suite: Suite) -> None:
        super().__init__(suite)
        if not isinstance(suite, ReasoningOptions):
            raise ConfigError(f"{suite.name} is no reasoning suite. Take its own kind.")
        self._options = suite
        self._benchmark = Benchmark(suite)
        self._scores: tuple[Stored, tuple[Score, ...]] | None = None

    @property
    def identity(self) -> Mapping[str, str]:
        """Versions of lm_eval and of each task, where the items come from, how many there are, and their digest."""
        bench = self._benchmark
        self._refuse(parse_subjects(self._options.subjects))
        bench.refuse_part()
        versions = (f"{name} {task.VERSION}" for name, task in bench.tasks.items())
        return {
            "lm_eval": lm_eval_tasks.lm_eval_version(),
            "tasks": ", ".join(versions),
            "items_from": bench.source,
            "items": str(bench.total),
            **({"empty_parts": ", ".join(bench.empty)} if bench.empty else {}),
            "items_digest": bench.digest,
        }

    def _refuse(self, subjects: Sequence[Subject]) -> None:
        """What cannot be asked, before anything is loaded."""
        options = self._options
        for subject in subjects:
            if subject.kind == "logged":
                raise ConfigError("a reasoning benchmark is made from no log: nobody is `logged`. Leave it out.")
            if self._benchmark.weighs_options and subject.kind not in _GIVES_LIKELIHOODS:
                raise ConfigError(
                    f"{options.task} compares log-likelihoods of its options, and {subject.name} gives none: only "
                    "models in this process do. Take a task that reads generated answers, such as --suite gpqa_diamond."
                )
            given = {"own": options.persona, "shuffled": options.other_persona}.get(subject.persona, ("none",))
            if not given:
                name = "persona" if subject.persona == "own" else "other_persona"
                raise ConfigError(
                    f"{subject.name} needs a persona, and a benchmark has no users. Give its statements: "
                    f"--set '{name}=[\"Prefers short answers.\"]'"
                )

    def plan(self, assistants: Assistants, folder: RunFolder) -> Sequence[PlannedSample]:
        """Every chosen item for every subject."""
        del assistants, folder
        subjects = parse_subjects(self._options.subjects)
        self._refuse(subjects)
        self._benchmark.refuse_part()
        return [self._sample(asked, subject) for asked in self._benchmark.asked() for subject in subjects]

    def _sample(self, asked: Asked, subject: Subject) -> PlannedSample:
        options = self._options
        item_id = f"{asked.task}/{asked.number:05d}"
        statements = {"own": options.persona, "shuffled": options.other_persona}.get(subject.persona, ())
        group = ALL if options.group_by is None else str(asked.item.get(options.group_by, "other"))
        return PlannedSample(
            sample_id=f"{item_id}/{subject.name}",
            suite=options.name,
            subject=subject.name,
            source=subject.source,
            user=item_id,
            group=group,
            request=asked.request,
            prompt=_joined(asked.messages, _persona(statements)),
            max_tokens=options.max_new_tokens,
            temperature=options.temperature,
            seed=seed_of(options.seed, item_id),
            options=asked.options,
            facts={"task": asked.task, "item": dict(asked.item), "of": self._benchmark.total},
        )

    def score(self, stored: Stored, judgments: Mapping[str, Judgment]) -> Sequence[Score]:
        """By lm_eval's own checks, task by task; each answer once, however often this is called."""
        del judgments
        if self._scores is None or self._scores[0] is not stored:
            self._scores = stored, tuple(self._score(stored))
        return self._scores[1]

    def _score(self, stored: Stored) -> list[Score]:
        by_task: dict[str, list[PlannedSample]] = {}
        for sample in stored.plan:
            by_task.setdefault(str(sample.facts["task"]), []).append(sample)
        return [score for name, samples in by_task.items() for score in self._of_task(name, samples, stored)]

    def _of_task(self, name: str, samples: Sequence[PlannedSample], stored: Stored) -> list[Score]:
        task, outputs = self._stored_task(name, samples), stored.outputs
        answered = [sample for sample in samples if no_answer(outputs.get(sample.sample_id)) is None]
        items = [sample.facts["item"] for sample in answered]
        checker = Checker(task, self._options.metric, stored.folder.path / VERDICTS)
        if samples[0].options:
            verdicts = checker.weigh(items, [outputs[sample.sample_id].likelihoods for sample in answered])
        else:
            texts = [outputs[sample.sample_id].output for sample in answered]
            cuts = [outputs[sample.sample_id].finish_reason == "length" for sample in answered]
            verdicts = checker.check(items, texts, cuts)
        of = dict(zip((sample.sample_id for sample in answered), verdicts, strict=True))
        names = lm_eval_tasks.metric_names(task)
        found = []
        for sample in samples:
            output = outputs.get(sample.sample_id)
            found += _scores(sample, of.get(sample.sample_id), no_answer(output) or "no_output", names)
            found += [] if sample.options else health_scores(sample, output)
        return found

    def _stored_task(self, name: str, samples: Sequence[PlannedSample]) -> Any:
        """lm_eval's task over the items of the plan: scoring needs neither their files nor the hub."""
        files = [each for each in self._benchmark.files if each.name == name]
        if not files:
            raise ArtefactError(f"lm_eval {lm_eval_tasks.lm_eval_version()} has no task {name} any more. Run again.")
        items = {sample.item_id: sample.facts["item"] for sample in samples}
        rows = {name: Rows(list(items.values()), ready=True)}
        return lm_eval_tasks.open_tasks(files, self._options.folder, rows, few_shot=0, seed=self._options.seed)[name]

    def metrics(self, stored: Stored) -> tuple[Metric, ...]:
        """What is correct of what could be judged; lm_eval's own metrics; length, repetition, cut answers."""
        health = {metric.name for metric in HEALTH_TABLE}
        names = dict.fromkeys(score.metric for score in self.score(stored, {}))
        of_lm_eval = [name for name in names if name != CORRECT and name not in health]
        headline = Metric(
            name=CORRECT,
            label="Correct",
            meaning=f"Right by {self._options.metric}, of the answers that could be judged.",
            role="headline",
        )
        others = (
            Metric(name=name, label=name, meaning="As lm_eval counts: what cannot be read is wrong.")
            for name in of_lm_eval
        )
        return (headline, *others, *(metric for metric in HEALTH_TABLE if metric.name in names))

    def groups(self, metric: str, stored: Stored) -> Mapping[str, Pick]:
        """The headline by subject matter, in alphabetical order; everything else overall."""
        found = dict(super().groups(metric, stored))
        return {
            name: found[name] for name in sorted(found, key=lambda name: (name != ALL, name)) if _kept(metric, name)
        }

    def findings(self, numbers: Numbers, metrics: Sequence[Metric]) -> tuple[str, ...]:
        """The general ones, with what the numbers may not be compared with after the first."""
        from rlhi_eval_harness.report.general_findings import general_findings

        first, *rest = general_findings(numbers, metrics, clusters=self.clusters)
        if self._scores is None:
            return (first, *rest)
        stored = self._scores[0]
        models = stored.folder.read_config()["models"]
        empty = tuple(filter(None, models.get("empty_parts", "").split(", ")))
        held = Holding(self._options.name, int(models["items"]), self._options.published_items, empty)
        known = what_to_know(self._options, stored.plan, held, self._benchmark)
        return (first, *known, *rest)

    def facts(self, stored: Stored, judgments: Mapping[str, Judgment]) -> dict[str, Any]:
        """Tasks, versions, few-shot counts, digests of prompts, reasons of the unscored."""
        del judgments
        tables = benchmark_tables(stored, self.score(stored, {}), CORRECT, self._benchmark)
        return {"clusters": self.clusters, "tables": tables}


def _kept(metric: str, group: str) -> bool:
    return metric == CORRECT or group == ALL


def _scores(sample: PlannedSample, verdict: Verdict | None, reason: str, names: Sequence[str]) -> list[Score]:
    if verdict is None:
        return [scored(sample.sample_id, name, reason) for name in (CORRECT, *names)]
    judged = verdict.unscored if verdict.correct is None else verdict.correct
    return [
        scored(sample.sample_id, CORRECT, judged or 0.0),
        *(scored(sample.sample_id, name, verdict.metrics[name]) for name in names),
    ]


def _persona(statements: Sequence[str]) -> Persona | None:
    if not statements:
        return None
    made = tuple(
        PersonaStatement(text=text, evidence=(Evidence(conversation_id="given", message_id=str(place), quote=text),))
        for place, text in enumerate(statements)
    )
    return Persona(user_id="given", statements=made, builder="given")


def _joined(messages: tuple[ChatMessage, ...], persona: Persona | None) -> tuple[ChatMessage, ...]:
    """lm_eval's messages with a persona after its system text, as it would stand in an app."""
    system = messages[0].content if messages[0].role == "system" else None
    *history, last = messages[1:] if system is not None else messages
    return prompt_with(system, persona, last.content, history=history)
