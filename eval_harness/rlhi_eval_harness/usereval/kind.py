"""The kind ``usereval``: plan, questions to the judge, scores. README.md in this folder says all of it in words."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rlhi_eval_harness.judging import NOT_JUDGED, Judgment, Question
from rlhi_eval_harness.models import Assistants
from rlhi_eval_harness.numbers import Numbers
from rlhi_eval_harness.pairwise import both_orders, win
from rlhi_eval_harness.prompting import prompt_with, seed_of
from rlhi_eval_harness.records import Metric, PlannedSample, Score
from rlhi_eval_harness.run_folder import RunFolder, read_records
from rlhi_eval_harness.scoring import HEALTH_TABLE, health_scores, no_answer, scored
from rlhi_eval_harness.subjects import Subject, parse_subjects
from rlhi_eval_harness.suites.kind import Stored, SuiteKind
from rlhi_eval_harness.suites.suite import Suite
from rlhi_eval_harness.usereval.records import ITEMS, MANIFEST, PERSONAS, Manifest, UserEvalItem, key_of, read_manifest
from rlhi_plugin.errors import ArtefactError, ConfigError
from rlhi_plugin.prompt_files import load_prompt
from rlhi_plugin.records import FollowUpLabel, Persona

DIMENSIONS: Mapping[str, str] = {
    "overall": "Overall preference",
    "personalization": "Personalization",
    "instruction_following": "Instruction following",
}
SHOWN = "_shown"
"""Ending of the metrics that are judged with the user's real follow-up shown."""
_COMPARE, _COMPARE_SHOWN, _REPLAY = (
    load_prompt("rlhi_eval_harness.usereval", name) for name in ("compare", "compare_shown", "replay")
)


def _win_rate(name: str, label: str, *, shown: bool) -> Metric:
    how = "shown to the judge" if shown else "hidden from the judge"
    return Metric(
        name=f"{name}{SHOWN if shown else ''}",
        label=f"{label}, follow-up shown" if shown else label,
        meaning=f"Win rate against the first subject, both orders, ties a half; the user's real follow-up is {how}.",
        role="headline" if name == "overall" and not shown else "dimension",
        neutral=0.5,
    )


WIN_RATES = tuple(_win_rate(name, label, shown=shown) for shown in (False, True) for name, label in DIMENSIONS.items())
ASKS_AGAIN = Metric(
    name="asks_again",
    label="Asks again",
    meaning="Replay: share of turns with a real follow-up after which this user would still have had to ask again, "
    "had they been given this answer; by the judge.",
    better="lower",
)


class UserEvalOptions(Suite):
    """UserEval on the held-out users of a log."""

    kind: Literal["usereval"] = "usereval"
    """This kind of suite."""
    folder: str | None = None
    """What ``rlhi-eval build-usereval`` wrote."""
    subjects: tuple[str, ...] = ("base", "base+persona", "adapter+persona", "adapter+shuffled-persona", "adapter")
    """Who answers. Win rates are against the first one."""
    max_new_tokens: int = Field(default=512, ge=1)
    """Cap on every answer (ours)."""
    temperature: float = Field(default=0.6, ge=0.0, le=2.0)
    """Of the evaluated answers, as the same group evaluates in arXiv 2506.21495."""


class UserEval(SuiteKind):
    """The kind ``usereval``."""

    options = UserEvalOptions
    judged = True
    dimensions = DIMENSIONS

    def __init__(self, suite: Suite) -> None:
        super().__init__(suite)
        if not isinstance(suite, UserEvalOptions):
            raise ConfigError(f"{suite.name} is no UserEval suite. Take its own kind.")
        self._options = suite

    @property
    def identity(self) -> Mapping[str, str]:
        """Digest of the manifest, and what it says was left out of the log."""
        manifest = self._data[0]
        left_out = {"users": sorted(manifest.dropped_users.items()), "turns": sorted(manifest.dropped_items.items())}
        return {"usereval_manifest": manifest.digest, "left_out": json.dumps(left_out)}

    @cached_property
    def _data(self) -> tuple[Manifest, list[UserEvalItem], dict[str, Persona]]:
        """Manifest, items and personas, checked against one another."""
        if self._options.folder is None or not (folder := Path(self._options.folder)).is_dir():
            where = self._options.folder or "no folder was given"
            raise ConfigError(
                f"UserEval needs a log's held-out users: {where}. Build them with: rlhi-eval build-usereval LOG --out "
                "suite/, and give --suite suite/"
            )
        manifest = read_manifest(folder / MANIFEST)
        items = read_records(folder / ITEMS, UserEvalItem)
        personas = {persona.user_id: persona for persona in read_records(folder / PERSONAS, Persona)}
        if tuple(key_of(item) for item in items) != manifest.items:
            raise ArtefactError(f"{folder / ITEMS} does not hold the manifest's items. Build the suite again.")
        if {user: persona.digest for user, persona in personas.items()} != {
            user: key.persona_digest for user, key in manifest.users.items()
        }:
            raise ArtefactError(f"{folder / PERSONAS} does not hold the manifest's personas. Build the suite again.")
        return manifest, items, personas

    def plan(self, assistants: Assistants, folder: RunFolder) -> Sequence[PlannedSample]:
        """Every item for every subject."""
        del assistants, folder
        _, items, personas = self._data
        subjects = parse_subjects(self.suite.subjects)
        strangers = strangers_of(personas, seed=self.suite.seed)
        if len(personas) < 2 and any(subject.persona == "shuffled" for subject in subjects):  # noqa: PLR2004 - said below
            raise ConfigError("a shuffled persona needs at least two users. Leave those subjects out.")
        return [self._sample(item, subject, personas, strangers) for item in items for subject in subjects]

    def _sample(
        self, item: UserEvalItem, subject: Subject, personas: Mapping[str, Persona], strangers: Mapping[str, str]
    ) -> PlannedSample:
        whose = {"none": None, "own": item.user, "shuffled": strangers.get(item.user)}[subject.persona]
        persona = None if whose is None else personas[whose]
        return PlannedSample(
            sample_id=f"{item.item_id}/{subject.name}",
            suite=self.suite.name,
            subject=subject.name,
            source=subject.source,
            user=item.user,
            group=item.group,
            request=item.request,
            prompt=prompt_with(self.suite.system_prompt, persona, item.request, history=item.history),
            max_tokens=self.suite.max_new_tokens,
            temperature=self.suite.temperature,
            seed=seed_of(self.suite.seed, item.item_id),
            logged=item.logged_reply,
            facts={
                "persona": [statement.text for statement in personas[item.user].statements],
                "logged_reply": item.logged_reply,
                "follow_up": item.follow_up,
                "label": item.label,
            },
        )

    @property
    def _first(self) -> str:
        """Whom win rates are against."""
        return parse_subjects(self.suite.subjects)[0].name

    def questions(self, stored: Stored) -> Sequence[Question]:
        """Comparisons in both orders, without and with the follow-up, and the replay."""
        found: list[Question] = []
        for sample in stored.plan:
            shown = _shown(sample)
            pair = self._pair(sample, stored)
            if pair is not None:
                found += both_orders(f"{sample.sample_id}/hidden", _COMPARE, shown, pair, tuple(DIMENSIONS))
                if sample.facts["follow_up"]:
                    more = {**shown, **_hindsight(sample)}
                    found += both_orders(f"{sample.sample_id}/shown", _COMPARE_SHOWN, more, pair, tuple(DIMENSIONS))
            output = stored.outputs.get(sample.sample_id)
            if sample.facts["follow_up"] and output is not None and no_answer(output) is None:
                replay = {**shown, **_hindsight(sample), "new_answer": output.output}
                found.append(Question(f"{sample.sample_id}/replay", _REPLAY, replay, {"asks_again": ("yes", "no")}))
        return found

    def _pair(self, sample: PlannedSample, stored: Stored) -> tuple[str, str] | None:
        """The subject's answer and the first subject's, where both are there."""
        if sample.subject == self._first:
            return None
        mine, other = (stored.outputs.get(name) for name in (sample.sample_id, f"{sample.item_id}/{self._first}"))
        if mine is None or other is None or no_answer(mine) is not None or no_answer(other) is not None:
            return None
        return mine.output, other.output

    def score(self, stored: Stored, judgments: Mapping[str, Judgment]) -> Sequence[Score]:
        """Win rates of all subjects but the first; replay and health of all."""
        scores: list[Score] = []
        for sample in stored.plan:
            if sample.subject != self._first:
                scores += self._wins(sample, stored, judgments)
            if sample.facts["follow_up"]:
                scores.append(_replay(sample, stored, judgments))
            scores += health_scores(sample, stored.outputs.get(sample.sample_id))
        return scores

    def _wins(self, sample: PlannedSample, stored: Stored, judgments: Mapping[str, Judgment]) -> list[Score]:
        pair = self._pair(sample, stored)
        variants = {"hidden": "", **({"shown": SHOWN} if sample.facts["follow_up"] else {})}
        return [
            scored(
                sample.sample_id,
                f"{dimension}{ending}",
                _why_no_pair(sample, stored, self._first)
                if pair is None
                else win(judgments, f"{sample.sample_id}/{variant}", pair, dimension),
            )
            for variant, ending in variants.items()
            for dimension in DIMENSIONS
        ]

    def metrics(self, stored: Stored) -> tuple[Metric, ...]:
        """Win rates where there is somebody to compare with, then the replay, then health."""
        several = len({sample.subject for sample in stored.plan}) > 1
        follow_ups = any(sample.facts["follow_up"] for sample in stored.plan)
        rates = [metric for metric in WIN_RATES if follow_ups or not metric.name.endswith(SHOWN)] if several else []
        return (*rates, *((ASKS_AGAIN,) if follow_ups else ()), *HEALTH_TABLE)

    def findings(self, numbers: Numbers, metrics: Sequence[Metric]) -> tuple[str, ...]:
        """The general ones, and before them that nobody has judged yet."""
        judged = {metric.name for metric in metrics if metric.role != "health"}
        general = super().findings(numbers, metrics)
        if any(each.n for each in numbers.estimates if each.metric in judged):
            return general
        return ("Nothing was judged yet: name a judge with rlhi-eval score FOLDER --judge MODEL.", *general)

    def facts(self, stored: Stored, judgments: Mapping[str, Judgment]) -> dict[str, Any]:
        """What really happened in the log, beside which the replay stands."""
        del judgments
        items = {sample.item_id: sample for sample in stored.plan}.values()
        labels = [sample.facts["label"] for sample in items if sample.facts["follow_up"]]
        with_feedback = sum(label == FollowUpLabel.WITH_FEEDBACK for label in labels)
        return {
            "turns": {
                "all": len(items),
                "with_real_follow_up": len(labels),
                "log_asked_again_with_feedback": round(with_feedback / len(labels), 4) if labels else None,
            },
            "tables": _left_out(stored),
        }


def _left_out(stored: Stored) -> list[dict[str, Any]]:
    """Users and turns of the log that are not evaluated, with the reason; as the manifest counted them."""
    counted = json.loads(stored.folder.read_config()["models"].get("left_out", "{}"))
    rows = [
        [what, reason.replace("_", " "), str(count)] for what, reasons in counted.items() for reason, count in reasons
    ]
    if not rows:
        return []
    note = "Counted when the suite was built. Nothing else of the log is missing from the numbers."
    return [{"title": "Left out of the log", "columns": ["What", "Why", "Number"], "rows": rows, "note": note}]


def strangers_of(personas: Mapping[str, Persona], *, seed: int) -> dict[str, str]:
    """For each user another one, who shares as few statements as can be, nobody twice while others are left."""
    draw, users = random.Random(f"{seed}/shuffle"), sorted(personas)
    texts = {user: {statement.text for statement in personas[user].statements} for user in users}
    lent, result = dict.fromkeys(users, 0), {}
    for user in users:
        others = [other for other in users if other != user]
        draw.shuffle(others)
        if others:
            stranger = min(others, key=lambda other: (len(texts[other] & texts[user]), lent[other]))
            lent[stranger] += 1
            result[user] = stranger
    return result


def _shown(sample: PlannedSample) -> dict[str, Any]:
    """What every question shows: who the user is, what was said, what was asked."""
    said = [message.model_dump() for message in sample.prompt[:-1] if message.role != "system"]
    return {"what_is_known_of_the_user": sample.facts["persona"], "conversation": said, "request": sample.request}


def _hindsight(sample: PlannedSample) -> dict[str, Any]:
    """What the user was really answered, and really said to that."""
    return {"answer_in_the_log": sample.facts["logged_reply"], "real_follow_up": sample.facts["follow_up"]}


def _why_no_pair(sample: PlannedSample, stored: Stored, first: str) -> str:
    mine = no_answer(stored.outputs.get(sample.sample_id))
    return mine or f"baseline_{no_answer(stored.outputs.get(f'{sample.item_id}/{first}')) or 'no_output'}"


def _replay(sample: PlannedSample, stored: Stored, judgments: Mapping[str, Judgment]) -> Score:
    reason = no_answer(stored.outputs.get(sample.sample_id))
    judgment = judgments.get(f"{sample.sample_id}/replay")
    value: float | str
    if reason is not None:
        value = reason
    elif judgment is None:
        value = NOT_JUDGED
    elif judgment.unscored is not None:
        value = judgment.unscored.partition(":")[0]
    else:
        value = float(judgment.answers["asks_again"] == "yes")
    return scored(sample.sample_id, ASKS_AGAIN.name, value)
