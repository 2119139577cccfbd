"""Who is speaking, in which thread: read from a LangChain request without ever failing."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from langchain_core.messages import AnyMessage
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.runtime import Runtime

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.message_text import clean
from rlhi_plugin.shown import shown

UserLookup = Callable[[Runtime[Any], Mapping[str, Any]], str | int | UUID | None]
"""From the run's `Runtime` and its ``config["configurable"]`` to the app's own user id; None is anonymous."""

_log = logging.getLogger("rlhi.middleware")

# LangGraph puts a run's checkpointer here. Were the key ever renamed, message ids would be taken for unstable and
# content digests used in their place, which stores the same messages once all the same.
_CHECKPOINTER = "__pregel_checkpointer"
# How an agent's own node of tools is named in there.
_TOOLS = "|tools:"


MAX_THREAD_ID = 200
"""Leaves room in a conversation id for the user's pseudonym (see `rlhi_plugin.recorder`)."""


class Asked(Protocol):
    """What is read of a call of a model, or of a tool: LangChain's `ModelRequest` is one."""

    @property
    def state(self) -> Any:
        """Of the agent; its ``messages`` are the thread."""

    @property
    def messages(self) -> Sequence[AnyMessage]:
        """The thread, where the state has none."""

    @property
    def runtime(self) -> Runtime[Any]:
        """Of the run."""


@dataclass(slots=True)
class CallContext:
    """Where one model call belongs.

    Attributes:
        thread_id: The app's thread; None where the run has none.
        conversation_id: The thread's own id; without a thread, one that lasts as long as the run does.
        user_id: Pseudonym, or None for an anonymous user.
        history: The thread as the agent's state holds it: what people and tools said, without what inner or outer
            middleware adds to the prompt.
        stable_ids: Whether message ids stay the same from run to run. Without a checkpointer LangGraph gives a resent
            message a new id every time.
        in_a_tool: Whether a tool of another agent called this one: then what it is asked, a model wrote.
    """

    thread_id: str | None
    conversation_id: str
    user_id: str | None
    history: tuple[AnyMessage, ...]
    stable_ids: bool
    in_a_tool: bool = False


def app_id(value: object, name: str) -> str | None:
    """The text of an id that an app passes as an argument; None where it passes none.

    Raises:
        ConfigError: it is no str, int or UUID. True is an int, and as an id always a mistake.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | UUID):
        raise ConfigError(f"{name} is of type {type(value).__name__}. Pass a str, an int or a UUID.")
    return str(value)


def read_call_context(
    request: Asked, lookup: UserLookup | None, pseudonym_of: Callable[[str], str] = pseudonym
) -> CallContext:
    """Read the context of a call that is in progress.

    The user is what `lookup` says or, without one, ``config["configurable"]["user_id"]``, else the `user_id` of the
    runtime's context, else whom the authentication of LangGraph's server found. Whatever goes wrong on the way leaves
    the user anonymous and is logged as an error.

    Args:
        request: The call.
        lookup: See `UserLookup`.
        pseudonym_of: `pseudonym`, or one that remembers what it gave.
    """
    # What `langgraph.config.get_config` gives; nothing where the middleware is being called outside of a graph.
    config = var_child_runnable_config.get()
    configurable: Mapping[str, Any] = (config.get("configurable") if config else None) or {}
    thread_id = getattr(getattr(request.runtime, "execution_info", None), "thread_id", None)
    thread_id = thread_id or configurable.get("thread_id")
    if thread_id is not None and not isinstance(thread_id, str):
        thread_id = shown(thread_id)
    history = tuple(request.state.get("messages") or request.messages)
    return CallContext(
        thread_id=thread_id,
        conversation_id=conversation_id(thread_id, history),
        user_id=_user(request.runtime, configurable, lookup, pseudonym_of),
        history=history,
        stable_ids=bool(configurable.get(_CHECKPOINTER)),
        in_a_tool=is_in_a_tool(configurable),
    )


def is_in_a_tool(configurable: Mapping[str, Any]) -> bool:
    """Whether a run is within a tool that another agent called: then what it is asked, a model wrote.

    Args:
        configurable: That of the run's config.
    """
    # Where this run is within others: ``tools:ID|model:ID`` where a node of tools called it.
    namespace = configurable.get("checkpoint_ns") or ""
    return "|" in namespace and _TOOLS in f"|{namespace.rpartition('|')[0]}"


def conversation_id(thread_id: str | None, history: Sequence[AnyMessage]) -> str:
    """See `CallContext.conversation_id`."""
    if thread_id:
        return stored_thread_id(thread_id)
    return stored_thread_id(f"run-{history[0].id}") if history else "run-empty"


def stored_thread_id(thread_id: str) -> str:
    """An app's thread id as a conversation id: cleaned, and shortened to a digest where it is too long."""
    cleaned = clean(thread_id)
    return cleaned if len(cleaned) <= MAX_THREAD_ID else f"thread-{hashlib.sha256(cleaned.encode()).hexdigest()}"


def _user(
    runtime: Runtime[Any],
    configurable: Mapping[str, Any],
    lookup: UserLookup | None,
    pseudonym_of: Callable[[str], str],
) -> str | None:
    try:
        user = lookup(runtime, configurable) if lookup else configurable.get("user_id")
        if user is None and lookup is None:
            user = _given_user(runtime, configurable)
        if user is None or user == "":
            return None
        # True is an int, and as a user id always a mistake.
        if isinstance(user, bool) or not isinstance(user, str | int | UUID):
            raise TypeError(f"a user id is a str, an int or a UUID, not {type(user).__name__}")  # noqa: TRY301 - one place reports every cause
        return pseudonym_of(str(user))
    except Exception:  # noqa: BLE001 - the app's own lookup may raise anything, and must not end the turn
        _log.exception("the user of this turn could not be identified; it is logged as anonymous")
        return None


def _given_user(runtime: Runtime[Any], configurable: Mapping[str, Any]) -> Any:
    """The user of a run that does not name one under ``user_id``."""
    context = getattr(runtime, "context", None)
    given = context.get("user_id") if isinstance(context, Mapping) else getattr(context, "user_id", None)
    # LangGraph's server puts whom its authentication found here.
    return configurable.get("langgraph_auth_user_id") if given is None else given
