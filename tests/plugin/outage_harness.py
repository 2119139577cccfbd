"""A PostgreSQL that stops, is killed, or cuts its connections under a talking assistant, again and again.

Four threads of users talk with a real agent and its middleware, in a process of its own that is also killed and started
anew now and then, with the server down as often as up. Every turn that `invoke` returned from is acknowledged by a line
in a file. When all is over, each of them must be in the database once, and in order.

    python tests/plugin/outage_harness.py --rounds 15
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from fault_harness import ROOT, compare, count_acknowledged
from postgres_server import PostgresServer

KINDS = ("stop", "kill", "cut", "crash")
"""In order, disconnecting everybody; SIGKILL for all of it; only the connections; SIGQUIT."""
_RESTARTED = 0.35
"""Share of outages in which the assistant is killed, too."""


@dataclass
class Outages:
    """What the rounds came to.

    Attributes:
        rounds: How many outages there were.
        kinds: Of which kinds.
        restarts: How often the assistant itself was killed.
        acknowledged: Turns that `invoke` returned from.
        late: Of the processes, those that were started while the server was down.
        problems: What does not hold, one line for each.
    """

    rounds: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    acknowledged: int = 0
    late: int = 0
    problems: list[str] = field(default_factory=list)


class _Assistant:
    """The process that talks; its standard output is a file, which never keeps it waiting."""

    def __init__(self, folder: Path, url: str, seed: int, seconds: float = 0) -> None:
        self.said = folder / f"said-{seed}"
        command = [sys.executable, Path(__file__).with_name("fault_harness.py"), "--serve", folder, "--url", url]
        environment = os.environ | {
            "RLHI_KEY": "0123456789abcdef",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        }
        with self.said.open("wb") as out, (folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--seed", str(seed), "--seconds", str(seconds)], stdout=out, stderr=log, env=environment
            )

    def started(self, limit_s: float = 60) -> bool:
        """Wait until it says so."""
        ends = time.monotonic() + limit_s
        while b"start" not in self.said.read_bytes():
            if self.process.poll() is not None or time.monotonic() > ends:
                return False
            time.sleep(0.02)
        return True

    def kill(self) -> str:
        """SIGKILL; what it had said."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        return self.said.read_text("utf-8")


def outages(rounds: int, folder: Path, server: PostgresServer, *, seed: int = 0, report=lambda _: None) -> Outages:
    """Run the rounds against a running server, which runs again afterwards; then compare."""
    draw, result = random.Random(seed), Outages()
    url = server.new_database()
    acknowledged: dict[str, int] = defaultdict(int)
    assistant = _Assistant(folder, url, seed * 1000)
    for number in range(rounds):
        if not assistant.started():
            result.problems.append(f"round {number}: the assistant did not start; see {folder}/log.txt")
            break
        time.sleep(draw.uniform(0.05, 0.8))
        kind = KINDS[number % len(KINDS)]
        _inflict(server, kind, url)
        time.sleep(draw.uniform(0.0, 1.2))
        if draw.random() < _RESTARTED:
            count_acknowledged(assistant.kill(), acknowledged)
            result.restarts, result.late = result.restarts + 1, result.late + (not server.runs)
            assistant = _Assistant(folder, url, seed * 1000 + number + 1)
            assistant.started()
            time.sleep(draw.uniform(0.05, 0.5))
        if not server.runs:
            server.start()
        result.rounds, result.kinds = result.rounds + 1, result.kinds + Counter([kind])
        report(result)
    time.sleep(0.3)
    count_acknowledged(assistant.kill(), acknowledged)
    last = _Assistant(folder, url, 10**9 + seed, seconds=120)
    last.process.wait(timeout=180)
    if (end := last.said.read_text("utf-8").splitlines()[-1]) != "end 0 0":
        result.problems.append(f"after the last start: {end!r}; see {folder}/log.txt")
    result.acknowledged = sum(acknowledged.values())
    result.problems += list(compare(url, folder / "journal", acknowledged))
    return result


def _inflict(server: PostgresServer, kind: str, url: str) -> None:
    match kind:
        case "stop":
            server.stop()
        case "crash":
            server.stop(hard=True)
        case "kill":
            server.kill()
        case _:
            # Several times in a row, so that turns are hit while they are being written.
            for _ in range(10):
                server.cut(url.rpartition("/")[2])
                time.sleep(0.02)


def main(
    rounds: Annotated[int, typer.Option(help="How many outages.")] = 15,
    seed: int = 0,
) -> None:
    """Stop, kill and cut a PostgreSQL, then compare. Exits with 1 where a turn is lost, doubled or out of order."""
    with tempfile.TemporaryDirectory() as folder, PostgresServer() as server:
        result = outages(
            rounds, Path(folder), server, seed=seed,
            report=lambda r: r.rounds % 5 or print(f"{r.rounds} outages, {r.restarts} restarts", flush=True),
        )  # fmt: skip
        kinds = ", ".join(f"{count} {kind}" for kind, count in result.kinds.items())
        print(
            f"{result.rounds} outages ({kinds}), {result.restarts} kills of the assistant, {result.late} starts "
            f"without a server, {result.acknowledged} turns acknowledged, {len(result.problems)} problems"
        )
        for problem in result.problems:
            print(problem)
    raise typer.Exit(1 if result.problems else 0)


if __name__ == "__main__":
    typer.run(main)
