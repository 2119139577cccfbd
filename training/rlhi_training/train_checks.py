"""Training options that do not fit each other are an error before anything is loaded."""

from __future__ import annotations

from rlhi_plugin.errors import ConfigError
from rlhi_training.train_options import TrainSection

INSEPARABLE = ("aot", "aot_unpaired")
"""TRL's losses that sort the pairs of a batch: they are no sum over its parts."""


def divisible(train: TrainSection) -> bool:
    """Whether ``train.tokens_per_batch`` can divide a batch: the method takes it, and no loss sorts a batch's pairs."""
    return train.method == "dpo" and not set(train.loss) & set(INSEPARABLE)


def check_train(train: TrainSection) -> None:
    """Make sure that the options of training fit each other.

    Raises:
        ConfigError: they do not.
    """
    if train.token_budget is None and train.batch_size % train.micro_batch_size:
        raise ConfigError(
            f"train.micro_batch_size ({train.micro_batch_size}) does not divide train.batch_size ({train.batch_size}). "
            "Change one of them."
        )
    if len(train.loss) != len(train.loss_weights):
        raise ConfigError(
            f"train.loss names {len(train.loss)} losses and train.loss_weights {len(train.loss_weights)} weights. "
            "Give one weight a loss."
        )
    sorting = [loss for loss in train.loss if loss in INSEPARABLE]
    if train.token_budget is not None and sorting:
        raise ConfigError(
            f"the loss {sorting[0]} sorts the pairs of a batch, so train.tokens_per_batch cannot divide the batch. "
            "Take another loss, or leave tokens_per_batch out and set micro_batch_size."
        )


def check_together(train: TrainSection) -> None:
    """Make sure that several processes can train as the recipe wants: on the pairs of a run, once.

    Raises:
        ConfigError: they cannot.
    """
    if train.rounds > 1:
        raise ConfigError(
            f"train.rounds = {train.rounds} samples with the adapter between trainings, which one process does. Use"
            " rlhi-train train RUN_DIRECTORY in one process, or --set train.rounds=1 to train once, on the run's pairs,"
            " with all of them."
        )
    if train.method == "self_distillation":
        raise ConfigError(
            "self-distillation learns from logged answers, and several processes train on a run's pairs. Use"
            " rlhi-train train RUN_DIRECTORY in one process, or --set train.method=dpo."
        )
