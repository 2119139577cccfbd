"""How far a judge can be trusted: agreement with another judge and between orders, bias for place and for length.

One row for each judge and each kind of question. Comparisons are told by their ids, which `pairwise.both_orders` makes:
``SAMPLE/VARIANT/first`` and ``SAMPLE/VARIANT/second``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rlhi_eval_harness.inference.clustered_agreement import RatedTwice, clustered_kappa
from rlhi_eval_harness.inference.judge_bias import SeenBothWays, length_bias, position_bias
from rlhi_eval_harness.judging import Judgment, Question
from rlhi_eval_harness.pairwise import ORDERS, VERDICTS
from rlhi_eval_harness.records import PlannedSample
from rlhi_eval_harness.statistics import Value
from rlhi_plugin.checks import word_count

_CATEGORIES = {"B": 0, "tie": 1, "A": 2}


@dataclass(frozen=True)
class Asked:
    """One field of the answers to questions of one kind.

    Attributes:
        what: The field and the kind, as it is printed.
        field: Of the judge's reply.
        questions: All of the kind.
        allowed: What the field may say.
    """

    what: str
    field: str
    questions: tuple[Question, ...]
    allowed: tuple[str, ...]

    @property
    def pairwise(self) -> bool:
        """Whether two answers are compared."""
        return self.allowed == VERDICTS


def judge_trust(
    questions: Sequence[Question],
    judged: Mapping[str, Mapping[str, Judgment]],
    plan: Sequence[PlannedSample],
    *,
    seed: int = 0,
    resamples: int = 4000,
) -> list[dict[str, Any]]:
    """One row for each judge and each field that it answered.

    Args:
        questions: All of the evaluation.
        judged: Judgments by question, of each judge; agreement is with the first one.
        plan: All samples; intervals are over their users.
        seed: Of the resampling.
        resamples: How many.
    """
    user_of = _users(questions, plan)
    first = next(iter(judged.values()), {})
    rows = []
    for name, judgments in judged.items():
        for asked in _asked(questions):
            row: dict[str, Any] = {"judge": name, "what": asked.what, "pairwise": asked.pairwise}
            if asked.pairwise:
                row |= _biases(asked, judgments, user_of, seed)
            if judgments is not first:
                row["with_first_judge"] = _agreement(asked, first, judgments, user_of, seed=seed, resamples=resamples)
            rows.append(row)
    return rows


def _asked(questions: Sequence[Question]) -> list[Asked]:
    """Fields by kind of question, in the order in which they are asked."""
    found: dict[tuple[str, str], list[Question]] = {}
    for question in questions:
        path = question.question_id.split("/")
        kind = path[-2] if path[-1] in ORDERS and len(path) > 1 else path[-1]
        for field in question.answers:
            found.setdefault((kind, field), []).append(question)
    kinds = {field: {kind for kind, other in found if other == field} for _, field in found}
    return [
        Asked(f"{field}, {kind}" if len(kinds[field]) > 1 else field, field, tuple(asked), asked[0].answers[field])
        for (kind, field), asked in found.items()
    ]


def _users(questions: Sequence[Question], plan: Sequence[PlannedSample]) -> dict[str, str]:
    """Whose answer each question is about: its id begins with the sample's."""
    users = {sample.sample_id: sample.user for sample in plan}
    found = {}
    for question in questions:
        name = question.question_id
        while name and name not in users:
            name = name.rpartition("/")[0]
        found[question.question_id] = users.get(name, question.question_id)
    return found


def _biases(asked: Asked, judgments: Mapping[str, Judgment], user_of: Mapping[str, str], seed: int) -> dict[str, Any]:
    """Agreement of the two orders, and what the judge prefers apart from quality."""
    seen, verdicts, lengths = [], [], []
    for question in asked.questions:
        if not question.question_id.endswith(f"/{ORDERS[0]}"):
            continue
        name = question.question_id.removesuffix(f"/{ORDERS[0]}")
        one = _won(judgments.get(question.question_id), asked.field, ours="A")
        other = _won(judgments.get(f"{name}/{ORDERS[1]}"), asked.field, ours="B")
        user = user_of[question.question_id]
        seen.append(SeenBothWays(name, user, one, other))
        verdicts.append(Value(user, name, None if one is None or other is None else (one + other) / 2))
        texts = (str(question.shown[f"answer_{side}"]) for side in ("A", "B"))
        ours, theirs = (float(word_count(text)) for text in texts)
        lengths.append((ours, theirs))
    position, length = position_bias(seen, seed=seed), length_bias(verdicts, lengths, seed=seed)
    return {
        "comparisons": len(seen),
        "between_orders": asdict(position.between_orders),
        "first_wins": asdict(position.first_wins),
        "first_wins_p": position.p_value,
        "flipped": asdict(position.flipped),
        "longer_wins": asdict(length.longer_wins),
        "length_correlation": length.correlation,
        "length_p": length.p_value,
        "length_ratio": length.median_ratio,
    }


def _won(judgment: Judgment | None, field: str, *, ours: str) -> float | None:
    """1 our answer won, 0 it lost, 0.5 tie, None unscored."""
    if judgment is None or field not in judgment.answers:
        return None
    said = judgment.answers[field]
    return 0.5 if said == "tie" else float(said == ours)


def _agreement(
    asked: Asked,
    first: Mapping[str, Judgment],
    second: Mapping[str, Judgment],
    user_of: Mapping[str, str],
    *,
    seed: int,
    resamples: int,
) -> dict[str, Any]:
    """Kappa of two judges, question by question: quadratic for A, tie, B, by name otherwise."""
    places = _CATEGORIES if asked.pairwise else {said: place for place, said in enumerate(asked.allowed)}
    pairs, unpaired = [], 0
    for question in asked.questions:
        one, other = (judge.get(question.question_id) for judge in (first, second))
        if one is None or other is None or asked.field not in one.answers or asked.field not in other.answers:
            unpaired += 1
            continue
        said = (places[each.answers[asked.field]] for each in (one, other))
        pairs.append(RatedTwice(user_of[question.question_id], *said))
    kappa = clustered_kappa(pairs, weights="quadratic" if asked.pairwise else None, seed=seed, resamples=resamples)
    same = sum(pair.first == pair.second for pair in pairs)
    return {**asdict(kappa), "observed": same / len(pairs) if pairs else None, "unpaired": unpaired}
