"""RLHI for a LangChain agent: the user's persona in, every turn out.

agent = create_agent(model, tools=[...], middleware=[RLHIMiddleware(store="sqlite:///rlhi.db")])
agent.invoke(
    {"messages": [("user", "hi")]}, config={"configurable": {"thread_id": "t1", "user_id": "u42"}}
)
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage

from rlhi_plugin.call_context import Asked, CallContext, UserLookup, app_id, conversation_id, read_call_context
from rlhi_plugin.direct_answers import direct_tools
from rlhi_plugin.durability import Durability, DurabilityStatus
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.feedback import feedback_event
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.live import Admission, Live, first_request
from rlhi_plugin.live_options import LiveOptions, PersonaMode
from rlhi_plugin.model_call import Response, join_persona, names_of, reply_messages
from rlhi_plugin.partial_answer import PartialAnswer
from rlhi_plugin.persona.building import BuilderOption
from rlhi_plugin.persona.cache import RenderedPersona
from rlhi_plugin.persona.cohort import CohortPrior
from rlhi_plugin.persona.edits import EditAction, PersonaEdit
from rlhi_plugin.persona.gate import GateMode
from rlhi_plugin.privacy.consent import ConsentCache
from rlhi_plugin.privacy.messages import RedactOption
from rlhi_plugin.privacy.policy import ConsentPolicy
from rlhi_plugin.privacy.vault import Vault
from rlhi_plugin.recorder import Reply, Turn
from rlhi_plugin.records import FeedbackKind, Persona
from rlhi_plugin.stores import ConversationStore, PersonaStore

_log = logging.getLogger("rlhi.middleware")

_USERS_REMEMBERED = 4096


class RLHIMiddleware(AgentMiddleware[Any, Any, Any]):
    """Logs every turn of an agent durably, and puts the user's persona into its system prompt.

    It works inside `wrap_model_call`, whose own code also runs when the model fails or a stream is closed early. When
    the agent's call returns, the turn is on disk. (Where a tool with ``return_direct`` answers the user itself, its
    result follows with the thread's next turn, or at once with `RLHIToolMiddleware`.) Nothing that goes wrong here
    reaches the user: it is logged to the logger ``rlhi.middleware`` as an error, and lost messages are counted in
    `dropped`.

    The thread is the run's ``thread_id``; a run without one is a conversation of its own. The user is
    ``config["configurable"]["user_id"]``, else the `user_id` of the runtime's context, else whom the authentication of
    LangGraph's server found. Only a pseudonym is stored (see `rlhi_plugin.identity`). A turn without a user is
    anonymous: logged, never merged with another, never given a persona.

    Args:
        store: URL of a store (``sqlite:///rlhi.db``), or an object that is a `ConversationStore`.
        user_id: Finds the user instead: from the run's `Runtime` and ``config["configurable"]`` to the app's user id.
        persona: ``inject`` puts it into the system prompt; ``shadow`` looks it up and leaves the prompt alone, to see
            what it costs; ``off`` does neither.
        persona_store: Where personas are; `store` unless given.
        persona_max_age_s: Seconds for which a user's persona is not read again. A thread keeps the persona that it
            began with, whatever happens meanwhile.
        persona_gate: Whether statements (``statements``), or a whole persona (``all``), stay out of a thread whose
            first request they do not matter to; ``off``: never.
        persona_prior: What users get of whom nothing is known yet (`rlhi_plugin.persona.cohort`); nothing without it.
        persona_builder: Builds personas in a thread of this process, after turns and never while a user waits:
            ``extractive`` (quotes the user, asks no model), the name of a model as LiteLLM writes it, any LangChain
            chat model, a `PersonaBuilder`, or a `PersonaBuilding` that also says when. Nothing unless given.
        commands: Whether users may ask in the chat what is known of them, and take it back: ``/what-do-you-know``,
            ``/why``, ``/forget that``, ``/do-not-learn``. They are answered without a model call and not logged.
        durability: ``sync``: on return the turn is on disk. ``async``: on return it is in memory; a crash loses what
            is queued, `close` and the end of the program write it.
        journal: Folder for turns that the store does not take; None for none; "auto": where `journal_folder` says.
        store_timeout_s: Seconds for which a turn waits for the store before it goes to the journal.
        redact: What is taken out before anything is stored: ``default`` (secrets and personal data), ``off``, a list of
            kinds, or a redactor of your own (`rlhi_plugin.privacy`).
        vault: Keeps what was taken out, encrypted, for an app that wants it back.
        consent: What is allowed of users who have not decided; all of it by default, which is logged once.

    Raises:
        ConfigError: an argument cannot work.
        StoreError: the store refuses us for good (a wrong password, a newer schema). One that is down opens later.
    """

    stores_direct_answers: ClassVar[bool] = False
    """Whether the result of a tool with ``return_direct`` is stored at once (`RLHIToolMiddleware`)."""

    def __init__(
        self,
        *,
        store: str | ConversationStore,
        user_id: UserLookup | None = None,
        persona: PersonaMode = "inject",
        persona_store: PersonaStore | None = None,
        persona_max_age_s: float = 60.0,
        persona_gate: GateMode | str = GateMode.OFF,
        persona_prior: CohortPrior | None = None,
        persona_builder: BuilderOption = None,
        commands: bool = False,
        durability: Durability = "sync",
        journal: str | Path | None = "auto",
        store_timeout_s: float = 2.0,
        redact: RedactOption = "default",
        vault: Vault | None = None,
        consent: ConsentPolicy | None = None,
    ) -> None:
        super().__init__()
        if user_id is not None and not callable(user_id):
            raise ConfigError(
                f"user_id={user_id!r} is not a function. Pass a function of (runtime, configurable), or leave it out "
                'and give config={"configurable": {"user_id": ...}} with each call.'
            )
        self._lookup = user_id
        self._looked_at_tools = self.stores_direct_answers
        self._pseudonym = lru_cache(_USERS_REMEMBERED)(pseudonym)
        self._live = Live(
            store,
            LiveOptions(
                persona=persona,
                persona_store=persona_store,
                persona_max_age_s=persona_max_age_s,
                persona_gate=persona_gate,
                persona_prior=persona_prior,
                persona_builder=persona_builder,
                commands=commands,
                durability=durability,
                journal=journal,
                store_timeout_s=store_timeout_s,
                redact=redact,
                vault=vault,
                consent=consent,
            ),
        )

    @property
    def store(self) -> ConversationStore:
        """Where turns go."""
        return self._live.store

    @property
    def consent(self) -> ConsentCache:
        """Users' decisions: `grant` and `withdraw` count at once here, and within half a minute in other processes."""
        return self._live.consent

    @property
    def dropped(self) -> int:
        """Number of messages and feedback events that could not be stored since this object was made."""
        return self._live.recorder.dropped

    def status(self) -> DurabilityStatus:
        """How store, queue and journal stand."""
        return self._live.status()

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until every turn is on disk; False when `timeout_s` seconds were not enough."""
        return self._live.recorder.flush(timeout_s)

    async def aflush(self, timeout_s: float | None = None) -> bool:
        """The same, without blocking the event loop."""
        return await asyncio.to_thread(self._live.recorder.flush, timeout_s)

    def close(self) -> None:
        """Finish the persona in work, write what is queued, release the journal. The store stays open for its owner."""
        self._live.close()

    def record_feedback(
        self,
        kind: FeedbackKind | str,
        *,
        thread_id: str,
        user_id: str | None = None,
        message_id: str | None = None,
        value: str | None = None,
        event_id: str | None = None,
    ) -> bool:
        """Store what a user did with an answer other than saying something: thumbs, an edit, a copy, and so on.

        Args:
            kind: See `FeedbackKind`: ``thumbs_up``, ``thumbs_down``, ``edit``, ``copy``, ``regenerate``, ``abandon``,
                ``do_not_learn``. The last one keeps the thread out of personas and training.
            thread_id: The app's thread.
            user_id: The app's own id of the user; only its pseudonym is stored.
            message_id: Id of the answer that it is about; None is the whole thread.
            value: The edited text, a comment, the passage that was copied.
            event_id: The app's own id of the event, so that the same click is stored once; a new one without it.

        Returns:
            Whether it was kept, in the store or, while that is down, in the journal: False where it was known, where
            the user allows no log, and where nothing took it, which `dropped` counts.

        Raises:
            ConfigError: no such kind, an argument that cannot be what its name says, or a store that keeps no feedback.
        """
        return self._live.record_feedback(
            feedback_event(
                kind,
                thread_id=thread_id,
                user_id=user_id,
                message_id=message_id,
                value=value,
                event_id=event_id,
            )
        )

    def get_persona(self, user_id: str) -> Persona | None:
        """What is known of a user (the app's own id), to show it to them; None where nothing is.

        Raises:
            ConfigError: ``persona="off"``.
            StoreError: the store cannot be read.
        """
        return self._live.get_persona(_stored_user(user_id))

    def edit_persona(self, user_id: str, action: EditAction, number: int, text: str | None = None) -> Persona:
        """Let a user (the app's own id) change what is known of them; their running threads see it at the next turn.

        Args:
            user_id: Whose.
            action: ``edit``, ``lock``, ``unlock`` or ``remove``.
            number: Of the statement, counted from 1 through `Persona.statements` and on through `Persona.reserve`.
            text: The new wording, for ``edit``.

        Returns:
            The persona as it now is.

        Raises:
            ConfigError: no such statement, the wording cannot be kept, or ``persona="off"``.
            StoreError: the store cannot be written.
        """
        return self._live.edit_persona(_stored_user(user_id), PersonaEdit(action=action, number=number, text=text))

    def forget(self, user_id: str) -> None:
        """Drop what this process remembers of a user (the app's own id); `rlhi forget` deletes what is stored."""
        self._live.forget(_stored_user(user_id))

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> Response:
        """Put the persona in, call the model, log the turn."""
        call, command = self._heard(request)
        began = (datetime.now(UTC), time.perf_counter())
        admission = self._live.admit(call.conversation_id, call.user_id, partial(first_request, call.history))
        if command is not None:
            return self._answer(command, call, admission)
        # What a model asks of another is logged where it asks: as the call of a tool, and its result.
        admission.logged = admission.logged and not call.in_a_tool
        if admission.logged:
            self._live.prepare(call.conversation_id, call.user_id, call.history)
        response, answer = None, PartialAnswer(request.model)
        try:
            with answer:
                response = handler(self._prompt(request, admission.persona))
            return response
        finally:
            if admission.logged:
                said = answer if response is None else response
                describe = partial(self._turn, request, call, admission, said, _timing(began))
                self._live.record(describe, call.conversation_id, call.user_id)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> Response:
        """The same for ``ainvoke`` and ``astream``; the store is used in a thread, never in the event loop."""
        call, command = self._heard(request)
        began = (datetime.now(UTC), time.perf_counter())
        admission = await self._aadmit(call)
        if command is not None:
            return await asyncio.to_thread(self._answer, command, call, admission)
        admission.logged = admission.logged and not call.in_a_tool
        if admission.logged:
            self._live.prepare(call.conversation_id, call.user_id, call.history)
        response, answer = None, PartialAnswer(request.model)
        try:
            with answer:
                response = await handler(self._prompt(request, admission.persona))
            return response
        finally:
            if admission.logged:
                said = answer if response is None else response
                describe = partial(self._turn, request, call, admission, said, _timing(began))
                # A cancelled run must not cancel the writing of what was said before.
                record = partial(self._live.record, describe, call.conversation_id, call.user_id)
                await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, record))

    async def _aadmit(self, call: CallContext) -> Admission:
        ask = partial(self._live.admit, call.conversation_id, call.user_id, partial(first_request, call.history))
        return ask() if self._live.is_ready(call.conversation_id, call.user_id) else await asyncio.to_thread(ask)

    def _heard(self, request: Asked) -> tuple[CallContext, str | None]:
        """Where a call belongs, with a history that holds no commands, and the command that it is, if it is one."""
        call = read_call_context(request, self._lookup, self._pseudonym)
        if not self._live.takes_commands or call.in_a_tool:
            return call, None
        command, history = self._live.command(call.history), tuple(self._live.said(call.history))
        return replace(call, history=history, conversation_id=conversation_id(call.thread_id, history)), command

    def _answer(self, command: str, call: CallContext, admission: Admission) -> AIMessage:
        named = call.thread_id is not None
        return self._live.answer(command, call.conversation_id, call.user_id, admission, named=named)

    def _prompt(self, request: ModelRequest[Any], persona: RenderedPersona | None) -> ModelRequest[Any]:
        if self._live.takes_commands and (said := self._live.said(request.messages)) is not request.messages:
            request = request.override(messages=list(said))
        if persona is None or not self._live.injects:
            return request
        return request.override(system_message=join_persona(request.system_message, persona.text))

    def _turn(
        self,
        request: ModelRequest[Any],
        call: CallContext,
        admission: Admission,
        response: Response | PartialAnswer,
        timing: tuple[datetime, float],
    ) -> Turn:
        if not self._looked_at_tools:
            self._looked_at_tools = True
            _warn_of(direct_tools(request))
        started_at, latency_s = timing
        messages, system, persona = reply_messages(response), request.system_message, admission.persona
        model, adapter = names_of(request, messages)
        reply = Reply(
            messages=messages,
            model=model,
            adapter=adapter,
            persona_digest=persona.digest if persona is not None and self._live.injects else None,
            latency_s=latency_s,
            structured=isinstance(response, ModelResponse) and response.structured_response is not None,
            finish=response.finish if isinstance(response, PartialAnswer) else None,
        )
        return Turn(
            conversation_id=call.conversation_id,
            user_id=call.user_id,
            system=system.text if system else None,
            history=call.history,
            reply=reply,
            stable_ids=call.stable_ids,
            started_at=started_at,
            first=0 if admission.whole else admission.first(call.history),
        )


def _stored_user(user_id: str) -> str:
    return pseudonym(app_id(user_id, "user_id") or "")


def _warn_of(direct: list[str]) -> None:
    if direct:
        _log.warning(
            "what the tools %s (return_direct) answer is stored with the thread's next turn only, and never where none "
            "comes; RLHIToolMiddleware in the place of RLHIMiddleware stores it at once",
            ", ".join(direct),
        )


def _timing(began: tuple[datetime, float]) -> tuple[datetime, float]:
    """When a call began that is over now, and how many seconds it took."""
    started_at, clock = began
    return started_at, time.perf_counter() - clock
