"""What our own task files name: prompts in our words, and answers checked by math-verify.

lm_eval calls these with a row and the list of answers, of which there is one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.tasks.minerva_math.utils import (
    get_unnormalized_answer,
    is_equiv,
    last_boxed_only_string,
    normalize_final_answer,
    remove_boxed,
)
from math_verify import parse, verify
from math_verify.utils import timeout

Row = Mapping[str, Any]
TOLERANCE = 0.01
"""Of a physical quantity, relative (ours): most answers are given to two or three digits."""
EVALUATE_SECONDS = 5
"""For one number: as long as math-verify takes for a comparison."""
_E_NOTATION = re.compile(r"(?<![\w.\\])(-?\d+(?:\.\d+)?)[eE]([+-]?\d+)(?!\w)")
_TYPES = {
    "Numerical": "a number",
    "Expression": "an expression",
    "Tuple": "a tuple",
    "Interval": "an interval",
    "Equation": "an equation",
}


def olympiad_prompt(row: Row) -> str:
    """Context, question, and of what form the answer is to be. OlympiadBench's prompt says the same in other words."""
    form = _TYPES.get(str(row.get("answer_type")), "an expression")
    asked = f"The answer is {form}."
    if row.get("is_multiple_answer"):
        asked = f"There are several answers, each of them {form}; give all of them, with commas between."
    if row.get("unit"):
        asked += f" The unit is {row['unit']}; leave it out."
    parts = [
        row.get("context"),
        row["question"],
        f"{asked} Reason step by step and end with the answer in \\boxed{{}}.",
    ]
    return "\n\n".join(str(part) for part in parts if part)


def olympiad_target(row: Row) -> str:
    """The published answers in one line, without dollar signs."""
    return ",".join(str(each) for each in row["final_answer"]).replace("$", "")


def olympiad_results(row: Row, answers: Sequence[str]) -> dict[str, int]:
    """All published answers, in any order; a number may be off by the row's own ``error``."""
    gold = olympiad_target(row)
    right = same(gold, answers[0])
    if not right and row.get("answer_type") == "Expression" and gold.count("=") == 1:
        right = same(gold.partition("=")[2], answers[0])
    if not right and row.get("error"):
        right = near(gold, answers[0], absolute=float(str(row["error"])))
    return {"math_verify": int(right)}


def boxed_prompt(row: Row) -> str:
    """The question, and where the answer is to stand."""
    return f"{row['question']}\n\nReason step by step and end with the answer in \\boxed{{}}."


def number_results(row: Row, answers: Sequence[str]) -> dict[str, int]:
    """For answers that are numbers, such as ``27.0``."""
    return {"math_verify": int(same(f"{float(row['answer']):.15g}", answers[0]))}


def course_items(dataset: Any) -> Any:
    """Minerva's courses from either form in which they are published: with solutions, or with answers only."""
    return dataset.map(_course_item)


def _course_item(row: Row) -> dict[str, Any]:
    solution = row.get("solution")
    boxed = last_boxed_only_string(solution) if solution else None
    answer = remove_boxed(boxed) if boxed else row.get("answer")
    if answer is None:
        raise ValueError("a row has neither an answer nor a solution with a boxed one")
    return {"problem": row.get("problem") or row.get("question"), "solution": solution or answer, "answer": answer}


def course_results(row: Row, answers: Sequence[str]) -> dict[str, int]:
    """math-verify; the same with a tolerance for quantities; and lm_eval's exact match after normalising."""
    gold, text = str(row["answer"]), answers[0]
    right = same(gold, text)
    normal = normalize_final_answer(get_unnormalized_answer(text))
    return {
        "math_verify": int(right),
        "within_1_percent": int(right or near(gold, text, relative=TOLERANCE)),
        "exact_match": int(is_equiv(normal, normalize_final_answer(gold))),
    }


def same(gold: str, text: str) -> bool:
    """Whether a text's final answer is the same mathematical object as `gold`, which is LaTeX without dollar signs."""
    return bool(verify(gold=parse(_boxed(gold)), target=parse(_plain(text))))


def readable(text: str) -> bool:
    """Whether math-verify finds any answer at all in a text."""
    return bool(parse(_plain(text)))


def near(gold: str, text: str, *, relative: float = 0.0, absolute: float = 0.0) -> bool:
    """Whether both are numbers, and close to one another."""
    wanted, found = _number(_boxed(gold)), _number(_plain(text))
    return wanted is not None and found is not None and abs(wanted - found) <= max(absolute, relative * abs(wanted))


def _number(text: str) -> float | None:
    objects = parse(text)
    if not objects or not getattr(objects[0], "is_number", False):
        return None
    try:
        return float(timeout(timeout_seconds=EVALUATE_SECONDS)(objects[0].evalf)())
    except (TypeError, ValueError, OverflowError, ArithmeticError, AttributeError):
        return None


def _boxed(gold: str) -> str:
    return f"\\boxed{{{_plain(gold)}}}"


def _plain(text: str) -> str:
    # math-verify reads 4.5e33 as a product with Euler's number.
    return _E_NOTATION.sub(r"\1 \\times 10^{\2}", text)
