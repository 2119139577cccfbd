"""The published files, which are not part of the repository, and a small set of our own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlhi_eval_harness.alpaca.files import Annotation, Instruction


@pytest.fixture(scope="session")
def alpaca_data() -> Path:
    root = Path(os.environ.get("RLHI_TEST_DATA") or Path(__file__).parents[4] / "shared" / "data")
    path = root / "alpaca-eval-2"
    if not path.is_dir():
        pytest.skip(f"{path} is absent: set RLHI_TEST_DATA to the folder of real data")
    return path


@pytest.fixture
def small_set() -> tuple[Instruction, ...]:
    return tuple(Instruction(i, f"Explain thing {i}.", "ours", f"baseline text {i}") for i in range(8))


@pytest.fixture(scope="session")
def annotated():
    """Annotations whose preference leans towards longer outputs, as a judge's would, and their difficulties."""
    import numpy as np

    def make(n: int = 200, seed: int = 0) -> tuple[list[Annotation], dict[int, float]]:
        rng = np.random.default_rng(seed)
        lengths = rng.integers(50, 2000, (n, 2))
        difficulty = rng.normal(0, 1, n)
        relative = np.tanh((lengths[:, 1] - lengths[:, 0]) / (lengths[:, 1] - lengths[:, 0]).std())
        chance = 1 / (1 + np.exp(-(-0.8 + 1.0 * difficulty + 1.7 * relative + rng.normal(0, 1.5, n))))
        rows = [
            Annotation(i, float(1 + p), int(base), int(ours))
            for i, (p, (base, ours)) in enumerate(zip(chance, lengths, strict=True))
        ]
        return rows, dict(enumerate(difficulty.tolist()))

    return make
