"""What a reader of the report needs beside the scores: how the history went, and how the adapter was trained.

The simulation knows what each user meant, so it can say how much of it the labeller and the persona builder caught.
That is where a disappointing result often begins.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
