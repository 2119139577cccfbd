"""The length-controlled win rate: what the model would win if its outputs were as long as the baseline's.

Dubois et al., arXiv 2404.04475: a logistic model of the preference on ``tanh`` of the standardised length difference,
the instruction's difficulty, and the model itself; the win rate is its mean prediction with a length difference of 0.

Three ways to it, and every result says which it is:

* `from_coefficients`: published coefficients and difficulties; no fit.
* `fit` with the annotations of the "gamed" baselines (``df_gamed.csv``): what ``alpaca_eval`` does, exactly.
* `fit` without them: the same model without what those annotations hold its coefficients to. Close, and not the
  leaderboard's number.

``alpaca_eval`` looks difficulties up by the row of its table, not by the instruction: where a model lacks annotations,
all later instructions get a neighbour's difficulty. `by_row` does the same, to meet the leaderboard; for a complete
table there is no difference.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rlhi_eval_harness.alpaca.files import WHERE, Annotation, open_text
from rlhi_eval_harness.alpaca.package import alpaca_eval_module
from rlhi_plugin.errors import ConfigError

GLM = "length_controlled_v1"
COLUMNS = ("np.tanh(std_delta_len)", "instruction_difficulty", "not_gamed_baseline.astype(float)")
"""Names of the three coefficients in the published tables."""

Method = Literal["published coefficients", "exact fit", "refit without the gamed baselines"]


@dataclass(frozen=True)
class Coefficients:
    """The logistic model of one model's preferences against the baseline.

    Attributes:
        length: Of ``tanh`` of the standardised length difference (baseline minus model).
        difficulty: Of the instruction's difficulty.
        model: Of the model itself: its log-odds at equal length and difficulty 0.
    """

    length: float
    difficulty: float
    model: float


@dataclass(frozen=True)
class LengthControlled:
    """A length-controlled win rate.

    Attributes:
        win_rate: 0 to 100.
        standard_error: Of the mean prediction over instructions, as on the leaderboard. The fit's own uncertainty is
            not in it.
        coefficients: What it was computed from.
        method: How they were come by; only the first two give the leaderboard's number.
    """

    win_rate: float
    standard_error: float
    coefficients: Coefficients
    method: Method


def from_coefficients(
    coefficients: Coefficients,
    difficulties: Mapping[int, float],
    annotations: Sequence[Annotation],
    *,
    by_row: bool = False,
    method: Method = "published coefficients",
) -> LengthControlled:
    """The win rate that given coefficients predict at equal length.

    Args:
        coefficients: Of the model.
        difficulties: Of the instructions, by index.
        annotations: Of the model. The prediction is averaged over all that are present, be they scored or not: it
            needs no verdict. ``alpaca_eval`` does so too.
        by_row: Look difficulties up as ``alpaca_eval`` does; see above.
        method: What the result is to be called.

    Raises:
        ConfigError: nothing is annotated, or an instruction has no difficulty.
    """
    present = [each for each in annotations if each.present]
    if not present:
        raise ConfigError("no instruction is annotated. Annotate the outputs again.")
    difficulty = np.array(_difficulties(present, difficulties, by_row=by_row))
    predicted = 1 / (1 + np.exp(-(coefficients.model + coefficients.difficulty * difficulty)))
    return LengthControlled(
        win_rate=float(100 * predicted.mean()),
        standard_error=float(100 * predicted.std(ddof=1) / np.sqrt(len(predicted))) if len(predicted) > 1 else 0.0,
        coefficients=coefficients,
        method=method,
    )


def fit(
    annotations: Sequence[Annotation],
    difficulties: Mapping[int, float] | None = None,
    *,
    by_row: bool = False,
    gamed: Path | None = None,
) -> LengthControlled:
    """Fit the length-controlled model to annotations with ``alpaca_eval``'s own design and fitting functions.

    Args:
        annotations: Of one model, one for each instruction of the set.
        difficulties: Of the instructions, by index; not needed with `gamed`, which holds them.
        by_row: Look difficulties up as ``alpaca_eval`` does; see above.
        gamed: ``df_gamed.csv``. With it the fit is ``alpaca_eval``'s own; without it a refit.

    Raises:
        ConfigError: a file or a difficulty is missing, or there is too little to fit.
        MissingExtraError: alpaca_eval is not installed.
    """
    scored = [each for each in annotations if each.preference is not None]
    if len(scored) < 10 or len({each.preference for each in scored}) == 1:  # noqa: PLR2004 - five folds of two
        raise ConfigError(f"{len(scored)} scored annotations cannot be fitted. Annotate more of the set.")
    frame = None if gamed is None else _read_gamed(gamed)
    if frame is not None:
        difficulties = dict(zip(frame["index"].astype(int), frame["instruction_difficulty"].astype(float), strict=True))
    if difficulties is None:
        raise ConfigError(f"the fit needs the instructions' difficulties: instruction_difficulty.csv. {WHERE}")
    present = [each for each in annotations if each.present]
    coefficients = _fit(present, _difficulties(present, difficulties, by_row=by_row), frame)
    return from_coefficients(
        coefficients,
        difficulties,
        annotations,
        by_row=by_row,
        method="refit without the gamed baselines" if frame is None else "exact fit",
    )


def read_coefficients(path: Path) -> dict[str, Coefficients]:
    """Read a table of published coefficients, by model.

    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    rows = list(csv.DictReader(io.StringIO(open_text(path, "the table of GLM coefficients"))))
    try:
        return {
            str(row.get("model") or row.get("")): Coefficients(*(float(row[column]) for column in COLUMNS))
            for row in rows
        }
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{path} lacks one of the columns {', '.join(COLUMNS)}. They are published in "
            "https://github.com/tatsu-lab/alpaca_eval, src/alpaca_eval/metrics/weights/weighted_alpaca_eval_gpt4_turbo/"
            f"{GLM}/baseline_gpt4_1106_preview.csv."
        ) from error


def _fit(present: Sequence[Annotation], difficulties: Sequence[float], gamed: Any) -> Coefficients:
    glm = alpaca_eval_module("metrics.glm_winrate")
    import pandas as pd
    import sklearn

    info = glm.GLM_INFO[GLM]
    delta = np.array([each.baseline_length - each.model_length for each in present], dtype=np.float64)
    spread = delta.std(ddof=1)
    ours = pd.DataFrame(
        {
            "index": [each.index for each in present],
            "preference": [np.nan if each.preference is None else each.preference - 1 for each in present],
            # Outputs as long as the baseline's everywhere: nothing to standardise by.
            "std_delta_len": delta / spread if spread else delta,
            "instruction_difficulty": difficulties,
            "not_gamed_baseline": True,
        }
    )
    train = ours if gamed is None else pd.concat([gamed, ours], axis=0)
    known = train["preference"].notna().to_numpy()
    weights: npt.NDArray[np.float64] | None = None
    if gamed is not None:
        # The two gamed baselines share the weight; alpaca_eval halves it likewise.
        share = info["regularize_to_baseline_lambda"] / 2
        weights = np.where(train["not_gamed_baseline"].astype(bool), 1.0, share)[known]
    test = ours[["instruction_difficulty", "not_gamed_baseline"]].assign(std_delta_len=0.0)
    # The package switches a global option of scikit-learn on, and calls it in a way that later releases will not take.
    with sklearn.config_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="sklearn")
        design, _ = glm.make_dmatrix_for_model(train, test, formula=info["formula"])
        model = glm.fit_LogisticRegressionCV(
            design[known], "preference", is_ytrue_proba=True, sample_weight=weights, **info["kwargs"]
        )
    by_name = dict(zip([name for name in design.columns if name != "preference"], model.coef_[0], strict=True))
    return Coefficients(*(float(by_name[column]) for column in COLUMNS))


def _read_gamed(path: Path) -> Any:
    alpaca_eval_module("constants")
    import pandas as pd

    frame = pd.read_csv(io.StringIO(open_text(path, "the annotations of the gamed baselines")))
    needed = ["index", "preference", "std_delta_len", "instruction_difficulty", "not_gamed_baseline"]
    missing = [column for column in needed if column not in frame.columns]
    if missing:
        raise ConfigError(f"{path} lacks the columns {', '.join(missing)}. Give df_gamed.csv unchanged. {WHERE}")
    return frame[needed]


def _difficulties(present: Sequence[Annotation], difficulties: Mapping[int, float], *, by_row: bool) -> list[float]:
    numbers = range(len(present)) if by_row else [each.index for each in present]
    missing = [number for number in numbers if number not in difficulties]
    if missing:
        raise ConfigError(f"{len(missing)} instructions have no difficulty (such as {missing[0]}). {WHERE}")
    return [difficulties[number] for number in numbers]
