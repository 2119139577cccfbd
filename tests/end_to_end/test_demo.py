"""The whole loop, as ``make demo`` runs it, on a tiny model: every step, every file, and a second start."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _demo(base: Path, out: Path) -> subprocess.CompletedProcess[str]:
    # So few users share hardly any wish, and so small a model repeats itself.
    environ = {
        **os.environ,
        "RLHI_MODEL__MAX_NEW_TOKENS": "200",
        "RLHI_FILTER__REQUIRE_PERSONA": "false",
        "RLHI_CONTRAST__MIN_USERS_PER_PROPERTY": "1",
        "RLHI_CONTRAST__GUIDED_SAMPLES": "8",
        "RLHI_CONTRAST__MAX_LENGTH_RATIO": "8",
        "RLHI_FILTER__MAX_REPEATED_SHARE": "1",
        "COLUMNS": "160",
    }
    command = [sys.executable, ROOT / "examples" / "demo.py", "--size", "tiny", "--base", base, "--out", out]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_demo_runs_from_conversations_to_a_report_and_reuses_them(talking_model_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    first = _demo(talking_model_dir, out)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "reused" not in first.stdout
    pairs = [json.loads(line) for line in (out / "run" / "pairs.jsonl").read_text("utf-8").splitlines()]
    assert pairs
    assert (out / "run" / "adapter" / "adapter_model.safetensors").is_file()
    page = (out / "report" / "report.html").read_text("utf-8")
    assert "<svg" in page or "data:image/png" in page
    report = json.loads((out / "report" / "report.json").read_text("utf-8"))
    assert {sample["subject"] for sample in report["samples"]} >= {"base", "base+persona", "adapter+persona"}
    for finding in report["findings"]:
        assert finding in first.stdout

    second = _demo(talking_model_dir, out)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "reused" in second.stdout
    assert (out / "report" / "report.html").read_text("utf-8") == page
