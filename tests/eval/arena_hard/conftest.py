"""The published files, which are not part of the repository, and judgments made by a rule that we know."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlhi_eval_harness.arena_hard.files import Judgment
from rlhi_eval_harness.arena_hard.verdicts import games_of


@pytest.fixture(scope="session")
def arena_data() -> Path:
    root = Path(os.environ.get("RLHI_TEST_DATA") or Path(__file__).parents[4] / "shared" / "data")
    path = root / "arena-hard"
    if not path.is_dir():
        pytest.skip(f"{path} is absent: set RLHI_TEST_DATA to the folder of real data")
    return path


@pytest.fixture(scope="session")
def judgment():
    """A judgment from two labels; None is unscored."""

    def make(uid: str, *labels: str | None, category: str = "") -> Judgment:
        return Judgment(uid, games_of(uid, [(each, None if each else "no verdict") for each in labels]), category)

    return make


@pytest.fixture
def prompt_folder(tmp_path) -> Path:
    """Prompts of our own, in the form that is read."""
    folder = tmp_path / "prompts"
    folder.mkdir()
    for name in ("hard_prompt", "creative_writing", "arena-hard-v0.1"):
        (folder / f"{name}.md").write_text(f"Compare two answers ({name}). End with [[A>B]] or the like.\n")
    (folder / "user.md").write_text("Q: {QUESTION}\nA: {ANSWER_A}\nB: {ANSWER_B}\n")
    return folder
