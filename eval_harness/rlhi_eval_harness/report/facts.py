"""What a reader of the report needs beside the scores: how the history went, and how the adapter was trained.

The simulation knows what each user meant, so it can say how much of it the labeller and the persona builder caught.
That is where a disappointing result often begins.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rlhi_eval_harness.judging import NOT_JUDGED, Judgment, Question
from rlhi_eval_harness.pairwise import order_consistency
from rlhi_eval_harness.records import EvalSample, PlannedSample
from rlhi_eval_harness.simulation import SimulatedUser, Utterance
from rlhi_plugin.records import FollowUp, FollowUpLabel, Persona

LOG_NAMES = ("training_log.jsonl", "train/training_log.jsonl", "adapter/training_log.jsonl")


def history_facts(
    users: Sequence[SimulatedUser],
    utterances: Sequence[Utterance],
    follow_ups: Sequence[FollowUp],
    personas: Mapping[str, Persona],
) -> dict[str, Any]:
    """Counts of what held-out users said, what the labeller made of it, and what their personas hold."""
    labels = {follow_up.message_id: follow_up.label for follow_up in follow_ups}
    labelled = [(utterance, labels[utterance.message_id]) for utterance in utterances if utterance.message_id in labels]
    complaints = [label for utterance, label in labelled if utterance.kind == "complaint"]
    rest = [label for utterance, label in labelled if utterance.kind != "complaint"]
    about = Counter((utterance.user, utterance.preference) for utterance in utterances if utterance.preference)
    quoted = {user: _quoted(persona, utterances) for user, persona in personas.items()}
    complained = [(user.name, name) for user in users for name in user.preferences if about[user.name, name]]
    return {
        "conversations": len({utterance.thread_id for utterance in utterances}),
        "said": dict(sorted(Counter(utterance.kind for utterance in utterances).items())),
        "follow_ups": _crosstab(labelled),
        "complaints": len(complaints),
        "complaints_found": sum(label is FollowUpLabel.WITH_FEEDBACK for label in complaints),
        "others": len(rest),
        "others_taken_for_complaints": sum(label is FollowUpLabel.WITH_FEEDBACK for label in rest),
        "wishes": sum(len(user.preferences) for user in users),
        "wishes_complained_about": len(complained),
        "wishes_in_persona": sum(name in quoted[user] for user, name in complained),
        "empty_personas": sum(not persona.statements for persona in personas.values()),
        "statements": sum(len(persona.statements) for persona in personas.values()),
        "statements_from_complaints": sum(_from_complaints(persona, utterances) for persona in personas.values()),
    }


def answering_facts(plan: Sequence[PlannedSample], outputs: Mapping[str, EvalSample]) -> dict[str, dict[str, Any]]:
    """By subject: how many prompts it was given, how many it answered, tokens, and median seconds of an answer."""
    facts: dict[str, dict[str, Any]] = {}
    for subject in dict.fromkeys(sample.subject for sample in plan):
        mine = [sample for sample in plan if sample.subject == subject]
        given = [outputs[sample.sample_id] for sample in mine if sample.sample_id in outputs]
        answered = [output for output in given if output.failed is None]
        seconds = [output.latency_s for output in answered if output.latency_s is not None]
        failures = Counter((output.failed or "").partition(":")[0] for output in given if output.failed is not None)
        facts[subject] = {
            "prompts": len(mine),
            "answered": len(answered),
            "failed": dict(failures),
            "prompt_tokens": sum(output.prompt_tokens for output in answered),
            "completion_tokens": sum(output.completion_tokens for output in answered),
            "median_seconds": round(median(seconds), 3) if seconds else None,
            "cost_usd": _cost(answered),
        }
    return facts


def _cost(paid: Iterable[EvalSample | Judgment]) -> float | None:
    """Sum of what is known, in US dollars; None where no price is."""
    known = [each.cost_usd for each in paid if each.cost_usd is not None]
    return round(sum(known), 6) if known else None


def judging_facts(questions: Sequence[Question], judged: Mapping[str, Mapping[str, Judgment]]) -> list[dict[str, Any]]:
    """By judge: questions, answers, why the rest is unscored, tokens, and how often the first of two answers won."""
    facts = []
    for name, judgments in judged.items():
        reasons = Counter((each.unscored or "").partition(":")[0] for each in judgments.values() if each.unscored)
        missing = sum(question.question_id not in judgments for question in questions)
        seconds = [each.latency_s for each in judgments.values() if each.latency_s is not None]
        verdicts = [said for each in judgments.values() for said in each.answers.values() if said in {"A", "B", "tie"}]
        facts.append(
            {
                "judge": name,
                "questions": len(questions),
                "answered": sum(each.unscored is None for each in judgments.values()),
                "unscored": {**reasons, **({NOT_JUDGED: missing} if missing else {})},
                "prompts": sorted({question.prompt.version for question in questions}),
                "prompt_tokens": sum(each.prompt_tokens for each in judgments.values()),
                "completion_tokens": sum(each.completion_tokens for each in judgments.values()),
                "median_seconds": round(median(seconds), 3) if seconds else None,
                "cost_usd": _cost(judgments.values()),
                "first_position_wins": round(verdicts.count("A") / len(verdicts), 4) if verdicts else None,
                "ties": round(verdicts.count("tie") / len(verdicts), 4) if verdicts else None,
                "order_consistency": order_consistency(judgments),
                "agreement_with_first_judge": _agreement(judgments, next(iter(judged.values()))),
            }
        )
    return facts


def _agreement(judgments: Mapping[str, Judgment], first: Mapping[str, Judgment]) -> float | None:
    """Share of equal answers where both judges answered."""
    if judgments is first:
        return None
    pairs = [
        said == first[question].answers[name]
        for question, each in judgments.items()
        if question in first and first[question].answers
        for name, said in each.answers.items()
    ]
    return round(sum(pairs) / len(pairs), 4) if pairs else None


def training_curve(adapter: Path) -> list[dict[str, float]]:
    """Logged steps of the run that made the adapter, or nothing where its log is not beside it.

    Reads ``training_log.jsonl`` in TRL's names: ``step``, ``loss``, ``rewards/accuracies``, ``rewards/margins``.
    """
    for log in (folder / name for folder in (adapter, adapter.parent) for name in LOG_NAMES):
        if log.is_file():
            rows = [_numbers(line) for line in log.read_text("utf-8").splitlines()]
            return [row for row in rows if "step" in row and "loss" in row]
    return []


def training_funnel(adapter: Path) -> list[dict[str, Any]]:
    """What each stage of the training run took in, passed on and dropped, and why; empty without its manifest."""
    stages = _json(adapter.parent / "manifest.json").get("stages", {})
    numbers = ("inputs", "passed", "dropped", "seconds")
    return [
        {"stage": name, **{key: entry.get(key, 0) for key in numbers}, "reasons": entry.get("reasons", {})}
        for name, entry in stages.items()
    ]


def follow_up_shares(adapter: Path) -> list[tuple[str, float, float]]:
    """Kind of user message, its share in the training log, and the paper's share; empty where there is no table.

    Reads ``follow_ups.json``: arXiv 2509.25137, section 2.2, for the conversations that training read.
    """
    table = _json(adapter.parent / "follow_ups.json")
    ours, paper = table.get("overall", {}), table.get("paper", {})
    return [(kind.replace("_", " "), ours[kind], paper[kind]) for kind in ours if kind in paper]


def _json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file is absent or holds something else."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _crosstab(labelled: Sequence[tuple[Utterance, FollowUpLabel]]) -> dict[str, dict[str, int]]:
    """What was meant (rows) against the label (columns), follow-ups only."""
    counts = Counter((utterance.kind, label.value) for utterance, label in labelled)
    kinds = sorted({kind for kind, _ in counts})
    return {kind: {label.value: counts[kind, label.value] for label in FollowUpLabel} for kind in kinds}


def _quoted(persona: Persona, utterances: Sequence[Utterance]) -> set[str]:
    """The preferences whose complaints a persona cites."""
    cited = {evidence.message_id for statement in persona.statements for evidence in statement.evidence}
    return {each.preference for each in utterances if each.preference is not None and each.message_id in cited}


def _from_complaints(persona: Persona, utterances: Sequence[Utterance]) -> int:
    complaints = {each.message_id for each in utterances if each.kind == "complaint"}
    return sum(
        any(evidence.message_id in complaints for evidence in statement.evidence) for statement in persona.statements
    )


def _numbers(line: str) -> dict[str, float]:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    if not isinstance(row, dict):
        return {}
    return {key: float(value) for key, value in row.items() if isinstance(value, int | float)}
