"""What every integration does with one model call: find the persona, record the turn, and never break the call."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Required, TypedDict, Unpack, cast

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, SystemMessage

from rlhi_plugin.call_context import stored_thread_id
from rlhi_plugin.durability import Durability, DurabilityStatus
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.feedback import feedback_event
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.integrations.provider_messages import without_persona
from rlhi_plugin.integrations.speaker import Speaker, as_id
from rlhi_plugin.live import Admission, Live
from rlhi_plugin.live_options import LiveOptions, PersonaMode
from rlhi_plugin.persona.building import BuilderOption
from rlhi_plugin.persona.cache import RenderedPersona
from rlhi_plugin.persona.cohort import CohortPrior
from rlhi_plugin.persona.gate import GateMode
from rlhi_plugin.privacy.consent import ConsentCache
from rlhi_plugin.privacy.messages import RedactOption
from rlhi_plugin.privacy.policy import ConsentPolicy
from rlhi_plugin.privacy.vault import Vault
from rlhi_plugin.recorder import Reply, Turn
from rlhi_plugin.records import FeedbackKind, Finish
from rlhi_plugin.stores import ConversationStore, PersonaStore

_log = logging.getLogger("rlhi.middleware")


class ObserverOptions(TypedDict, total=False):
    """Options of every integration. They mean what they mean in `RLHIMiddleware`."""

    store: Required[str | ConversationStore]
    """URL of a store (``sqlite:///rlhi.db``), or an object that is a `ConversationStore`."""
    persona: PersonaMode
    persona_store: PersonaStore | None
    persona_max_age_s: float
    persona_gate: GateMode | str
    persona_prior: CohortPrior | None
    persona_builder: BuilderOption
    commands: bool
    durability: Durability
    journal: str | Path | None
    store_timeout_s: float
    redact: RedactOption
    vault: Vault | None
    consent: ConsentPolicy | None


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was said in one model call.

    Attributes:
        history: The thread up to and including what the model was asked; a persona of ours in it is left out.
        reply: What it answered; empty when the call failed.
        model: Name of the model.
        adapter: Id of the adapter that was active.
        system: The system prompt where it is not part of `history`; a persona of ours in it is left out.
        stable_ids: Whether the ids of the messages stay the same from call to call.
        finish: Why the reply is only a part of one; None where it is whole.
        latency_s: Seconds from the call of the model to its answer, where somebody told; else those that passed between
            `Observer.begin` and `Observer.record` count.
    """

    history: Sequence[BaseMessage]
    reply: Sequence[BaseMessage] = ()
    model: str | None = None
    adapter: str | None = None
    system: str | None = None
    stable_ids: bool = False
    finish: Finish | None = None
    latency_s: float | None = None


@dataclass(frozen=True, slots=True)
class ObservedCall:
    """One model call, from before it begins.

    Attributes:
        conversation_id: Where it is logged.
        user_id: Pseudonym, or None for an anonymous user.
        persona: What is to be put into the prompt; None for nobody's, for none, and when the mode is not ``inject``.
        started_at: When it began.
        admission: What the user allows.
        named: Whether the app named the thread, so that its next call will be of the same conversation.
        began: The same moment as `started_at` by a clock that is never set, in seconds; None where the call was over
            already, and only its `Exchange` says how long it took.
    """

    conversation_id: str
    user_id: str | None
    persona: RenderedPersona | None
    started_at: datetime
    admission: Admission
    named: bool = True
    began: float | None = field(default_factory=time.perf_counter)


class Observer:
    """The options of an integration at work. One may serve several integrations of an app.

    Args:
        options: See `ObserverOptions`.

    Raises:
        ConfigError: an option cannot work.
        StoreError: the store refuses us for good (a wrong password, a newer schema). One that is down opens later.
    """

    def __init__(self, **options: Unpack[ObserverOptions]) -> None:
        rest = {name: value for name, value in options.items() if name != "store"}
        self._live = Live(options["store"], LiveOptions(**rest))  # type: ignore[arg-type] # the keys are its fields

    @property
    def store(self) -> ConversationStore:
        """Where turns go."""
        return self._live.store

    @property
    def consent(self) -> ConsentCache:
        """Users' decisions."""
        return self._live.consent

    @property
    def takes_commands(self) -> bool:
        """Whether users may give commands in the chat."""
        return self._live.takes_commands

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
        """Store what a user did with an answer other than saying something; see `RLHIMiddleware.record_feedback`.

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

    def begin(self, speaker: Callable[[], Speaker], *, fallback_thread: str | None = None) -> ObservedCall:
        """Find out whose call this is, and their persona. Never raises: what goes wrong leaves the call anonymous.

        Args:
            speaker: Finds the user and the thread. A function, so that its failure is caught here as well.
            fallback_thread: The conversation of a call without a thread; one of its own unless given.
        """
        return self._admitted(*self._identify(speaker, fallback_thread))

    async def abegin(self, speaker: Callable[[], Speaker], *, fallback_thread: str | None = None) -> ObservedCall:
        """The same; the store, where it must be read, is read in a thread and never in the event loop."""
        user_id, conversation_id, named = self._identify(speaker, fallback_thread)
        if self._live.is_ready(conversation_id, user_id):
            return self._admitted(user_id, conversation_id, named)
        return await asyncio.to_thread(self._admitted, user_id, conversation_id, named)

    def answer(self, call: ObservedCall, history: Sequence[BaseMessage]) -> AIMessage | None:
        """What to say in the model's place where the user gave a command; None where the model should answer.

        Waits for the stores, and never raises.

        Args:
            call: What `begin` gave.
            history: The thread, up to what the user said last.
        """
        command = self._live.command(history)
        if command is None:
            return None
        return self._live.answer(command, call.conversation_id, call.user_id, call.admission, named=call.named)

    async def aanswer(self, call: ObservedCall, history: Sequence[BaseMessage]) -> AIMessage | None:
        """The same; the stores are used in a thread, never in the event loop."""
        if self._live.command(history) is None:
            return None
        return await asyncio.to_thread(self.answer, call, history)

    def said(self, history: Sequence[AnyMessage]) -> Sequence[AnyMessage]:
        """A thread without commands and our replies to them: what the model should see."""
        return self._live.said(history)

    def record(self, call: ObservedCall, describe: Callable[[], Exchange]) -> None:
        """Store what is new in a call. On return it is on disk, or counted in `dropped`. Never raises.

        May be called again for the same call when more of the answer is known: what is stored is not stored twice.
        """
        self._record(call, describe, _seconds_of(call))

    async def arecord(self, call: ObservedCall, describe: Callable[[], Exchange]) -> None:
        """The same, in a thread; a cancelled call does not cancel the writing."""
        record = partial(self._record, call, describe, _seconds_of(call))
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, record))

    def close(self) -> None:
        """Finish the persona in work, write what is queued, release the journal. The store stays open for its owner."""
        self._live.close()

    def _identify(self, speaker: Callable[[], Speaker], fallback_thread: str | None) -> tuple[str | None, str, bool]:
        thread_id = user_id = None
        try:
            found = speaker()
            thread_id = as_id(found.thread_id)
            app_user = as_id(found.user_id)
            user_id = None if app_user is None else pseudonym(app_user)
        except Exception:  # noqa: BLE001 - whatever the call carries along must not end it
            _log.exception("the user of this call could not be identified; it is logged as anonymous")
        named = bool(thread_id or fallback_thread)
        return user_id, _conversation_id(thread_id or fallback_thread), named

    def _admitted(self, user_id: str | None, conversation_id: str, named: bool) -> ObservedCall:
        admission = self._live.admit(conversation_id, user_id)
        persona = admission.persona if self._live.injects else None
        if admission.logged:
            self._live.prepare(conversation_id, user_id, ())
        return ObservedCall(conversation_id, user_id, persona, datetime.now(UTC), admission, named)

    def _record(self, call: ObservedCall, describe: Callable[[], Exchange], latency_s: float | None) -> None:
        if call.admission.logged:
            describe_turn = partial(self._turn, call, describe, latency_s)
            self._live.record(describe_turn, call.conversation_id, call.user_id)

    def _turn(self, call: ObservedCall, describe: Callable[[], Exchange], latency_s: float | None) -> Turn:
        exchange = describe()
        if exchange.latency_s is None:
            exchange = replace(exchange, latency_s=latency_s)
        history = self._live.said(cast("Sequence[AnyMessage]", exchange.history))
        # LiteLLM reports our reply to a command like any other.
        reply = self._live.said(cast("Sequence[AnyMessage]", exchange.reply))
        return _turn(call, replace(exchange, history=history, reply=reply))


def observer_from(observer: Observer | None, options: ObserverOptions, *, answers: bool = False) -> Observer:
    """The observer that an integration was given, or one made from its options.

    Args:
        observer: The first, or None.
        options: For the second.
        answers: Whether the integration can answer commands in the model's place.

    Raises:
        ConfigError: both or neither were given, or an option cannot work.
        StoreError: the store refuses us for good (a wrong password, a newer schema). One that is down opens later.
    """
    if observer is None:
        if "store" not in options:
            raise ConfigError("there is no store to log to. Pass store='sqlite:///rlhi.db', or observer=Observer(...).")
        if options.get("commands") and not answers:
            raise ConfigError(
                "commands=True does nothing here: this integration cannot answer in the model's place. Make an "
                "Observer(commands=True), ask its `answer` before you call the model, and pass it as observer=."
            )
        return Observer(**options)
    if options:
        raise ConfigError(f"observer= already has its options. Leave out {', '.join(options)}.")
    return observer


def _turn(call: ObservedCall, exchange: Exchange) -> Turn:
    system = without_persona(SystemMessage(exchange.system or ""))
    history = [own for message in exchange.history if (own := without_persona(message))]
    return Turn(
        conversation_id=call.conversation_id,
        user_id=call.user_id,
        system=system.text if system else None,
        history=cast("Sequence[AnyMessage]", history),
        reply=Reply(
            messages=exchange.reply,
            model=exchange.model,
            adapter=exchange.adapter,
            persona_digest=call.persona.digest if call.persona else None,
            latency_s=exchange.latency_s,
            finish=exchange.finish,
        ),
        stable_ids=exchange.stable_ids,
        started_at=call.started_at,
        first=call.admission.first(history),
    )


def _seconds_of(call: ObservedCall) -> float | None:
    """How long a call took that is over now."""
    return None if call.began is None else time.perf_counter() - call.began


def _conversation_id(thread_id: str | None) -> str:
    return stored_thread_id(thread_id) if thread_id else f"run-{uuid.uuid4()}"
