"""Two answers to one prompt, judged in both orders: a win counts 1, a tie a half, and the two orders are averaged.

Answers that are equal to the letter tie without being asked about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlhi_eval_harness.judging import NOT_JUDGED, Judgment, Question
from rlhi_plugin.prompt_files import Prompt

ORDERS = ("first", "second")
"""Where the subject's answer stands: as answer A, or as answer B."""
VERDICTS = ("A", "B", "tie")


def both_orders(
    name: str, prompt: Prompt, shown: Mapping[str, Any], answers: tuple[str, str], dimensions: Sequence[str]
) -> list[Question]:
    """Two questions, or none where the answers are equal.

    Args:
        name: Of the comparison, unique in the evaluation.
        prompt: What the judge is to do.
        shown: What it is shown beside ``answer_A`` and ``answer_B``.
        answers: The subject's, and the one that it is compared with.
        dimensions: Fields of the judge's reply, each ``A``, ``B`` or ``tie``.
    """
    if answers[0].strip() == answers[1].strip():
        return []
    allowed = dict.fromkeys(dimensions, VERDICTS)
    return [
        Question(f"{name}/{order}", prompt, {**shown, "answer_A": one, "answer_B": other}, allowed)
        for order, (one, other) in zip(ORDERS, (answers, answers[::-1]), strict=True)
    ]


def win(judgments: Mapping[str, Judgment], name: str, answers: tuple[str, str], dimension: str) -> float | str:
    """The subject's score in [0, 1], or the reason why there is none; both orders must have been judged."""
    if answers[0].strip() == answers[1].strip():
        return 0.5
    total = 0.0
    for order in ORDERS:
        judgment = judgments.get(f"{name}/{order}")
        if judgment is None:
            return NOT_JUDGED
        if judgment.unscored is not None:
            return judgment.unscored.partition(":")[0]
        said = judgment.answers[dimension]
        total += 0.5 if said == "tie" else float((said == "A") == (order == "first"))
    return total / len(ORDERS)


def order_consistency(judgments: Mapping[str, Judgment]) -> float | None:
    """Share of comparisons in which both orders gave the same verdict; None where nothing was judged in both."""
    swapped = {"A": "B", "B": "A", "tie": "tie"}
    same = [
        said == swapped[other.answers[dimension]]
        for name, each in judgments.items()
        if name.endswith("/first") and (other := judgments.get(f"{name.removesuffix('/first')}/second")) is not None
        for dimension, said in each.answers.items()
        if said in swapped and other.answers.get(dimension) in swapped
    ]
    return round(sum(same) / len(same), 4) if same else None
