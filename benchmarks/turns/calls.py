"""Python calls of a turn: what there is to do in it, which neither a slow machine nor a busy one changes."""

from __future__ import annotations

import cProfile
import pstats
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from turns import REQUEST
from turns.agents import make_agents

_WARM = 60
"""Turns after which caches are filled."""


def python_calls(turns: int) -> dict[str, float]:
    """How many Python functions are called in a turn of a new thread, by one caller: mean of so many turns.

    Functions in C are not counted. What runs in other threads is not seen: with one caller ours has none at work.

    Returns:
        Calls of the bare agent, and what the no-op middleware and ours add to them.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        agents = make_agents(0.0, Path(folder), stack)
        counted = {name: _counted(agents[name], turns) for name in ("bare", "no-op", "rlhi")}
    bare = counted["bare"]
    return {
        "python_calls_bare": bare,
        "python_calls_added_by_noop": counted["no-op"] - bare,
        "python_calls_added": counted["rlhi"] - bare,
    }


def _counted(agent: Any, turns: int) -> float:
    _talk(agent, range(_WARM))
    with cProfile.Profile(builtins=False) as profile:
        _talk(agent, range(_WARM, _WARM + turns))
    calls: int = pstats.Stats(profile).total_calls  # type: ignore[attr-defined] # typeshed leaves it out
    return calls / turns


def _talk(agent: Any, turns: range) -> None:
    for turn in turns:
        config = {"configurable": {"thread_id": f"counted-{turn}", "user_id": "user-1"}}
        agent.invoke({"messages": [("user", f"{turn} {REQUEST}")]}, config=config)
