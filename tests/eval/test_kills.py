"""`rlhi-eval` killed without warning while it answers and while it judges; the same command then finishes the job."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from rlhi_eval_harness.answering import call_of
from rlhi_eval_harness.records import PlannedSample
from rlhi_eval_harness.run_folder import read_records
from rlhi_plugin.fake_provider import Answer, FakeProvider

COMMAND = "import sys; sys.argv[0] = 'rlhi-eval'; from rlhi_eval_harness.cli import main; main()"


def _lines(path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _run_until(words, path, lines, environ):
    process = subprocess.Popen([sys.executable, "-c", COMMAND, *words], env=environ, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while _lines(path) < lines and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert _lines(path) >= lines


@pytest.mark.slow
def test_a_killed_run_asks_only_what_is_not_on_record(tmp_path):
    def assistant(request):
        return Answer(f"{'Persona. ' if request.system_text else ''}Yes: {request.last_user_text}", delay_s=0.15)

    def judge(request):
        shown = json.loads(request.last_user_text)
        return Answer(json.dumps({"verdict": "complied"} if "answer" in shown else {"quality": "A"}), delay_s=0.15)

    environ = {**os.environ, "OPENAI_API_KEY": "any"}
    out = tmp_path / "out"
    with FakeProvider(assistant) as served, FakeProvider(judge) as judging:
        endpoint = f"openai/m@{served.base_url}"
        words = ["run", "--suite", "harm", "--out", str(out), "--judge", f"openai/j@{judging.base_url}"]
        words += ["--subject", f"plain:endpoint={endpoint}", "--subject", f"own:endpoint={endpoint}+persona"]
        words += ["--set", "resamples=100"]
        _run_until(words, out / "outputs.jsonl", 20, environ)
        answered = len({json.loads(line)["sample_id"] for line in (out / "outputs.jsonl").read_text().split("\n")[:-1]})
        _run_until(words, out / "judgments.jsonl", 5, environ)
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, *words], env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        # Eight calls are in flight at most when the process dies; what is on record is never asked again.
        plan = read_records(out / "plan.jsonl", PlannedSample)
        distinct = len({call_of(sample) for sample in plan})
        assert answered >= 20
        assert distinct <= len(served.requests) <= distinct + 8
        assert 24 <= len(judging.requests) <= 24 + 8
    report = json.loads((out / "report.json").read_text())
    assert len(report["samples"]) == 12 * 7 * 2
    assert not [score for score in report["scores"] if (score.get("unscored") or "").startswith(("no_", "not_judged"))]


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_a_second_start_beside_it_with_2(tmp_path):
    """A reasoning suite against a slow endpoint: interrupted it says how to go on, and then asks only the rest."""
    rows = [{"question": f"What is {i} + {i}?", "answer": float(2 * i), "id": i} for i in range(24)]
    (tmp_path / "amc23.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def assistant(request):
        number = int(request.last_user_text.partition("What is ")[2].partition(" ")[0])
        return Answer(f"It is \\boxed{{{2 * number}}}.", delay_s=0.5)

    environ, out = {**os.environ, "OPENAI_API_KEY": "any"}, tmp_path / "out"
    with FakeProvider(assistant) as served:
        subject = f"a:endpoint=openai/m@{served.base_url}"
        words = ["run", "--suite", "amc23", "--data", str(tmp_path), "--subject", subject, "--out", str(out)]
        words += ["--set", "partial=true", "--set", "resamples=100"]
        command = [sys.executable, "-c", COMMAND, *words]
        first = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while _lines(out / "outputs.jsonl") < 4 and time.monotonic() < deadline and first.poll() is None:
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)
        second = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert second.returncode == 2, second.stderr
        assert "another rlhi-eval is at work" in second.stderr
        first.send_signal(signal.SIGCONT)
        first.send_signal(signal.SIGINT)
        _, said = first.communicate(timeout=60)
        assert first.returncode == 130, said
        assert "run the same command again" in said
        assert "Traceback" not in said
        kept = _lines(out / "outputs.jsonl")
        assert 4 <= kept < 24
        asked = len(served.requests)
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert len(served.requests) == asked + 24 - kept
    report = json.loads((out / "report.json").read_text())
    assert [score["value"] for score in report["scores"] if score["metric"] == "correct"] == [1.0] * 24
    assert any("24 of 40 items are there" in finding for finding in report["findings"])
