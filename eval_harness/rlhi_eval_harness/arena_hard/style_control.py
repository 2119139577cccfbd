"""Style control: what would a model score if its answers looked like the baseline's?

A Bradley-Terry model whose covariates are standardised differences in style, so that strength and style share the
credit. Li et al., "Does style matter?", LMSYS blog, 2024; the two versions build the covariates differently.

Upstream standardises by subtracting the mean difference over all battles of all models, so its scores are for the
*average* style difference in the pool: they change with the other models, and of a single model nothing is controlled.
``reference="pool"`` does as upstream. ``reference="equal"`` subtracts nothing: the score is for no difference in style.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from rlhi_eval_harness.arena_hard.files import Judgment
from rlhi_eval_harness.arena_hard.scores import UPSTREAM_LEVEL, UPSTREAM_RESAMPLES, bradley_terry, scored_games
from rlhi_eval_harness.arena_hard.style import Style
from rlhi_eval_harness.arena_hard.verdicts import Version
from rlhi_plugin.errors import ConfigError

Control = Literal["length", "markdown"]
Reference = Literal["equal", "pool"]
COLUMNS: Mapping[Control, tuple[int, ...]] = {"length": (0,), "markdown": (1, 2, 3)}
NAMES = ("tokens", "headers", "list items", "bold")


@dataclass(frozen=True)
class StyleOptions:
    """How to control.

    Attributes:
        version: Whose covariates and whose penalty: v0.1 has an L2 penalty of strength 1, v2.0 none.
        controls: For what.
        reference: Which style difference the score is for.
        resamples: Bootstrap rounds.
        seed: Of the bootstrap.
        over: What is resampled: ``questions`` with all their battles, or ``battles`` as upstream does.
    """

    version: Version = "v2.0"
    controls: tuple[Control, ...] = ("length", "markdown")
    reference: Reference = "equal"
    resamples: int = UPSTREAM_RESAMPLES
    seed: int = 0
    over: Literal["questions", "battles"] = "questions"

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            ConfigError: nothing is controlled for, or there are no resamples.
        """
        if not self.controls or any(control not in COLUMNS for control in self.controls) or self.resamples < 1:
            raise ConfigError(
                f"controls={self.controls}, resamples={self.resamples}: give length, markdown, at least 1."
            )


@dataclass(frozen=True)
class StyleScore:
    """A style-controlled score, 0 to 100, with the bootstrap interval of its version's level."""

    score: float
    low: float
    high: float


@dataclass(frozen=True)
class StyleControlled:
    """The scores, and what style is worth.

    Attributes:
        scores: By model.
        coefficients: Log-odds of one standard deviation more of each element of style.
        left_out: Elements whose difference is the same everywhere, so that nothing can be said of them.
        level: Confidence level of the intervals.
    """

    scores: Mapping[str, StyleScore]
    coefficients: Mapping[str, float]
    left_out: tuple[str, ...]
    level: float


def style_controlled(
    judgments: Mapping[str, Sequence[Judgment]],
    styles: Mapping[str, Mapping[str, Style]],
    baseline: Mapping[str, Style],
    options: StyleOptions | None = None,
) -> StyleControlled:
    """Score models with their style controlled for.

    Args:
        judgments: By model.
        styles: Of every model's answers, by model and question.
        baseline: Of the baseline's answers, by question.
        options: How.

    Raises:
        ConfigError: an answer's style is missing, nothing is scored, or style does not vary at all.
    """
    options = options or StyleOptions()
    table = _table(judgments, styles, baseline, options)
    models = sorted(judgments)
    rng = np.random.default_rng(options.seed)
    unit = math.log(10) if options.version == "v0.1" else 1.0
    ridge = 1.0 if options.version == "v0.1" else 0.0
    # v0.1 enters every battle twice, which halves its penalty.
    copies = 2.0 if options.version == "v0.1" else 1.0

    def fit(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        coefficients = bradley_terry(table.design, table.wins, copies * counts, ridge=ridge)
        strengths = unit * (coefficients[: len(models)] - coefficients[len(models)])
        return np.concatenate([100 / (1 + np.exp(-strengths)), coefficients[len(models) + 1 :]])

    point = fit(table.weights)
    samples = np.stack([fit(_resample(table, rng, options.over)) for _ in range(options.resamples)])
    level = UPSTREAM_LEVEL[options.version]
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return StyleControlled(
        scores={model: StyleScore(float(point[i]), float(low[i]), float(high[i])) for i, model in enumerate(models)},
        coefficients=dict(zip(table.elements, point[len(models) :].tolist(), strict=True)),
        left_out=table.left_out,
        level=level,
    )


@dataclass(frozen=True)
class _Table:
    design: npt.NDArray[np.float64]
    """Shape ``[games, models + 1 + style]``: the model +1, the baseline -1, then style."""
    wins: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    questions: npt.NDArray[np.int64]
    elements: tuple[str, ...]
    left_out: tuple[str, ...]


def _table(
    judgments: Mapping[str, Sequence[Judgment]],
    styles: Mapping[str, Mapping[str, Style]],
    baseline: Mapping[str, Style],
    options: StyleOptions,
) -> _Table:
    models = sorted(judgments)
    games = [(i, game) for i, model in enumerate(models) for game in scored_games(judgments[model], options.version)]
    if not games:
        raise ConfigError("no game has a verdict. Judge the answers again.")
    differences = []
    for i, game in games:
        ours, theirs = styles.get(models[i], {}).get(game.uid), baseline.get(game.uid)
        if ours is None or theirs is None:
            whose = models[i] if ours is None else "the baseline"
            raise ConfigError(f"the style of {whose}'s answer to {game.uid} is unknown. Give the answers as well.")
        differences.append(_difference(ours, theirs, options.version))
    weights = np.array([game.weight for _, game in games], dtype=np.float64)
    asked = sorted({column for control in options.controls for column in COLUMNS[control]})
    style = np.array(differences)
    columns = [column for column in asked if np.ptp(style[:, column]) > 0]
    if not columns:
        raise ConfigError("style does not vary. There is nothing to control for: use the score as it is.")
    strengths = np.zeros((len(games), len(models) + 1))
    strengths[np.arange(len(games)), [i for i, _ in games]] = 1.0
    strengths[:, -1] = -1.0
    if options.version == "v0.1":
        # In units of a factor of ten, which is what its penalty is on.
        strengths *= math.log(10)
    style = _standardise(style[:, columns], weights, options)
    uids = sorted({game.uid for _, game in games})
    place = {uid: i for i, uid in enumerate(uids)}
    return _Table(
        design=np.concatenate([strengths, style], axis=1),
        wins=np.array([game.win for _, game in games], dtype=np.float64),
        weights=weights,
        questions=np.array([place[game.uid] for _, game in games], dtype=np.int64),
        elements=tuple(NAMES[column] for column in columns),
        left_out=tuple(NAMES[column] for column in asked if column not in columns),
    )


def _difference(ours: Style, theirs: Style, version: Version) -> list[float]:
    """Model minus baseline: v0.1 compares counts, v2.0 the length, and markdown per token."""
    counts = [(ours.tokens, theirs.tokens), (ours.headers, theirs.headers)]
    counts += [(ours.list_items, theirs.list_items), (ours.bold, theirs.bold)]
    if version == "v0.1":
        return [(one - other) / (one + other + 1) for one, other in counts]
    tokens = max(ours.tokens, 1), max(theirs.tokens, 1)
    density = [(one / tokens[0], other / tokens[1]) for one, other in counts[1:]]
    return [
        (tokens[0] - tokens[1]) / (tokens[0] + tokens[1]),
        *((one - other) / (one + other + 1) for one, other in density),
    ]


def _standardise(
    differences: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], options: StyleOptions
) -> npt.NDArray[np.float64]:
    """By the spread over battles: a game counts as often as it weighs."""
    centre = np.average(differences, axis=0, weights=weights)
    variance = np.average((differences - centre) ** 2, axis=0, weights=weights)
    if options.version == "v2.0":
        variance *= weights.sum() / (weights.sum() - 1)
    return np.asarray((differences - (centre if options.reference == "pool" else 0)) / np.sqrt(variance))


def _resample(
    table: _Table, rng: np.random.Generator, over: Literal["questions", "battles"]
) -> npt.NDArray[np.float64]:
    """How often each game counts in one bootstrap sample."""
    if over == "questions":
        total = int(table.questions.max()) + 1
        drawn = np.bincount(rng.integers(0, total, total), minlength=total)
        return np.asarray(table.weights * drawn[table.questions])
    total = int(table.weights.sum())
    return np.asarray(rng.multinomial(total, table.weights / total), dtype=np.float64)
