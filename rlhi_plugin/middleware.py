"""RLHI for a LangChain agent: the user's persona in, every turn out.

agent = create_agent(model, tools=[...], middleware=[RLHIMiddleware(store="sqlite:///rlhi.db")])
agent.invoke(
    {"messages": [("user", "hi")]}, config={"configurable": {"thread_id": "t1", "user_id": "u42"}}
)
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain.agents.middleware.types import ExtendedModelResponse
from langchain_core.messages import AIMessage, BaseMessage, SystemMessage

from rlhi_plugin.call_context import CallContext, UserLookup, read_call_context
from rlhi_plugin.durability import Durability, DurabilityStatus, TimedPersonas, WriterOptions, journal_folder
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.persona.cache import PersonaCache, RenderedPersona
from rlhi_plugin.persona.render import with_persona
from rlhi_plugin.recorder import Recorder, Reply, Turn, clean
from rlhi_plugin.stores import ConversationStore, PersonaStore, open_store

PersonaMode = Literal["inject", "shadow", "off"]
Response: TypeAlias = "ModelResponse[Any] | AIMessage | ExtendedModelResponse[Any]"

_MAX_THREAD_ID = 200
"""Leaves room in a conversation id for the user's pseudonym (see `rlhi_plugin.recorder`)."""


class RLHIMiddleware(AgentMiddleware[Any, Any, Any]):
    """Logs every turn of an agent durably, and puts the user's persona into its system prompt.

    It works inside `wrap_model_call`, whose own code also runs when the model fails or a stream is closed early. When
    the agent's call returns, the turn is on disk. Nothing that goes wrong here reaches the user: it is logged to the
    logger ``rlhi.middleware`` as an error, and lost messages are counted in `dropped`.

    The thread is the run's ``thread_id``; a run without one is a conversation of its own. The user is
    ``config["configurable"]["user_id"]``, else the `user_id` of the runtime's context. Only a pseudonym is stored (see
    `rlhi_plugin.identity`). A turn without a user is anonymous: logged, never merged with another, never given a
    persona.

    Args:
        store: URL of a store (``sqlite:///rlhi.db``), or an object that is a `ConversationStore`.
        user_id: Finds the user instead: from the run's `Runtime` and ``config["configurable"]`` to the app's user id.
        persona: ``inject`` puts it into the system prompt; ``shadow`` looks it up and leaves the prompt alone, to see
            what it costs; ``off`` does neither.
        persona_store: Where personas are; `store` unless given.
        persona_max_age_s: Seconds for which a user's persona is not read again. A thread keeps the persona that it
            began with, whatever happens meanwhile.
        durability: ``sync``: on return the turn is on disk. ``async``: on return it is in memory; a crash loses what
            is queued, `close` and the end of the program write it.
        journal: Folder for turns that the store does not take; None for none; "auto": where `journal_folder` says.
        store_timeout_s: Seconds for which a turn waits for the store before it goes to the journal.

    Raises:
        ConfigError: an argument cannot work.
        StoreError: the store cannot be opened.
    """

    def __init__(
        self,
        *,
        store: str | ConversationStore,
        user_id: UserLookup | None = None,
        persona: PersonaMode = "inject",
        persona_store: PersonaStore | None = None,
        persona_max_age_s: float = 60.0,
        durability: Durability = "sync",
        journal: str | Path | None = "auto",
        store_timeout_s: float = 2.0,
    ) -> None:
        super().__init__()
        if persona not in ("inject", "shadow", "off"):
            raise ConfigError(f"persona={persona!r} is not a mode. Choose 'inject', 'shadow' or 'off'.")
        if user_id is not None and not callable(user_id):
            raise ConfigError(
                f"user_id={user_id!r} is not a function. Pass a function of (runtime, configurable), or leave it out "
                'and give config={"configurable": {"user_id": ...}} with each call.'
            )
        if persona_max_age_s < 0:
            raise ConfigError(f"persona_max_age_s={persona_max_age_s} is negative. Give seconds, 0 or more.")
        self.store: ConversationStore = _checked_store(store)
        self._lookup = user_id
        self._mode: PersonaMode = persona
        folder = journal_folder(store) if journal == "auto" else journal
        self._recorder = Recorder(
            self.store,
            WriterOptions(
                durability=durability, journal=Path(folder) if folder else None, store_timeout_s=store_timeout_s
            ),
        )
        self._personas: PersonaCache | None = None
        if persona != "off":
            self._personas = PersonaCache(
                TimedPersonas(_checked_persona_store(self.store, persona_store), timeout_s=store_timeout_s),
                max_age_s=persona_max_age_s,
            )

    @property
    def dropped(self) -> int:
        """Number of messages that could not be stored since this object was made."""
        return self._recorder.dropped

    def status(self) -> DurabilityStatus:
        """How store, queue and journal stand."""
        return self._recorder.status()

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until every turn is on disk; False when `timeout_s` seconds were not enough."""
        return self._recorder.flush(timeout_s)

    async def aflush(self, timeout_s: float | None = None) -> bool:
        """The same, without blocking the event loop."""
        return await asyncio.to_thread(self._recorder.flush, timeout_s)

    def close(self) -> None:
        """Write what is queued and release the journal. The store stays open, its owner closes it."""
        self._recorder.close()

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> Response:
        """Put the persona in, call the model, log the turn."""
        call = read_call_context(request, self._lookup)
        started, conversation = time.perf_counter(), _conversation_id(call)
        persona = self._persona(call, conversation)
        response: Response | None = None
        try:
            response = handler(self._prompt(request, persona))
            return response
        finally:
            self._recorder.record(partial(self._turn, request, call, persona, response, _timing(started)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> Response:
        """The same for ``ainvoke`` and ``astream``; the store is used in a thread, never in the event loop."""
        call = read_call_context(request, self._lookup)
        started, conversation = time.perf_counter(), _conversation_id(call)
        persona = await self._apersona(call, conversation)
        response: Response | None = None
        try:
            response = await handler(self._prompt(request, persona))
            return response
        finally:
            describe = partial(self._turn, request, call, persona, response, _timing(started))
            # A cancelled run must not cancel the writing of what was said before.
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._recorder.record, describe))

    def _persona(self, call: CallContext, conversation: str) -> RenderedPersona | None:
        if self._personas is None or call.user_id is None:
            return None
        return self._personas.get(conversation, call.user_id)

    async def _apersona(self, call: CallContext, conversation: str) -> RenderedPersona | None:
        if self._personas is None or call.user_id is None or self._personas.is_ready(conversation, call.user_id):
            return self._persona(call, conversation)
        return await asyncio.to_thread(self._persona, call, conversation)

    def _prompt(self, request: ModelRequest[Any], persona: RenderedPersona | None) -> ModelRequest[Any]:
        if persona is None or self._mode != "inject":
            return request
        return request.override(system_message=_join(request.system_message, persona.text))

    def _turn(
        self,
        request: ModelRequest[Any],
        call: CallContext,
        persona: RenderedPersona | None,
        response: Response | None,
        timing: tuple[datetime, float],
    ) -> Turn:
        messages, (started_at, latency_s) = _reply_messages(response), timing
        injected = persona if self._mode == "inject" else None
        return Turn(
            conversation_id=_conversation_id(call),
            user_id=call.user_id,
            system=request.system_message.text if request.system_message else None,
            history=call.history,
            reply=Reply(
                messages=messages,
                model=_model_name(request, messages),
                adapter=getattr(request.model, "adapter_id", None),
                persona_digest=injected.digest if injected else None,
                latency_s=latency_s,
                structured=isinstance(response, ModelResponse) and response.structured_response is not None,
            ),
            stable_ids=call.stable_ids,
            started_at=started_at,
        )


def _timing(started: float) -> tuple[datetime, float]:
    """When a call began that is over now, and how many seconds it took."""
    took = time.perf_counter() - started
    return datetime.now(UTC) - timedelta(seconds=took), took


def _checked_store(store: str | ConversationStore) -> ConversationStore:
    if isinstance(store, str):
        return open_store(store)
    if not isinstance(store, ConversationStore):
        raise ConfigError(
            f"store={store!r} is neither a URL nor a ConversationStore. Pass a URL such as sqlite:///rlhi.db, or an "
            "object with the methods append, conversations and close."
        )
    return store


def _checked_persona_store(store: ConversationStore, persona_store: PersonaStore | None) -> PersonaStore:
    candidate = store if persona_store is None else persona_store
    if not isinstance(candidate, PersonaStore):
        raise ConfigError(
            f"{type(candidate).__name__} keeps no personas. Pass persona_store=, an object with the methods "
            "get_persona and put_persona, or persona='off'."
        )
    return candidate


def _conversation_id(call: CallContext) -> str:
    """The thread's own id; without a thread, one that lasts as long as the run does."""
    if call.thread_id:
        thread_id = clean(call.thread_id)
        if len(thread_id) <= _MAX_THREAD_ID:
            return thread_id
        return f"thread-{hashlib.sha256(thread_id.encode()).hexdigest()}"
    return f"run-{call.history[0].id}" if call.history else "run-empty"


def _join(system: SystemMessage | None, persona_text: str) -> SystemMessage:
    if system is None or isinstance(system.content, str):
        return SystemMessage(with_persona(None if system is None else str(system.content), persona_text))
    # A block of its own at the end leaves the app's blocks, and their prompt-cache marks, as they are.
    return system.model_copy(update={"content": [*system.content, {"type": "text", "text": f"\n\n{persona_text}"}]})


def _reply_messages(response: Response | None) -> Sequence[BaseMessage]:
    if response is None:
        return ()
    if isinstance(response, AIMessage):
        return (response,)
    return (response.model_response if isinstance(response, ExtendedModelResponse) else response).result


def _model_name(request: ModelRequest[Any], reply: Sequence[BaseMessage]) -> str:
    """What the provider says that answered, else what was asked, else the class of the chat model."""
    for message in reply:
        if name := message.response_metadata.get("model_name") or message.response_metadata.get("model"):
            return str(name)
    for attribute in ("model_name", "model", "model_id"):
        if isinstance(name := getattr(request.model, attribute, None), str) and name:
            return name
    return type(request.model).__name__
