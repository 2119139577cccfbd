"""What every command that asks a judge offers and says: the switch that refuses aliases, and who answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rlhi_plugin import terminal

if TYPE_CHECKING:
    from rlhi_eval_harness.judge_identity import JudgeIdentity

Pinned = Annotated[
    bool,
    typer.Option(
        "--require-pinned-judge",
        help="Refuse judges whose names are aliases, behind which models can change; nothing is asked.",
    ),
]


def say_who_answered(identity: JudgeIdentity, *, again: str) -> None:
    """Print which models answered, and what keeps a judge's numbers from being repeated.

    Args:
        identity: Of the judge.
        again: What to do where the judge changed.
    """
    from rlhi_eval_harness.report.judges import answered_text, judge_findings

    if answered := answered_text(identity):
        terminal.stdout.print(f"answered by: {answered}", markup=False, highlight=False)
    for line in judge_findings([identity], again=again):
        terminal.stdout.print(f"- {line}", markup=False, highlight=False)
