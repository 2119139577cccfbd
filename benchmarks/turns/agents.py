"""Turns through whole agents: without middleware, with one of several, ours among them, and with a peer.

One only appends to a file and waits for the disk: no durable log can be faster. In an agent that takes several times
what it takes in a loop, since disk and processor have been idle while the model answered.
"""

from __future__ import annotations

import importlib.util
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from rlhi_plugin import RLHIMiddleware
from turns import ANSWER, REQUEST, Size, append_page, spread

THREADS = (1, 16, 64)
MEASURED = ("p50", "p99", "cpu")
"""Percentiles of the time of a turn, and the processor's time for one."""
APPEND = "4 KiB append"
"""The agent whose middleware only waits for the disk; see `Append`."""
COLUMNS = (*MEASURED, "interpreter, %")
"""The last: how much of the one interpreter the load asks for."""

_pauses = random.Random(0)
_paused = threading.local()


class Waiting(BaseChatModel):
    """Answers the same after a pause."""

    pause_s: float
    """On average."""

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        _paused.s = self.pause_s * _pauses.uniform(0.5, 1.5)
        time.sleep(_paused.s)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(ANSWER))])

    @property
    def _llm_type(self) -> str:
        return "waiting"


class NoOp(AgentMiddleware[Any, Any, Any]):
    """A middleware that passes the call on."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        """Pass it on."""
        return handler(request)


class Append(NoOp):
    """A middleware that appends 4 KiB to a file after each call, and has them on disk when it returns."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        """Pass it on, and append."""
        response = handler(request)
        append_page(self._file)
        return response


def make_agents(pause_s: float, folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Agents by the middleware that they have, with stores in a folder, which the stack closes."""
    model = Waiting(pause_s=pause_s)
    ours = RLHIMiddleware(store=f"sqlite:///{folder}/rlhi.db")
    stack.callback(ours.store.close)
    stack.callback(ours.close)
    file = stack.enter_context((folder / "appended").open("ab", buffering=0))
    agents = {
        "bare": create_agent(model, middleware=[]),
        "no-op": create_agent(model, middleware=[NoOp()]),
        APPEND: create_agent(model, middleware=[Append(file)]),
        "rlhi": create_agent(model, middleware=[ours]),
    }
    if importlib.util.find_spec("langgraph.checkpoint.sqlite"):
        from langgraph.checkpoint.sqlite import SqliteSaver

        saver = stack.enter_context(SqliteSaver.from_conn_string(str(folder / "checkpoints.db")))
        agents["SqliteSaver"] = create_agent(model, middleware=[], checkpointer=saver)
    return agents


def _block(agent: Any, name: str, threads: int, turns: int, pause_s: float) -> list[float]:
    """Seconds of each turn, without the model's pause."""

    def user(number: int) -> list[float]:
        seconds = []
        # Nor do people all begin at once. Without this, an agent that reads anything before it asks the model would
        # meet all others there, and one that does not would be through before the next thread has started.
        time.sleep(_pauses.uniform(0, pause_s))
        for turn in range(turns // threads):
            # A conversation of its own for each turn: checkpointers then do not pay for a growing thread.
            config = {"configurable": {"thread_id": f"{name}-{number}-{turn}", "user_id": f"user-{number}"}}
            started = time.perf_counter()
            agent.invoke({"messages": [("user", f"{number} {turn} {REQUEST}")]}, config=config)
            seconds.append(time.perf_counter() - started - _paused.s)
        return seconds

    with ThreadPoolExecutor(threads) as pool:
        return [value for values in pool.map(user, range(threads)) for value in values]


Measured = dict[str, dict[str, list[float]]]
"""Milliseconds by what is measured (`MEASURED`) and variant, one for each block."""


def added_times(
    size: Size, numbers: Sequence[int] = THREADS
) -> tuple[dict[str, float], dict[int, list[tuple[str, list[float]]]]]:
    """Percentiles of each variant in milliseconds, and what ours adds; medians over blocks with their range.

    Beside them the processor's time of a turn, other threads' included: on a slow or busy machine that says more.

    Returns:
        Figures, and for each number of threads a row for each variant, with values as `COLUMNS` names them.
    """
    figures: dict[str, float] = {}
    tables: dict[int, list[tuple[str, list[float]]]] = {}
    for threads in numbers:
        measured = _measured(threads, size)
        for label, values in measured.items():
            for other, suffix in (("bare", ""), ("no-op", "_over_noop"), (APPEND, "_over_append")):
                figures |= spread(f"added_{label}_ms_{threads}{suffix}", _added(values, "rlhi", other))
            figures |= spread(f"append_added_{label}_ms_{threads}", _added(values, APPEND, "bare"))
            for name, found in values.items():
                figures |= spread(f"{_key(name)}_{label}_ms_{threads}", found)
        figures |= spread(f"added_over_agent_append_{threads}", _times_an_append(measured["p50"]))
        for name, found in measured["cpu"].items():
            figures |= spread(f"{_key(name)}_interpreter_used_percent_{threads}", [_used(ms, size) for ms in found])
        tables[threads] = [
            (name, _row([values[name] for values in measured.values()], size)) for name in measured["p50"]
        ]
        for name in [name for name in measured["p50"] if name not in ("bare", "no-op")]:
            for other in ("bare", "no-op"):
                added = [_added(values, name, other) for values in measured.values()]
                tables[threads].append((f"{name}, added to {other}", _row(added, size)))
    return figures, tables


def _added(values: dict[str, list[float]], name: str, other: str) -> list[float]:
    return [mine - theirs for mine, theirs in zip(values[name], values[other], strict=True)]


def _times_an_append(p50: dict[str, list[float]]) -> list[float]:
    """What ours adds to the bare agent, over what an append adds to it in the same block."""
    ours, append = _added(p50, "rlhi", "bare"), _added(p50, APPEND, "bare")
    return [mine / theirs for mine, theirs in zip(ours, append, strict=True)]


def _key(name: str) -> str:
    return name.replace("-", "").replace(" ", "_").lower()


def _used(cpu_ms: float, size: Size) -> float:
    """Percent of the one interpreter that the load asks for; above 100, turns queue."""
    return cpu_ms / 1000 * size.rate * 100


def _row(values: list[list[float]], size: Size) -> list[float]:
    medians = [statistics.median(several) for several in values]
    return [*medians, _used(medians[-1], size)]


def _measured(threads: int, size: Size) -> Measured:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        pause_s = threads / size.rate
        agents = make_agents(pause_s, Path(folder), stack)
        measured: Measured = {label: {name: [] for name in agents} for label in MEASURED}
        for block in range(size.blocks + 1):
            for name, agent in agents.items():
                used = time.process_time()
                # The first block warms up caches and connections, for which a part will do.
                turns = size.turns if block else max(threads, size.turns // 4)
                seconds = sorted(_block(agent, f"{block}", threads, turns, pause_s))
                used = time.process_time() - used
                values = (statistics.median(seconds), seconds[int(0.99 * (len(seconds) - 1))], used / len(seconds))
                for label, value in zip(MEASURED, values, strict=True) if block else ():
                    measured[label][name].append(1000 * value)
    return measured
