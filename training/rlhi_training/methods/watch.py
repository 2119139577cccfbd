"""Callbacks: where SFT or self-distillation has nothing to learn from, and where a round ends."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from rlhi_training.watch import Watch

NO_ADVANTAGE = 0.01
"""Mean absolute advantage, in nats a token, below which follow-ups change nothing of what the model thinks (ours)."""
_SIZE = "advantage/size"


class SequenceWatch(Watch):
    """Advances a progress bar, and warns of zero gradients and of advantages that are all near zero.

    Args:
        advance: Called after each optimiser step with 1 and the last logged metrics.
        warnings: Gets one line for the first sign found.
    """

    _largest: float | None = None
    _said = False

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Look at what was logged."""
        del args, control
        logs = logs or {}
        shown = (("loss", "loss"), (_SIZE, "advantage"))
        self._note = ", ".join(f"{name} {logs[key]:.3f}" for key, name in shown if key in logs) or self._note
        if _SIZE in logs:
            self._largest = max(self._largest or 0.0, logs[_SIZE])
        # Without advantages there is no gradient either; then they are the reason to name.
        if logs.get("grad_norm") == 0.0 and (self._largest is None or self._largest >= NO_ADVANTAGE):
            self._say("the gradient is zero: check the data, and that train.target_modules matches the model")
        if state.global_step >= max(10, state.max_steps // 5):
            self._look(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A short run is looked at here for the first time."""
        del args, control
        self._look(state.global_step)

    def _look(self, step: int) -> None:
        if self._largest is not None and self._largest < NO_ADVANTAGE and not self._said:
            self._said = True
            self._say(
                f"after {step} steps the follow-ups have changed the likelihood of no answer by more than "
                f"{self._largest:.2g} nats a token: this model cannot use them; try a larger base, or another method"
            )


class StopAfter(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Ends training, and saves its state, after a step.

    Args:
        step: 1-based.
    """

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One optimiser step is done."""
        del args
        if state.global_step >= self._step:
            control.should_training_stop = control.should_save = True
