"""Results of tools that a run ends with: those of a tool with ``return_direct``, which no model call follows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain.agents.middleware import ModelRequest, ToolCallRequest
from langchain_core.messages import AIMessage, BaseMessage, RemoveMessage, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.types import Command

_AWAITED = 256
"""Messages of which not all calls have returned that are kept in memory, the latest ones (ours)."""

Results = Sequence[BaseMessage] | None
"""What a call adds to its thread; None where that cannot be said before LangGraph has done it."""


@dataclass(frozen=True, slots=True)
class CallsOfMessage:
    """The calls that a model made with one message, and that a node of tools answers.

    Attributes:
        message_id: Of the message.
        call_ids: In the order in which their results will stand in the thread; at least one.
    """

    message_id: str
    call_ids: tuple[str | None, ...]


def direct_tools(request: ModelRequest[Any]) -> list[str]:
    """Names of the tools on offer whose result is what the user gets."""
    return [tool.name for tool in request.tools if isinstance(tool, BaseTool) and tool.return_direct]


def direct_calls(request: ToolCallRequest) -> CallsOfMessage | None:
    """The calls of which this is one, if the run may end with their results: where one of their tools returns direct.

    Raises:
        LookupError: the agent's state is of another shape than LangChain's.
    """
    answered: set[str] = set()
    for message in reversed(request.state["messages"]):
        if isinstance(message, ToolMessage):
            answered.add(message.tool_call_id)
        elif isinstance(message, AIMessage):
            called = {call["id"]: call["name"] for call in message.tool_calls if call["id"] not in answered}
            names = set(called.values())
            if any(tool.return_direct and tool.name in names for tool in request.runtime.tools):
                return CallsOfMessage(message.id or "", tuple(called))
            return None
    return None


def results_of(returned: object) -> Results:
    """What a call's return value adds to the thread.

    Args:
        returned: A message, a `Command`, or a list of both.
    """
    found: list[BaseMessage] = []
    for one in returned if isinstance(returned, list) else (returned,):
        said = _messages_in(one) if isinstance(one, Command) else (one,)
        if not isinstance(said, list | tuple):
            return None
        # A removal changes what came before; what is no message yet gets an id that only LangGraph knows.
        if not all(isinstance(message, BaseMessage) and not isinstance(message, RemoveMessage) for message in said):
            return None
        found.extend(said)
    return found


def _messages_in(command: Command[Any]) -> object:
    """What a command adds to the messages of its own graph, in whatever form the tool gave it; None if unclear."""
    if command.graph is not None or not isinstance(command.update, dict | None):
        return None
    said = (command.update or {}).get("messages", ())
    return (said,) if isinstance(said, BaseMessage) else said


@dataclass(slots=True)
class AwaitedResults:
    """Collects the results of calls that run side by side, so that they are stored in their order, by the last.

    Thread-safe.
    """

    _results: OrderedDict[tuple[str, str], dict[str | None, Results]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, conversation_id: str, calls: CallsOfMessage, call_id: str | None, results: Results) -> Results:
        """Note the results of a call.

        Returns:
            Those of all calls, in order, once every one has returned; None before, and where one's are unknown.
        """
        if calls.call_ids == (call_id,):
            return results
        key = (conversation_id, calls.message_id)
        with self._lock:
            returned = self._results.setdefault(key, {})
            returned[call_id] = results
            if any(awaited not in returned for awaited in calls.call_ids):
                # One of them may have failed or been interrupted, and never return.
                while len(self._results) > _AWAITED:
                    self._results.popitem(last=False)
                return None
            del self._results[key]
        return _joined(returned[awaited] for awaited in calls.call_ids)


def _joined(results: Iterable[Results]) -> Results:
    found: list[BaseMessage] = []
    for one in results:
        if one is None:
            return None
        found.extend(one)
    return found
