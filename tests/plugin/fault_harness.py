"""Kill an assistant again and again, and count: is every turn that it acknowledged in the store, once, in order?

Each round starts a process that runs a real agent with the middleware on one SQLite file. In every other round it has
the file's URL, as an app does; in the others its store raises or hangs now and then. For each turn that `invoke`
returned from, it writes a line to a pipe; at a random moment it gets SIGKILL. The next round's process takes over the
journal. The last process is given time to replay, and then the store is compared with the acknowledged turns.

    python tests/plugin/fault_harness.py --rounds 200
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).parents[2]
THREADS = 4


@dataclass
class Result:
    """What the rounds came to."""

    rounds: int = 0
    killed: int = 0
    acknowledged: int = 0
    journalled: int = 0
    torn: int = 0
    problems: list[str] = field(default_factory=list)


class Moody:
    """Raises in every eighth append or so, in bursts, and sometimes hangs beyond the time limit."""

    def __init__(self, inner, seed: int) -> None:
        self.inner, self.draw = inner, random.Random(seed)
        self.bad_until = 0.0

    def append(self, conversation_id, *, user_id, messages):
        from rlhi_plugin.errors import StoreError

        if time.monotonic() < self.bad_until:
            raise StoreError("the store is down")
        chance = self.draw.random()
        if chance < 0.06:
            self.bad_until = time.monotonic() + self.draw.uniform(0, 0.4)
            raise StoreError("the store goes down")
        if chance < 0.08:
            time.sleep(0.6)
        return self.inner.append(conversation_id, user_id=user_id, messages=messages)

    def conversations(self, *, user_id=None):
        return self.inner.conversations(user_id=user_id)

    def last_message_id(self, conversation_id):
        return self.inner.last_message_id(conversation_id)

    def close(self):
        self.inner.close()


def serve(folder: Path, seed: int, seconds: float, url: str | None = None) -> None:
    """The process that is killed: four threads of users talk until it is.

    Args:
        folder: Holds the journal and, unless there is a URL, an SQLite file.
        seed: Names the threads of conversation.
        seconds: Above 0: only wait so long for the journal to empty.
        url: The store, in place of the moody one.
    """
    from langchain.agents import create_agent
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage
    from langgraph.checkpoint.memory import InMemorySaver

    from rlhi_plugin import RLHIMiddleware
    from rlhi_plugin.stores import open_store

    store = url
    if url is None:
        inner = open_store(f"sqlite:///{folder}/rlhi.db")
        # In the last round the store is well again: what waited has to arrive.
        store = inner if seconds else Moody(inner, seed)
    middleware = RLHIMiddleware(store=store, persona="off", journal=folder / "journal", store_timeout_s=0.2)
    status = middleware.status()
    os.write(1, f"start {status.journalled} {status.torn}\n".encode())

    def replies():
        while True:
            yield AIMessage("ok")

    def talk(user: int) -> None:
        agent = create_agent(
            GenericFakeChatModel(messages=replies()), middleware=[middleware], checkpointer=InMemorySaver()
        )
        config = {"configurable": {"thread_id": f"{seed}-{user}", "user_id": f"user-{user}"}}
        turn = 0
        while True:
            agent.invoke({"messages": [("user", f"{seed}-{user}-{turn}")]}, config=config)
            os.write(1, f"ack {seed}-{user} {turn}\n".encode())
            turn += 1

    if seconds:
        ends = time.monotonic() + seconds
        while middleware.status().waiting and time.monotonic() < ends:
            time.sleep(0.05)
        final = middleware.status()
        middleware.close()
        os.write(1, f"end {final.waiting} {final.refused}\n".encode())
        return
    for user in range(THREADS):
        threading.Thread(target=talk, args=(user,), daemon=True).start()
    time.sleep(3600)


def _start(folder: Path, seed: int, seconds: float, url: str | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--serve", str(folder), "--seed", str(seed), "--seconds", str(seconds)]
    command += [] if url is None else ["--url", url]
    environment = os.environ | {"RLHI_KEY": "0123456789abcdef", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)


def harness(rounds: int, folder: Path, *, seed: int = 0, report=lambda _: None) -> Result:
    """Run the rounds, then compare."""
    draw, result = random.Random(seed), Result()
    acknowledged: dict[str, int] = defaultdict(int)
    for number in range(rounds):
        url = f"sqlite:///{folder}/rlhi.db" if number % 2 else None
        process = _start(folder, seed * 100_000 + number, 0, url)
        first = process.stdout.readline().split()
        if first[:1] != ["start"]:
            result.problems.append(f"round {number} did not start; see {folder}/log.txt")
            process.kill()
            break
        result.journalled += int(first[1])
        result.torn += int(first[2])
        time.sleep(draw.uniform(0.02, 0.8))
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        result.killed += process.returncode == -signal.SIGKILL
        count_acknowledged(rest, acknowledged)
        result.rounds += 1
        report(result)
    process = _start(folder, 10**9 + seed, 120)
    out, _ = process.communicate(timeout=180)
    if out.splitlines()[-1] != "end 0 0":
        result.problems.append(f"after the last start: {out!r}")
    result.acknowledged = sum(acknowledged.values())
    result.problems += list(compare(f"sqlite:///{folder}/rlhi.db", folder / "journal", acknowledged))
    return result


def count_acknowledged(lines: str, acknowledged: dict[str, int]) -> None:
    """Read what a process said about its turns."""
    for line in lines.splitlines(keepends=True):
        # A line that the kill cut in two acknowledges nothing.
        if line.endswith("\n") and line.startswith("ack"):
            _, name, turn = line.split()
            acknowledged[name] = max(acknowledged[name], int(turn) + 1)


def compare(url: str, journal: Path, acknowledged: dict[str, int]):
    """What is wrong with the store, given how many turns of which thread were acknowledged."""
    from rlhi_plugin.stores import open_store

    with open_store(url) as store:
        stored = {c.conversation_id: c.messages for c in store.conversations()}
    for name, turns in acknowledged.items():
        contents = [m.content for m in stored.get(name, ())]
        # The turn in progress when the process died may be there or not, whole or without its answer.
        expected = [text for turn in range(len(contents) // 2 + 1) for text in (f"{name}-{turn}", "ok")][
            : len(contents)
        ]
        if len(contents) < 2 * turns:
            yield f"{name}: {turns} turns were acknowledged, {len(contents) / 2} are stored"
        if contents != expected:
            yield f"{name}: not once and in order: {contents[:6]}..."
        if any(message.parent_id is not None for message in stored.get(name, ())):
            yield f"{name}: a branch where there is none"
    if left := list(journal.glob("*")):
        yield f"the journal is not empty: {left}"


def main(
    rounds: Annotated[int, typer.Option(help="How often the process is killed.")] = 25,
    seed: int = 0,
    serve_in: Annotated[Path | None, typer.Option("--serve", hidden=True)] = None,
    seconds: Annotated[float, typer.Option(hidden=True)] = 0,
    url: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Kill, restart, compare. Exits with 1 where a turn is lost, doubled or out of order."""
    if serve_in is not None:
        serve(serve_in, seed, seconds, url)
        return
    with tempfile.TemporaryDirectory() as folder:
        result = harness(
            rounds, Path(folder), seed=seed,
            report=lambda r: r.rounds % 20 or print(f"{r.rounds} rounds, {r.journalled} turns taken over", flush=True),
        )  # fmt: skip
        print(
            f"{result.rounds} rounds, {result.killed} killed, {result.acknowledged} turns acknowledged, "
            f"{result.journalled} taken over from dead processes' journals, {result.torn} torn lines, "
            f"{len(result.problems)} problems"
        )
        for problem in result.problems:
            print(problem)
    raise typer.Exit(1 if result.problems else 0)


if __name__ == "__main__":
    typer.run(main)
