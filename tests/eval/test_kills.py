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
