"""What a person sees while an adapter trains: a bar with TRL's metrics, and an alarm when nothing is learnt."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

_log = logging.getLogger("rlhi.training")

NOTHING_LEARNT = 1e-3
"""Reward margin, in nats times beta, below which training has not told chosen from rejected (ours)."""
_EARLIEST = 10
"""Logged steps are believed from this one on, or after a fifth of all steps (ours)."""

Report = Callable[[int, str], None]
"""Reports that so many more steps are done, and how it stands."""


class Watch(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Advances a progress bar, and warns when there is nothing to learn.

    Args:
        advance: Called after each optimiser step with 1 and the last logged metrics.
        warnings: Gets at most one line, the first sign found.
        preference: Whether a loss that compares chosen with rejected is trained; without one, flat margins mean
            nothing.
    """

    def __init__(self, advance: Report, warnings: list[str], *, preference: bool = True) -> None:
        self._advance = advance
        self._warnings = warnings
        self._preference = preference
        self._flat = True
        self._last: tuple[int, dict[str, float]] = (0, {})
        self._note = ""
        self._tokens: tuple[float, float] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A resumed run starts where it was."""
        del args, control
        if state.global_step:
            self._advance(state.global_step, "")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One optimiser step is done."""
        del args, state, control
        self._advance(1, self._note)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Keep the metrics for the bar, and look for signs that nothing is learnt."""
        del args
        logs = logs or {}
        if "rewards/margins" not in logs:
            return
        self._note = self._described(logs)
        self._last = (state.global_step, logs)
        numbers = [logs[name] for name in ("loss", "grad_norm") if name in logs]
        if not all(map(math.isfinite, numbers)):
            control.should_training_stop = True
            self._say(f"at step {state.global_step} loss or gradient is not a finite number: lower train.learning_rate")
        elif logs.get("grad_norm") == 0.0:
            self._say(
                "the gradient is zero: check that the pairs differ, that train.loss_weights are not all zero and that "
                "train.target_modules matches the model"
            )
        self._flat = self._flat and abs(logs["rewards/margins"]) < NOTHING_LEARNT
        if state.global_step >= max(_EARLIEST, state.max_steps // 5):
            self._judge()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A short run is judged by its end."""
        del args, state, control
        self._judge()

    def _judge(self) -> None:
        step, logs = self._last
        if not (self._flat and self._preference) or step < 2:  # noqa: PLR2004 - before its first step every run is flat
            return
        rewards = [logs.get(f"rewards/{side}", 0.0) for side in ("chosen", "rejected")]
        if max(map(abs, rewards)) < NOTHING_LEARNT:
            self._say(
                f"after {step} steps chosen and rejected are told apart by less than {NOTHING_LEARNT}, and neither has "
                "moved: raise train.learning_rate or train.epochs"
            )
        else:
            self._say(
                f"after {step} steps chosen and rejected are told apart by less than {NOTHING_LEARNT} although both "
                f"have moved to {rewards[0]:+.3g}: their rewards are equal, so look at the pairs"
            )

    def _described(self, logs: dict[str, float]) -> str:
        """Loss, margin, accuracy and speed, from TRL's metrics."""
        parts = [f"loss {logs['loss']:.3f}"] if "loss" in logs else []
        parts.append(f"margin {logs['rewards/margins']:+.2f}")
        if "rewards/accuracies" in logs:
            parts.append(f"accuracy {logs['rewards/accuracies']:.0%}")
        now, tokens = time.monotonic(), logs.get("num_tokens", 0.0)
        if self._tokens is not None and now > self._tokens[0]:
            parts.append(f"{(tokens - self._tokens[1]) / (now - self._tokens[0]):,.0f} tokens/s")
        self._tokens = (now, tokens)
        return ", ".join(parts)

    def _say(self, warning: str) -> None:
        if not self._warnings:
            _log.warning(warning)
            self._warnings.append(warning)
