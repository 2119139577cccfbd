"""Who judged: whether a judge's name means one model for good, and which model said that it answered."""

from __future__ import annotations

from collections.abc import Sequence

from rlhi_eval_harness.judge_identity import JudgeIdentity
from rlhi_eval_harness.records import EvalReport
from rlhi_eval_harness.report.tables import NOTHING, Cell, Grid

_BY = {"digest": "by digest", "revision": "by revision", "version": "by version"}


def judge_findings(
    judges: Sequence[JudgeIdentity], *, again: str = "rlhi-eval score FOLDER --judge MODEL"
) -> tuple[str, ...]:
    """What can keep a judge's numbers from being repeated; nothing of one that is pinned and stayed the same.

    Args:
        judges: Who judged.
        again: How to judge again.
    """
    found = []
    for each in judges:
        if each.changed:
            models = ", ".join(f"{count} of {name}" for name, count in each.answered_by.items())
            found.append(
                f"The judge {each.judge} changed in the middle: its judgments are {models}. They are not one judge's: "
                f"judge again with one pinned model ({again})."
            )
        elif each.another is not None:
            found.append(
                f"The judge {each.judge} was asked for, and {each.another} answered. Ask the provider, or name a judge "
                "that is served under its own name."
            )
        elif not each.pin.pinned:
            known = f" What answered called itself {next(iter(each.answered_by))}." if each.answered_by else ""
            found.append(
                f"The judge {each.judge} is an alias ({each.pin.why}): the same name may be another model tomorrow, "
                f"and the numbers could then not be made again.{known}"
            )
    return tuple(found)


def identity_grid(report: EvalReport) -> Grid:
    """One row a judge: pinned or alias, why, and what answered."""
    rows = tuple(
        (
            each.judge,
            (
                Cell(f"pinned {_BY[each.pin.kind]}" if each.pin.pinned else "alias"),
                Cell(each.pin.why),
                Cell(answered_text(each)) if each.answered_by or each.unnamed else NOTHING,
            ),
        )
        for each in report.judges
    )
    return Grid(("Judge", "Name is", "Because", "Model that answered, judgments"), rows)


def answered_text(each: JudgeIdentity) -> str:
    """The models that answered, each with its judgments."""
    named = [f"{name}: {count}" for name, count in each.answered_by.items()]
    told = "; ".join([*named, *([f"not named: {each.unnamed}"] if each.unnamed else [])])
    return f"changed: {told}" if each.changed else told
