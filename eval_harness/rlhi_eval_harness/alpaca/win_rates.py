"""The raw win rate, as ``alpaca_eval`` computes it, with an interval and the share that is unscored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhi_eval_harness.alpaca.files import Annotation
from rlhi_eval_harness.alpaca.package import alpaca_eval_module
from rlhi_eval_harness.inference.coverage import Coverage
from rlhi_eval_harness.inference.judge_bias import LengthBias, length_bias
from rlhi_eval_harness.statistics import Value, mean
from rlhi_plugin.errors import ConfigError


@dataclass(frozen=True)
class WinRate:
    """How often the model's output is preferred.

    Attributes:
        win_rate: Mean preference for the model, 0 to 100.
        standard_error: Of it, as on the leaderboard.
        low: Lower end of the 95 % bootstrap interval over instructions.
        high: Upper end.
        discrete_win_rate: The same with every preference rounded to a win, a loss or a draw.
        average_length: Mean characters of the model's outputs.
        coverage: What of the set was scored.
        length_bias: How far the longer output wins.
    """

    win_rate: float
    standard_error: float
    low: float | None
    high: float | None
    discrete_win_rate: float
    average_length: float
    coverage: Coverage
    length_bias: LengthBias


def win_rate(annotations: Sequence[Annotation], *, seed: int = 0) -> WinRate:
    """Raw win rate of one model.

    Args:
        annotations: One for each instruction of the set, unscored ones included.
        seed: Of the bootstrap.

    Raises:
        ConfigError: nothing is scored.
        MissingExtraError: alpaca_eval is not installed.
    """
    scored = [each for each in annotations if each.preference is not None]
    coverage = Coverage.of(each.unscored for each in annotations)
    if not scored:
        raise ConfigError(f"no instruction has a preference. {coverage.sentence()} Annotate the outputs again.")
    found = alpaca_eval_module("metrics.winrate").get_winrate([{"preference": each.preference} for each in scored])
    wins = [Value(str(each.index), str(each.index), (each.preference or 1.0) - 1) for each in scored]
    interval = mean(wins, share=True, seed=seed)
    return WinRate(
        win_rate=float(found["win_rate"]),
        standard_error=float(found["standard_error"]),
        low=None if interval.low is None else 100 * interval.low,
        high=None if interval.high is None else 100 * interval.high,
        discrete_win_rate=float(found["discrete_win_rate"]),
        average_length=sum(each.model_length for each in scored) / len(scored),
        coverage=coverage,
        length_bias=length_bias(
            wins, [(float(each.model_length), float(each.baseline_length)) for each in scored], seed=seed
        ),
    )
