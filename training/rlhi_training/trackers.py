"""Experiment trackers: transformers' own callbacks, told where to write and what the run is called.

Metrics have TRL's names everywhere. TensorBoard's files lie in the run's folder; Trackio and Weights & Biases keep
theirs where their own settings say (``TRACKIO_DIR``, ``WANDB_DIR``, ``WANDB_MODE=offline``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from rlhi_plugin.errors import MissingExtraError

Tracker = Literal["trackio", "tensorboard", "wandb"]

PROJECT = "rlhi"
"""What a run belongs to, for trackers that group runs."""
TENSORBOARD = "tensorboard"
"""Folder in the run's, with TensorBoard's event files."""


def require(trackers: Sequence[str]) -> None:
    """Make sure that the packages of trackers are there.

    Raises:
        MissingExtraError: one is not.
    """
    for name in trackers:
        if find_spec(name) is None:
            raise MissingExtraError(name, "track")


def callbacks(trackers: Sequence[str], out_dir: Path) -> list[Any]:
    """One callback a tracker; see `require`."""
    from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

    require(trackers)
    kinds = {"tensorboard": TensorBoardCallback, "trackio": TrackioCallback, "wandb": WandbCallback}
    made = []
    for name in trackers:
        callback = kinds[name]()
        if name == "tensorboard":
            callback.logging_dir = str(out_dir / TENSORBOARD)
        made.append(callback)
    return made


@contextmanager
def named(trackers: Sequence[str]) -> Iterator[None]:
    """Give runs our project's name where the environment gives none; it has no other way in."""
    if "wandb" not in trackers or "WANDB_PROJECT" in os.environ:
        yield
        return
    os.environ["WANDB_PROJECT"] = PROJECT
    try:
        yield
    finally:
        os.environ.pop("WANDB_PROJECT", None)
