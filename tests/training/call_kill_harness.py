"""Kill a run at a random moment, again and again, and see whether it ends as if nothing had happened.

    python tests/training/call_kill_harness.py --rounds 50

The run is `rlhi-train`'s own: labels, personas, rewrites, ratings and contrast candidates all come from a provider on
loopback, which also answers 429, 500, 503, nothing in time, half an answer, broken JSON, prose instead of JSON, and
empty text. SIGKILL ends it at a random moment after its first call; it is started again until it is done, and then
another run begins, until there were as many kills as were asked for. Counted at the provider and in the journal: calls
that were answered twice, calls that were lost, and whether every file of pairs is byte for byte that of an undisturbed
run.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from invented_logs import invented
from provider_script import FAULTS, Provider

from rlhi_plugin.fake_provider import ByContent, FakeProvider
from rlhi_plugin.logs import write_conversations

TRAIN = (sys.executable, "-c", "from rlhi_training.cli import main; main()")
FILES = ("turns", "personas", "latest_personas", "rewrites", "rewards", "contrasts", "filtered", "pairs")
_OPTIONS = (
    "label.labeller=llm",
    "personas.builder=llm",
    "reward.samples=3",
    "contrast.max_requests=8",
    "calls.timeout_s=0.8",
    "calls.attempts=8",
    "calls.first_wait_s=0.05",
    "calls.max_wait_s=0.5",
    "calls.max_concurrency=8",
)


@dataclass
class Tally:
    """What a number of kills did.

    Attributes:
        kills: Processes that were killed while they worked.
        runs: Runs that were carried to their end.
        answered: Calls that the provider answered in full.
        doubled: Of these, answers to a call that it had answered before.
        maybe_doubled: What the journals count as possibly paid twice; at least `doubled`.
        problems: What does not hold, one line for each.
    """

    kills: int = 0
    runs: int = 0
    answered: int = 0
    doubled: int = 0
    maybe_doubled: int = 0
    problems: list[str] = field(default_factory=list)


class Run:
    """One run directory and the provider that it talks to."""

    def __init__(self, folder: Path, logs: Path, provider: FakeProvider) -> None:
        self.folder = folder
        self._provider = provider
        model = f"openai:fake-1@{provider.base_url}"
        roles = ("label.llm", "personas.llm", "rewrite.llm", "reward.llm", "model.served")
        options = [*_OPTIONS, *(f"{role}={model}" for role in roles)]
        overrides = [word for option in options for word in ("--set", option)]
        done = self._start("ingest", str(logs), "--recipe", "smoke_cpu", "--out", str(folder), *overrides)
        output, _ = done.communicate()
        assert done.returncode == 0, output

    def _start(self, *words: str) -> subprocess.Popen[str]:
        environ = {**os.environ, "OPENAI_API_KEY": "none", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [*TRAIN, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ
        )

    def to_the_end(self) -> float:
        """Run until pairs are there; seconds that it took from its first call on."""
        process = self._start("pairs", str(self.folder))
        self._await_a_call(process)
        started = time.monotonic()
        output, _ = process.communicate()
        assert process.returncode == 0, output
        return time.monotonic() - started

    def _await_a_call(self, process: subprocess.Popen[str]) -> None:
        """Return when a process has made its first call, or has ended: before that nothing can be lost."""
        before = len(self._provider.requests)
        while len(self._provider.requests) == before and process.poll() is None:
            time.sleep(0.005)

    def kill_after(self, seconds: float) -> bool:
        """Start, and kill so many seconds after the first call; False where it was done before."""
        process = self._start("pairs", str(self.folder))
        self._await_a_call(process)
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert process.returncode == -signal.SIGKILL
            return True
        assert process.returncode == 0, output
        return False

    def pairs(self) -> dict[str, bytes]:
        """The files that a run is for."""
        return {name: (self.folder / f"{name}.jsonl").read_bytes() for name in FILES}

    def query(self, question: str) -> list[tuple[object, ...]]:
        """Ask the journal."""
        with closing(sqlite3.connect(self.folder / "calls.db")) as journal:
            return list(journal.execute(question))


def kill_rounds(folder: Path, kills: int, *, seed: int = 0, users: int = 6, days: int = 3) -> Tally:
    """Kill runs until there were so many kills; look at what is there after each."""
    draw = random.Random(seed)
    tally = Tally()
    logs = folder / "logs.jsonl"
    write_conversations(logs, invented(users, days, seed=seed))
    with FakeProvider(_script()) as provider:
        undisturbed = Run(folder / "undisturbed", logs, provider)
        length = undisturbed.to_the_end()
        expected = undisturbed.pairs()
    print(f"undisturbed: {length:.1f} s, {_pairs(expected)} pairs", flush=True)
    while tally.kills < kills:
        _one_run(folder / f"run{tally.runs}", logs, (kills, length, draw), expected, tally)
        print(
            f"run {tally.runs}: {tally.kills} kills, {tally.answered} answers, {tally.doubled} doubled, "
            f"{len(tally.problems)} problems",
            flush=True,
        )
    return tally


def _script() -> ByContent:
    return ByContent(Provider(delay_s=0.3, spoilt=0.04), faults=FAULTS, share=0.25)


def _one_run(
    folder: Path, logs: Path, plan: tuple[int, float, random.Random], expected: dict[str, bytes], tally: Tally
) -> None:
    kills, length, draw = plan
    script = _script()
    kept: set[object] = set()
    with FakeProvider(script) as provider:
        run = Run(folder, logs, provider)
        while tally.kills < kills and run.kill_after(draw.uniform(0.0, 0.7 * length)):
            tally.kills += 1
            if not (folder / "calls.db").exists():
                continue
            if run.query("pragma integrity_check") != [("ok",)]:
                tally.problems.append(f"{folder.name}: the journal is damaged")
            now = {digest for (digest,) in run.query("select digest from answers")}
            if kept - now:
                tally.problems.append(f"{folder.name}: {len(kept - now)} answers were lost")
            kept = now
        run.to_the_end()
    tally.runs += 1
    doubled = sum(count - 1 for count in script.answered.values())
    ((maybe,),) = run.query(
        "select count(*) from attempts a join answers w using (digest) where a.outcome in ('unknown', 'interrupted')"
    )
    again = run.query(
        "select count(*) from attempts late join attempts early using (digest)"
        " where early.outcome = 'answered' and late.id > early.id"
    )
    ((journalled,),) = run.query("select count(*) from answers")
    tally.answered += sum(script.answered.values())
    tally.doubled += doubled
    tally.maybe_doubled += int(str(maybe))
    if again != [(0,)]:
        tally.problems.append(f"{folder.name}: {again[0][0]} answered calls were made again")
    if doubled > int(str(maybe)):
        tally.problems.append(f"{folder.name}: {doubled} calls were paid twice, and only {maybe} are known of")
    if journalled != len(script.answered):
        tally.problems.append(f"{folder.name}: {len(script.answered)} calls were answered, {journalled} are kept")
    tally.problems += [f"{folder.name}: {name} differs" for name, data in run.pairs().items() if data != expected[name]]


def _pairs(files: dict[str, bytes]) -> int:
    return files["pairs"].count(b"\n")


def main() -> None:
    """Run from the command line; exits 1 where anything was lost, unknowingly doubled, or came out otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = kill_rounds(Path(folder), options.rounds, seed=options.seed)
    for problem in tally.problems:
        print(problem)
    print(
        f"{tally.kills} kills in {tally.runs} runs; {tally.answered} answers paid for, {tally.doubled} of them twice "
        f"({tally.maybe_doubled} counted as possibly twice); {len(tally.problems)} problems"
    )
    sys.exit(1 if tally.problems else 0)


if __name__ == "__main__":
    main()
