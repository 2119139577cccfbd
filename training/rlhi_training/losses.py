"""The losses that TRL's `DPOTrainer` offers.

All of them are functions of per-token log-probabilities, which trees give exactly, so none is refused for their sake.
"""

from __future__ import annotations

from rlhi_plugin.errors import ConfigError
from rlhi_training.train_options import TrainSection

LOSSES = {
    "sigmoid": "DPO (arXiv 2305.18290)",
    "hinge": "SLiC (arXiv 2305.10425)",
    "ipo": "IPO (arXiv 2310.12036), by token",
    "exo_pair": "EXO (arXiv 2402.00856); needs label_smoothing",
    "nca_pair": "NCA (arXiv 2402.05369)",
    "robust": "robust DPO (arXiv 2403.00409); label_smoothing is the share of wrong labels",
    "bco_pair": "BCO (arXiv 2404.04656), on pairs",
    "sppo_hard": "SPPO (arXiv 2405.00675), the chosen always wins",
    "aot": "AOT (arXiv 2406.05882); sorts the pairs of a forward pass",
    "aot_unpaired": "the same, sides sorted apart",
    "apo_zero": "APO-zero (arXiv 2408.06266)",
    "apo_down": "APO-down (arXiv 2408.06266)",
    "discopop": "DiscoPOP (arXiv 2406.08414)",
    "sft": "cross-entropy of the chosen answers; compares nothing",
    "sigmoid_norm": "DPO by token",
}
"""By TRL's name: what each is."""


def check_losses(train: TrainSection) -> None:
    """Refuse what TRL would refuse only after the reference pass, or not at all.

    Raises:
        ConfigError: an unknown loss, or one without the option that it needs.
    """
    unknown = sorted(set(train.loss) - set(LOSSES))
    if unknown:
        raise ConfigError(f"train.loss knows no {unknown[0]!r}. Take some of: {', '.join(LOSSES)}.")
    if "exo_pair" in train.loss and not train.label_smoothing:
        raise ConfigError("the loss exo_pair needs train.label_smoothing above 0. Set it to 0.001, as its paper does.")


def compares(train: TrainSection) -> bool:
    """Whether a loss with weight tells chosen from rejected."""
    return any(weight and loss != "sft" for loss, weight in zip(train.loss, train.loss_weights, strict=True))
