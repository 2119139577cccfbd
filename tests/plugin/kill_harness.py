"""Kill a writing process at a random moment, again and again, and count whether every acknowledged turn is kept.

    python tests/plugin/kill_harness.py --rounds 200
    python tests/plugin/kill_harness.py --rounds 20 --postgres

A turn counts as acknowledged when the process said so on its pipe, which it does only after `append` returned. SIGKILL
ends the process between any two instructions; it does not test what a power cut does to a disk.
"""

from __future__ import annotations

import argparse
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from turn_writer import own_conversation

from rlhi_plugin.stores import open_store
from rlhi_plugin.stores.address import database_file

WRITER = Path(__file__).with_name("turn_writer.py")
THREADS = 3


@dataclass(frozen=True)
class Tally:
    """What a number of rounds found.

    Attributes:
        rounds: Processes that were killed.
        acknowledged: Turns that they had said were kept.
        unacknowledged: Turns that were kept although the process was killed before it said so.
        problems: What does not hold, one line for each.
    """

    rounds: int
    acknowledged: int
    unacknowledged: int
    problems: tuple[str, ...]


def kill_rounds(url: str, rounds: int, *, seed: int = 0) -> Tally:
    """Let a process write to the store at `url` and kill it, `rounds` times; look at what is kept after each."""
    draw = random.Random(seed)
    acknowledged = kept = 0
    problems: list[str] = []
    open_store(url).close()
    for number in range(rounds):
        name = f"round{number}"
        acks = _write_and_kill(url, name, draw.uniform(0.0, 0.4))
        acknowledged += len(acks)
        found, wrong = _look(url, name, acks)
        kept += found
        problems += wrong
    return Tally(rounds, acknowledged, kept - acknowledged, tuple(problems))


def _write_and_kill(url: str, name: str, seconds: float) -> set[tuple[int, int]]:
    """Threads and numbers of the turns that a process acknowledged; it was killed `seconds` after the first."""
    command = [sys.executable, WRITER, url, name, str(THREADS), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        first = writer.stdout.readline()
        time.sleep(seconds)
        writer.send_signal(signal.SIGKILL)
        rest, errors = writer.communicate()
    assert writer.returncode == -signal.SIGKILL, errors.decode()
    # A line without its end was cut by the kill: not acknowledged.
    lines = (first + rest).decode().splitlines(keepends=True)
    rows = [line.split() for line in lines if line.endswith("\n")]
    return {(int(thread), int(turn)) for thread, turn, _ in rows}


def _look(url: str, name: str, acks: set[tuple[int, int]]) -> tuple[int, list[str]]:
    """How many whole turns of a round are kept, and what is wrong with them."""
    problems, kept = [], set()
    with open_store(url) as store:
        found = {c.conversation_id: [m.id for m in c.messages] for c in store.conversations(user_id=f"u_{name}")}
    for thread in range(THREADS):
        ids = found.get(own_conversation(name, thread), [])
        turns = len(ids) // 2
        expected = [f"{name}-{thread}-{turn}-{role}" for turn in range(turns) for role in "qa"]
        if ids != expected:
            problems.append(f"{name} thread {thread}: turns are torn, doubled or out of order")
        kept |= {(thread, turn) for turn in range(turns)}
    problems += [f"{name} thread {thread}: turn {turn} is lost" for thread, turn in sorted(acks - kept)]
    file = database_file(url)
    if file is not None:
        with closing(sqlite3.connect(file)) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
        if verdict != "ok":
            problems.append(f"{name}: {verdict}")
    return len(kept), problems


def main() -> None:
    """Run from the command line; exits 1 where a turn was lost, doubled or torn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--postgres", action="store_true", help="a PostgreSQL server instead of an SQLite file")
    options = parser.parse_args()
    if options.postgres:
        from postgres_server import PostgresServer

        with PostgresServer() as server:
            tally = kill_rounds(server.new_database(), options.rounds, seed=options.seed)
    else:
        with tempfile.TemporaryDirectory() as folder:
            tally = kill_rounds(f"sqlite:///{folder}/a.db", options.rounds, seed=options.seed)
    for problem in tally.problems:
        print(problem)
    print(
        f"{tally.rounds} kills, {tally.acknowledged} turns acknowledged and {tally.unacknowledged} more kept, "
        f"{len(tally.problems)} problems"
    )
    sys.exit(1 if tally.problems else 0)


if __name__ == "__main__":
    main()
