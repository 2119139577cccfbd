"""The kind ``prefeval``: plan, scores and metrics. See README.md in this folder for every choice that is ours."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rlhi_eval_harness.answering import LETTERS
from rlhi_eval_harness.judging import Judgment
from rlhi_eval_harness.models import Assistants
from rlhi_eval_harness.numbers import ALL, Numbers, Pick
from rlhi_eval_harness.prefeval.data import HOW_TO_GET, Form, PrefItem, read_items
from rlhi_eval_harness.prefeval.distractors import Exchange, between, read_exchanges
from rlhi_eval_harness.prompting import prompt_with, seed_of
from rlhi_eval_harness.records import EvalSample, Metric, PlannedSample, Score
from rlhi_eval_harness.run_folder import RunFolder
from rlhi_eval_harness.scoring import no_answer, scored
from rlhi_eval_harness.subjects import Subject, parse_subjects
from rlhi_eval_harness.suites.kind import Stored, SuiteKind
from rlhi_eval_harness.suites.suite import Suite
from rlhi_eval_harness.suites.wholeness import Holding
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import Evidence, Persona, PersonaStatement

BENCHMARK = "PrefEval"
PUBLISHED = 1000
LIKELY = Metric(
    name="correct",
    label="Followed",
    meaning="The option that follows the preference is the likeliest, by log-likelihood per character of the option.",
    role="headline",
)
LIKELY_RAW = Metric(
    name="correct_raw",
    label="Followed, not normalised",
    meaning="The same by the sum of log-likelihoods, which favours short options.",
)
LETTER = Metric(
    name="correct_letter",
    label="Followed, by letter",
    meaning="The generated letter is that of the option that follows the preference (where there are no likelihoods).",
    role="headline",
)
_GIVES_LIKELIHOODS = frozenset({"base", "adapter", "model"})
_LETTER = re.compile(
    r"\W*(?:(?:the\s+)?(?:best\s+)?(?:answer|option|choice)(?:\s+is)?\W*)?([A-J])(?:\W|$)", re.IGNORECASE
)


class PrefEvalOptions(Suite):
    """PrefEval's multiple choice."""

    kind: Literal["prefeval"] = "prefeval"
    """This kind of suite."""
    data: str | None = None
    """PrefEval's folder ``benchmark_dataset``."""
    distractors: str | None = None
    """Log of real conversations (any that rlhi can read) that the turns between are taken from."""
    distances: tuple[int, ...] = (2, 10)
    """Exchanges between the preference and the question; PrefEval goes up to 300."""
    form: Form = "explicit"
    """How the preference is let be known: said plainly, or shown by a choice."""
    partial: bool = False
    """Ask what is there where files do not hold all of PrefEval; the report says so."""
    items: int | None = Field(default=None, ge=2)
    """So many, drawn at random; None is all 1,000."""
    max_new_tokens: int = Field(default=16, ge=1)
    """For a generated letter."""
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    """For a generated letter."""


class PrefEval(SuiteKind):
    """The kind ``prefeval``."""

    options = PrefEvalOptions

    def __init__(self, suite: Suite) -> None:
        super().__init__(suite)
        if not isinstance(suite, PrefEvalOptions):
            raise ConfigError(f"{suite.name} is no PrefEval suite. Take its own kind.")
        self._options = suite
        self._found: int | None = None

    @property
    def identity(self) -> Mapping[str, str]:
        """Digest of PrefEval's files."""
        self._refuse_part()
        return {"prefeval_digest": self._data[1]}

    @cached_property
    def _data(self) -> tuple[list[PrefItem], str]:
        folder = self._options.data
        return read_items(Path(folder) if folder else None, self._options.form)

    def plan(self, assistants: Assistants, folder: RunFolder) -> Sequence[PlannedSample]:
        """Every item at every distance for every subject."""
        del assistants, folder
        options, subjects = self._options, parse_subjects(self._options.subjects)
        self._refuse_part()
        chosen = self._chosen()
        others = _strangers(chosen, options.seed)
        exchanges = read_exchanges(options.distractors) if any(options.distances) else []
        return [
            self._sample(item, others[item.item_id], subject, distance, exchanges)
            for item in chosen
            for distance in options.distances
            for subject in subjects
        ]

    def _refuse_part(self) -> None:
        held = Holding(BENCHMARK, len(self._data[0]), PUBLISHED)
        held.refuse(partial=self._options.partial, how_to_get=f"{HOW_TO_GET}.")

    def _chosen(self) -> list[PrefItem]:
        items, wanted = self._data[0], self._options.items
        if wanted is None:
            return items
        if wanted > len(items):
            raise ConfigError(f"PrefEval has {len(items)} items, and {wanted} are asked for. Lower items.")
        places = sorted(random.Random(f"{self._options.seed}/items").sample(range(len(items)), wanted))
        return [items[place] for place in places]

    def _sample(
        self,
        item: PrefItem,
        stranger: PrefItem,
        subject: Subject,
        distance: int,
        exchanges: Sequence[Sequence[Exchange]],
    ) -> PlannedSample:
        draw = random.Random(f"{self._options.seed}/{item.item_id}")
        order = draw.sample(range(len(item.options)), len(item.options))
        history = (*item.said, *between(exchanges, distance, draw))
        whose = {"none": None, "own": item, "shuffled": stranger}[subject.persona]
        persona = None if whose is None else _persona(whose)
        return PlannedSample(
            sample_id=f"{item.item_id}/{distance:03d}/{subject.name}",
            suite=self.suite.name,
            subject=subject.name,
            source=subject.source,
            user=item.item_id,
            group=f"{distance} turns",
            request=item.question,
            prompt=prompt_with(self.suite.system_prompt, persona, item.question, history=history),
            max_tokens=self.suite.max_new_tokens,
            temperature=self.suite.temperature,
            seed=seed_of(self.suite.seed, item.item_id),
            options=tuple(item.options[place] for place in order),
            facts={
                "right": order.index(0),
                "topic": item.topic,
                "of": len(self._data[0]) * len(self._options.distances),
            },
        )

    def score(self, stored: Stored, judgments: Mapping[str, Judgment]) -> Sequence[Score]:
        """By likelihood where the subject gave any, else by letter."""
        del judgments
        self._found = max((sample.facts.get("of", 0) for sample in stored.plan), default=None)
        return [score for sample in stored.plan for score in _scores(sample, stored.outputs.get(sample.sample_id))]

    def metrics(self, stored: Stored) -> tuple[Metric, ...]:
        """Those that some subject has."""
        used = {score.metric for score in self.score(stored, {})}
        return tuple(metric for metric in (LIKELY, LETTER, LIKELY_RAW) if metric.name in used)

    def groups(self, metric: str, stored: Stored) -> Mapping[str, Pick]:
        """Distances apart, the nearest first."""
        found = dict(super().groups(metric, stored))
        return {name: found[name] for name in sorted(found, key=lambda name: (name != ALL, len(name), name))}

    def findings(self, numbers: Numbers, metrics: Sequence[Metric]) -> tuple[str, ...]:
        """The general ones; then whether this was all of PrefEval."""
        first, *rest = super().findings(numbers, metrics)
        found = [] if not self._found else [Holding(BENCHMARK, self._found // len(self._options.distances), PUBLISHED)]
        told = [said for held in found if (said := held.sentence()) is not None]
        if self._options.items is not None:
            told.append(f"Only {self._options.items} items of {BENCHMARK} were asked (items), drawn at random.")
        return (first, *told, *rest)

    def facts(self, stored: Stored, judgments: Mapping[str, Judgment]) -> dict[str, Any]:
        """What guessing gives."""
        del judgments
        chance = [1 / len(sample.options) for sample in stored.plan]
        return {"chance": round(sum(chance) / len(chance), 4)}


def _persona(item: PrefItem) -> Persona:
    quote = Evidence(conversation_id=item.item_id, message_id="0", quote=item.preference)
    statement = PersonaStatement(text=item.preference, evidence=(quote,))
    return Persona(user_id=item.item_id, statements=(statement,), builder="prefeval")


def _strangers(items: Sequence[PrefItem], seed: int) -> dict[str, PrefItem]:
    """For each item one of another topic, where there is one: whose preference is the shuffled persona."""
    draw = random.Random(f"{seed}/shuffle")
    return {
        item.item_id: draw.choice(
            [other for other in items if other.topic != item.topic]
            or [other for other in items if other.item_id != item.item_id]
        )
        for item in items
    }


def _scores(sample: PlannedSample, output: EvalSample | None) -> list[Score]:
    weighs = bool(output.likelihoods) if output and output.failed is None else _weighs(sample)
    names = [LIKELY.name, LIKELY_RAW.name] if weighs else [LETTER.name]
    reason = no_answer(output)
    if output is None or reason is not None:
        return [scored(sample.sample_id, name, reason or "no_output") for name in names]
    right = sample.facts["right"]
    if not weighs:
        said = letter_of(output.output, sample.options)
        return [scored(sample.sample_id, LETTER.name, said if isinstance(said, str) else float(said == right))]
    sums = output.likelihoods
    rates = [value / len(option) for value, option in zip(sums, sample.options, strict=True)]
    return [
        scored(sample.sample_id, name, float(values.index(max(values)) == right))
        for name, values in ((LIKELY.name, rates), (LIKELY_RAW.name, list(sums)))
    ]


def _weighs(sample: PlannedSample) -> bool:
    return sample.source.partition("=")[0] in _GIVES_LIKELIHOODS


def letter_of(answer: str, options: Sequence[str]) -> int | str:
    """Which option an answer names, by letter or by its whole text, or why that cannot be told."""
    text = answer.strip()
    if not text:
        return "empty_answer"
    named = [place for place, option in enumerate(options) if option.casefold() in text.casefold()]
    if len(named) == 1:
        return named[0]
    found = _LETTER.match(text)
    # "A book would do" begins with a letter, too: alone or followed by a mark, it is one that was chosen.
    alone = found is not None and (len(text) == found.end(1) or text[found.end(1)] in ".):,;*\n" or found.start(1) > 0)
    if found is None or not alone:
        return "no_letter"
    place = LETTERS.index(found[1].upper())
    return place if place < len(options) else "no_such_letter"
