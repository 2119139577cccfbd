"""Arena-Hard's score: the share of battles against the baseline that a model wins, clear verdicts counting thrice.

Upstream fits a Bradley-Terry model by logistic regression and turns its strengths into win probabilities against the
baseline. Where every battle is against the baseline, as here, the maximum-likelihood win probability is the weighted
share of wins, so it is computed as that; `bradley_terry` is the fit, for when it is not.

Two intervals are given. Upstream resamples battles, so the three copies of a clear verdict and the two games of a
question count as independent evidence, which makes it too narrow. Ours resamples questions with all their battles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlhi_eval_harness.arena_hard.files import Judgment
from rlhi_eval_harness.arena_hard.verdicts import Game, Version
from rlhi_eval_harness.inference.coverage import Coverage
from rlhi_eval_harness.inference.judge_bias import PositionBias, SeenBothWays, position_bias
from rlhi_eval_harness.statistics import Value, mean
from rlhi_plugin.errors import ConfigError

UPSTREAM_LEVEL: Mapping[Version, float] = {"v0.1": 0.95, "v2.0": 0.90}
"""Confidence level of the intervals that each version publishes."""

UPSTREAM_RESAMPLES = 100
"""Rounds of the published bootstraps."""


@dataclass(frozen=True)
class ArenaScore:
    """A model's score against the baseline; all but the counts are 0 to 100.

    Attributes:
        score: Weighted share of battles won, ties half; 50 is on a par with the baseline.
        low: Lower end of the 95 % bootstrap interval over questions.
        high: Upper end.
        upstream_low: Lower end of the interval as upstream computes it, over battles.
        upstream_high: Upper end.
        upstream_level: Its confidence level.
        verdicts: How often the model won clearly, won, tied, lost, lost clearly.
        coverage: What of the games was scored.
        position_bias: How far the order decided.
    """

    score: float
    low: float | None
    high: float | None
    upstream_low: float
    upstream_high: float
    upstream_level: float
    verdicts: Mapping[str, int]
    coverage: Coverage
    position_bias: PositionBias


def arena_score(
    judgments: Sequence[Judgment], version: Version, *, resamples: int = UPSTREAM_RESAMPLES, seed: int = 0
) -> ArenaScore:
    """Score one model.

    Args:
        judgments: One for each question, unscored ones included.
        version: Whose rules: v0.1 uses a scored game whose partner is unscored, v2.0 does not.
        resamples: Of upstream's interval; ours always has `rlhi_eval_harness.statistics.RESAMPLES`.
        seed: Of both.

    Raises:
        ConfigError: nothing is scored.
    """
    games = scored_games(judgments, version)
    coverage = Coverage.of(game.unscored for judgment in judgments for game in judgment.games)
    if not games:
        raise ConfigError(f"no game has a verdict. {coverage.sentence()} Judge the answers again.")
    wins, owners = battles(games)
    over_questions = mean(
        [Value(owner, str(i), win) for i, (win, owner) in enumerate(zip(wins, owners, strict=True))],
        share=True,
        seed=seed,
    )
    level = UPSTREAM_LEVEL[version]
    rng = np.random.default_rng(seed)
    samples = rng.choice(wins, size=(resamples, len(wins))).mean(axis=1)
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return ArenaScore(
        score=100 * float(wins.mean()),
        low=None if over_questions.low is None else 100 * over_questions.low,
        high=None if over_questions.high is None else 100 * over_questions.high,
        upstream_low=100 * float(low),
        upstream_high=100 * float(high),
        upstream_level=level,
        verdicts=dict(Counter(_verdict(game) for game in games)),
        coverage=coverage,
        position_bias=position_bias(_both_ways(judgment) for judgment in judgments),
    )


def scored_games(judgments: Sequence[Judgment], version: Version) -> list[Game]:
    """The games that count under a version's rules."""
    kept = []
    for judgment in judgments:
        scored = [game for game in judgment.games if game.win is not None]
        if version == "v0.1" or len(scored) == len(judgment.games):
            kept += scored
    return kept


def battles(games: Sequence[Game]) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Each game as often as it weighs: wins of shape ``[battles]``, and the question of each."""
    weights = [game.weight for game in games]
    wins = np.repeat(np.array([game.win for game in games], dtype=np.float64), weights)
    return wins, [game.uid for game in games for _ in range(game.weight)]


def bradley_terry(
    features: npt.NDArray[np.float64],
    wins: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    *,
    ridge: float = 0.0,
) -> npt.NDArray[np.float64]:
    """Maximum-likelihood coefficients of a logistic model without intercept (scikit-learn, L-BFGS).

    Args:
        features: Shape ``[battles, columns]``: +1 for the one side's strength, -1 for the other's, and any covariates.
        wins: Of the +1 side, 0 to 1; a tie is 0.5. Shape ``[battles]``.
        weights: 0 or more. Shape ``[battles]``.
        ridge: Strength of an L2 penalty of ``ridge / 2 * |coefficients|**2``; 0 is none.

    Returns:
        Shape ``[columns]``.

    Raises:
        ConfigError: every battle went the same way.
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(fit_intercept=False, C=1 / ridge if ridge else np.inf, tol=1e-8, max_iter=1000)
    # scikit-learn wants classes: each battle is a win and a loss, in shares.
    outcome = np.repeat([1, 0], len(wins))
    shares = np.concatenate([weights * wins, weights * (1 - wins)])
    counts = shares > 0
    if len(set(outcome[counts])) < 2:  # noqa: PLR2004 - a win and a loss
        raise ConfigError("every battle went the same way, so no strength can be fitted. Use the score as it is.")
    model.fit(np.concatenate([features, features])[counts], outcome[counts], sample_weight=shares[counts])
    return np.asarray(model.coef_[0], dtype=np.float64)


def _verdict(game: Game) -> str:
    if game.win == 0.5:  # noqa: PLR2004 - a tie
        return "tie"
    return f"{'won' if game.win else 'lost'}{' clearly' if game.weight > 1 else ''}"


def _both_ways(judgment: Judgment) -> SeenBothWays:
    first = next((game.win for game in judgment.games if game.model_first), None)
    second = next((game.win for game in judgment.games if not game.model_first), None)
    return SeenBothWays(judgment.uid, judgment.uid, first, second)
