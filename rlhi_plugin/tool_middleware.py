"""RLHI for an agent whose tools answer the user themselves.

agent = create_agent(model, tools=[invoice], middleware=[RLHIToolMiddleware(store="sqlite:///rlhi.db")])
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeAlias

from langchain.agents.middleware import ToolCallRequest
from langchain_core.messages import BaseMessage, ToolMessage
from langgraph.runtime import Runtime, get_runtime
from langgraph.types import Command

from rlhi_plugin.call_context import CallContext
from rlhi_plugin.direct_answers import AwaitedResults, direct_calls, results_of
from rlhi_plugin.live import Admission, first_request
from rlhi_plugin.middleware import RLHIMiddleware
from rlhi_plugin.recorder import Reply, Turn, give_ids
from rlhi_plugin.stores import ConversationStore

Returned: TypeAlias = "ToolMessage | Command[Any]"

_log = logging.getLogger("rlhi.middleware")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a tool call has of what is read of a model call."""

    state: Any
    runtime: Runtime[Any]
    messages: tuple[()] = ()


class RLHIToolMiddleware(RLHIMiddleware):
    """An `RLHIMiddleware` that stores the result of a tool with ``return_direct`` when the agent's call returns.

    Such a result is what the user gets: no model call follows, with which it would be stored. It is stored in
    `wrap_tool_call`, and once: the next turn, which carries it in its history, finds it there. Put this middleware
    before those that retry a tool or change its result, so that it sees what the user sees. Where several tools
    run side by side, their results are stored when the last has returned. A result that is no message yet (a
    `Command` with messages in the form of dicts or tuples), or goes to another graph, is stored with the next turn.

    This is a class of its own because LangChain builds another agent where a middleware has `wrap_tool_call`: one
    without tools gets a node of tools, in which calls of tools that only the app's client has become errors. So it is
    for agents whose tools run here, and `RLHIMiddleware` for all others.

    Args:
        store: See `RLHIMiddleware`.
        options: The others of `RLHIMiddleware`.

    Raises:
        ConfigError, StoreError: see `RLHIMiddleware`.
    """

    stores_direct_answers = True

    def __init__(self, *, store: str | ConversationStore, **options: Any) -> None:
        super().__init__(store=store, **options)
        self._awaited = AwaitedResults()

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Returned]) -> Returned:
        """Run the tool, and store what it returned if the user gets that."""
        began, returned = datetime.now(UTC), handler(request)
        try:
            if (answered := self._answered(request, returned)) is not None:
                call, results = answered
                asked_first = partial(first_request, call.history)
                admission = self._live.admit(call.conversation_id, call.user_id, asked_first)
                if admission.logged:
                    describe = partial(_turn, call, admission, results, began)
                    self._live.record(describe, call.conversation_id, call.user_id)
        except Exception:  # noqa: BLE001 - observing never breaks the observed, whatever happens
            _not_now()
        return returned

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Returned]]
    ) -> Returned:
        """The same for ``ainvoke`` and ``astream``; the store is used in a thread, never in the event loop."""
        began, returned = datetime.now(UTC), await handler(request)
        try:
            if (answered := self._answered(request, returned)) is not None:
                call, results = answered
                admission = await self._aadmit(call)
                if admission.logged:
                    describe = partial(_turn, call, admission, results, began)
                    record = partial(self._live.record, describe, call.conversation_id, call.user_id)
                    await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, record))
        except Exception:  # noqa: BLE001 - as above
            _not_now()
        return returned

    def _answered(self, request: ToolCallRequest, returned: object) -> tuple[CallContext, list[BaseMessage]] | None:
        """Where a tool was called, and what is to be stored there now; None where that is nothing."""
        calls = direct_calls(request)
        if calls is None:
            return None
        call, _ = self._heard(_Asked(request.state, get_runtime()))
        # As in `wrap_model_call`: what a model asks of another is logged where it asks.
        if call.in_a_tool:
            return None
        results = results_of(returned)
        if results is not None and call.stable_ids:
            # Now, and not when they are stored: where a call beside this one is interrupted, the saver keeps it first.
            give_ids(results)
        results = self._awaited.add(call.conversation_id, calls, request.tool_call["id"], results)
        return (call, list(results)) if results else None


def _turn(call: CallContext, admission: Admission, results: list[BaseMessage], began: datetime) -> Turn:
    return Turn(
        conversation_id=call.conversation_id,
        user_id=call.user_id,
        system=None,
        history=call.history,
        reply=Reply(messages=results),
        stable_ids=call.stable_ids,
        started_at=began,
        first=0 if admission.whole else admission.first(call.history),
    )


def _not_now() -> None:
    _log.exception("the result of a tool could not be stored at once; the thread's next turn carries it again")
