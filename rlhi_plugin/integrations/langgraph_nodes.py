"""RLHI for a raw LangGraph `StateGraph`: wrap the node that calls the model.

graph = StateGraph(MessagesState)
graph.add_node("model", with_rlhi(call_model, store="sqlite:///rlhi.db", system="Be kind."))
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Unpack, cast

from langchain_core.messages import AnyMessage, BaseMessage, RemoveMessage, SystemMessage, convert_to_messages
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.config import get_config
from langgraph.types import Command
from pydantic import BaseModel

from rlhi_plugin.call_context import is_in_a_tool
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.integrations.observer import Exchange, ObservedCall, Observer, ObserverOptions, observer_from
from rlhi_plugin.integrations.speaker import Speaker, current_speaker, speaker_from
from rlhi_plugin.model_call import adapter_in
from rlhi_plugin.partial_answer import PartialAnswer
from rlhi_plugin.persona.render import with_persona

# LangGraph puts a run's checkpointer here; without one, message ids change from run to run.
_CHECKPOINTER = "__pregel_checkpointer"
_RUNTIME = "__pregel_runtime"

_log = logging.getLogger("rlhi.middleware")


def with_rlhi(
    node: Callable[..., Any] | Runnable[Any, Any],
    *,
    system: str | None = None,
    messages_key: str = "messages",
    observer: Observer | None = None,
    **options: Unpack[ObserverOptions],
) -> Any:
    """The same node, observed: it sees a system message with the persona, and what it answers is logged.

    The node may be a function or a coroutine function with whatever parameters LangGraph injects, or a runnable such
    as a chat model behind a prompt. It gets a state whose messages begin with one system message: `system` (or the
    one that the state begins with), then the persona; without either, the state as it is. The graph's own state never
    holds what is added here. When the node returns, the turn is on disk; when it fails or is interrupted, what the
    user said is. With ``commands=True`` the node is not called where the user gave a command.

    The speaker is what `turn` says, else ``thread_id`` and ``user_id`` of ``config["configurable"]``, else the
    `user_id` of the runtime's context, else whom the authentication of LangGraph's server found.

    Args:
        node: What calls the model.
        system: The app's own system prompt. Give it here, not in the node, so that one system message holds both.
        messages_key: Where the state keeps its messages.
        observer: One that exists already, in place of `options`; several nodes of a graph share one this way.
        options: See `ObserverOptions`.

    Raises:
        ConfigError: `node` cannot be called, or an option cannot work.
        StoreError: the store refuses us for good (a wrong password, a newer schema). One that is down opens later.
    """
    observed = _Node(observer_from(observer, options, answers=True), system, messages_key)
    if isinstance(node, Runnable):
        return RunnableLambda(
            observed.sync(node.invoke),
            afunc=observed.asynchronous(node.ainvoke),
            name=node.get_name(),
        )
    if inspect.iscoroutinefunction(node) or inspect.iscoroutinefunction(getattr(node, "__call__", None)):  # noqa: B004 - objects with an async __call__ are nodes too
        return observed.asynchronous(node)
    if callable(node):
        return observed.sync(node)
    raise ConfigError(f"{node!r} cannot be a node. Pass a function of the state, or a Runnable.")


@dataclass(frozen=True, slots=True)
class _Node:
    """What one wrapped node needs at every call."""

    observer: Observer
    system: str | None
    key: str

    def sync(self, node: Callable[..., Any]) -> Callable[..., Any]:
        """The node, observed."""

        @functools.wraps(node)
        def observed(state: Any, *arguments: Any, **injected: Any) -> Any:
            call, visit = self.observer.begin(_speaker), _Visit(self.key, state)
            if visit.in_a_tool:
                return node(self.prompted(state, call), *arguments, **injected)
            if self.observer.takes_commands and (answer := self.observer.answer(call, visit.history)):
                return {self.key: [answer]}
            try:
                with visit.partial:
                    output = node(self.prompted(state, call), *arguments, **injected)
                return visit.answered(output)
            finally:
                self.observer.record(call, functools.partial(visit.exchange, self.system))

        return observed

    def asynchronous(self, node: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """The coroutine node, observed."""

        @functools.wraps(node)
        async def observed(state: Any, *arguments: Any, **injected: Any) -> Any:
            call, visit = await self.observer.abegin(_speaker), _Visit(self.key, state)
            if visit.in_a_tool:
                return await node(self.prompted(state, call), *arguments, **injected)
            if self.observer.takes_commands and (answer := await self.observer.aanswer(call, visit.history)):
                return {self.key: [answer]}
            try:
                with visit.partial:
                    output = await node(self.prompted(state, call), *arguments, **injected)
                return visit.answered(output)
            finally:
                await self.observer.arecord(call, functools.partial(visit.exchange, self.system))

        return observed

    def prompted(self, state: Any, call: ObservedCall) -> Any:
        """The state as the node sees it: the app's system prompt, then the state's own, then the persona."""
        if not self.system and call.persona is None and not self.observer.takes_commands:
            return state
        try:
            history = cast("list[AnyMessage]", _messages(state, self.key))
            said = self.observer.said(history)
            if not self.system and call.persona is None:
                return state if said is history else _with_messages(state, self.key, list(said))
            messages: list[BaseMessage] = list(said)
            own = messages.pop(0).content if messages and isinstance(messages[0], SystemMessage) else ""
            persona_text = call.persona.text if call.persona else ""
            content: Any
            if isinstance(own, str):
                content = with_persona("\n\n".join(part for part in (self.system, own) if part), persona_text)
            else:
                # Blocks of their own leave the state's blocks, and their prompt-cache marks, as they are.
                parts = (_block(self.system, "{}\n\n"), own, _block(persona_text, "\n\n{}"))
                content = [block for blocks in parts for block in blocks]
            return _with_messages(state, self.key, [SystemMessage(content), *messages])
        except Exception:  # noqa: BLE001 - a state that is not what it seems is for the node to judge
            _log.exception("the persona could not be put into the state; this call goes without")
            return state


class _Visit:
    """One call of a node while it lasts."""

    def __init__(self, key: str, state: Any) -> None:
        self._key = key
        self._state = state
        self.partial = PartialAnswer()
        self._reply: list[BaseMessage] = []
        # Asked for now: the writing happens in a thread that knows nothing of the run.
        configurable = _configurable()
        self._stable_ids = bool(configurable.get(_CHECKPOINTER))
        # What a model asks of another is logged where it asks: as the call of a tool, and its result.
        self.in_a_tool = is_in_a_tool(configurable)

    @property
    def history(self) -> list[BaseMessage]:
        """The thread as the state holds it; empty where that cannot be read."""
        try:
            return _messages(self._state, self._key)
        except Exception:  # noqa: BLE001 - a state that is not what it seems is for the node to judge
            _log.exception("the messages of a state could not be read")
            return []

    def answered(self, output: Any) -> Any:
        """Remember the messages in what the node returned, which then have the ids that the graph will keep."""
        try:
            if isinstance(output, Command):
                return dataclasses.replace(output, update=self._update(output.update))
            return self._update(output)
        except Exception:  # noqa: BLE001 - what the node returned is for the graph to judge
            _log.exception("the answer of a node could not be read; only what the user said is logged")
            return output

    def exchange(self, system: str | None) -> Exchange:
        """What was said and answered; of a node that failed, what the model it called last had said until then."""
        finish = self.partial.finish
        reply = self.partial.messages() if finish else self._reply
        return Exchange(
            history=_messages(self._state, self._key),
            reply=reply,
            model=next((name for message in reply if (name := _model_name(message))), None),
            adapter=adapter_in(reply),
            system=system,
            stable_ids=self._stable_ids,
            finish=finish,
        )

    def _update(self, update: Any) -> Any:
        if isinstance(update, Mapping):
            return {**update, self._key: self._messages(update[self._key])} if self._key in update else update
        return self._messages(update) if isinstance(update, BaseMessage) else update

    def _messages(self, said: Any) -> Any:
        several = isinstance(said, list)
        messages = convert_to_messages(said if several else [said])
        for message in messages:
            # The graph would give it an id, but later, and the same message must not be logged under two.
            message.id = message.id or str(uuid.uuid4())
        self._reply = [message for message in messages if not isinstance(message, RemoveMessage)]
        return messages if several else messages[0]


def _speaker() -> Speaker:
    configurable = _configurable()
    context = getattr(configurable.get(_RUNTIME), "context", None)
    user = context.get("user_id") if isinstance(context, Mapping) else getattr(context, "user_id", None)
    # The last one is where LangGraph's own server puts whom it authenticated.
    carried = (speaker_from(configurable), Speaker(user), Speaker(configurable.get("langgraph_auth_user_id")))
    return functools.reduce(Speaker.otherwise, carried, current_speaker())


def _configurable() -> Mapping[str, Any]:
    try:
        return get_config().get("configurable", {})
    except RuntimeError:  # the node is being called outside of a graph
        return {}


def _messages(state: Any, key: str) -> list[BaseMessage]:
    found = state.get(key) if isinstance(state, Mapping) else getattr(state, key, None)
    return convert_to_messages(found or [])


def _with_messages(state: Any, key: str, messages: list[BaseMessage]) -> Any:
    if isinstance(state, Mapping):
        return {**state, key: messages}
    if isinstance(state, BaseModel):
        return state.model_copy(update={key: messages})
    return dataclasses.replace(state, **{key: messages})


def _block(text: str | None, form: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": form.format(text)}] if text else []


def _model_name(message: BaseMessage) -> str | None:
    name = message.response_metadata.get("model_name") or message.response_metadata.get("model")
    return None if name is None else str(name)
