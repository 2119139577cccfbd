"""Do two judges of the same answers agree? Game by game, in the same order of answers."""

from __future__ import annotations

from collections.abc import Sequence

from rlhi_eval_harness.arena_hard.files import Judgment
from rlhi_eval_harness.inference.agreement import Agreement, cohens_kappa


def judges_agree(first: Sequence[Judgment], second: Sequence[Judgment]) -> Agreement:
    """Cohen's kappa of win, tie and loss, quadratically weighted: a win against a loss counts as further apart.

    Args:
        first: One judge's judgments of a model.
        second: The other's, of the same model's answers.

    Returns:
        The agreement; games that one of the two left unscored are counted as unpaired.
    """
    return cohens_kappa(_verdicts(first), _verdicts(second), weights="quadratic")


def _verdicts(judgments: Sequence[Judgment]) -> dict[str, float | None]:
    return {f"{game.uid}/{game.model_first}": game.win for judgment in judgments for game in judgment.games}
