"""Each tracker gets TRL's metrics through transformers' callback, without network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhi_plugin.errors import MissingExtraError
from rlhi_training import trackers

METRICS = {"rewards/margins", "rewards/accuracies", "rewards/chosen", "logps/rejected", "loss", "grad_norm"}
RUN = """
import sys
from pathlib import Path
from test_trainer import some_pairs, tiny_recipe
from rlhi_training.trainer import train_adapter

recipe = tiny_recipe(Path(sys.argv[1]), epochs=1.0, report_to=(sys.argv[3],))
train_adapter(some_pairs(), recipe, Path(sys.argv[2]), progress=None)
"""


def run(tracker: str, base: Path, out: Path, **environment: str) -> None:
    """One short training in a process of its own: trackers keep threads and settings of the whole process."""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    settings = {**os.environ, "PYTHONPATH": paths, "WANDB_MODE": "offline", **environment}
    command = [sys.executable, "-c", RUN, str(base), str(out), tracker]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False, cwd=out)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_tensorboard_files_lie_in_the_run(tiny_model_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run("tensorboard", tiny_model_dir, tmp_path)
    events = EventAccumulator(str(tmp_path / trackers.TENSORBOARD)).Reload()
    assert {f"train/{name}" for name in METRICS} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2]


@pytest.mark.slow
def test_wandb_keeps_an_offline_run(tiny_model_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    run("wandb", tiny_model_dir, tmp_path, WANDB_DIR=str(tmp_path))
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert all(f"train/{name}".encode() in file.read_bytes() for name in METRICS)


@pytest.mark.slow
def test_trackio_keeps_a_local_run(tiny_model_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    run("trackio", tiny_model_dir, tmp_path, TRACKIO_DIR=str(tmp_path / "trackio"))
    kept = b"".join(path.read_bytes() for path in (tmp_path / "trackio").rglob("*") if path.is_file())
    assert all(f"train/{name}".encode() in kept for name in METRICS)


def test_an_absent_tracker_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhi_training.trackers.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"wandb is not installed.*rlhi\[track\]"):
        trackers.require(["wandb"])
    trackers.require([])


def test_the_project_has_our_name_unless_somebody_chose_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    with trackers.named(["wandb"]):
        assert os.environ["WANDB_PROJECT"] == trackers.PROJECT
    assert "WANDB_PROJECT" not in os.environ
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    with trackers.named(["wandb"]):
        assert os.environ["WANDB_PROJECT"] == "mine"
    assert os.environ["WANDB_PROJECT"] == "mine"
