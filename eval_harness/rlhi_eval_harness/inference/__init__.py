"""What may be concluded from scores: tests, corrections, power, agreement, the judge's biases, and what is unscored.

Means, paired differences and their intervals are in `rlhi_eval_harness.statistics`; everything here takes the same
`Value` objects. Tests come from scipy and statsmodels, Krippendorff's alpha from the package of that name.
"""

from rlhi_eval_harness.inference.agreement import Agreement, cohens_kappa, krippendorff_alpha
from rlhi_eval_harness.inference.clustered_agreement import (
    Coefficient,
    RatedTwice,
    clustered_alpha,
    clustered_kappa,
)
from rlhi_eval_harness.inference.comparisons import (
    Comparison,
    McNemar,
    correct,
    mcnemar,
    paired_p_value,
)
from rlhi_eval_harness.inference.coverage import UNSCORED_LIMIT, Coverage
from rlhi_eval_harness.inference.judge_bias import LengthBias, PositionBias, SeenBothWays, length_bias, position_bias
from rlhi_eval_harness.inference.power import DetectableEffect, minimum_detectable_effect
from rlhi_eval_harness.inference.prediction_powered import JudgedItem, PredictionPowered, prediction_powered_mean

__all__ = [
    "UNSCORED_LIMIT",
    "Agreement",
    "Coefficient",
    "Comparison",
    "Coverage",
    "DetectableEffect",
    "JudgedItem",
    "LengthBias",
    "McNemar",
    "PositionBias",
    "PredictionPowered",
    "RatedTwice",
    "SeenBothWays",
    "clustered_alpha",
    "clustered_kappa",
    "cohens_kappa",
    "correct",
    "krippendorff_alpha",
    "length_bias",
    "mcnemar",
    "minimum_detectable_effect",
    "paired_p_value",
    "position_bias",
    "prediction_powered_mean",
]
