"""What the middleware and every integration do around a model call: consent and persona before it, the log after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage

from rlhi_plugin.durability import (
    DurabilityStatus,
    TimedConsents,
    TimedPersonas,
    WriterOptions,
    journal_folder,
    journal_folders,
)
from rlhi_plugin.durability.location import may_outlive
from rlhi_plugin.durability.start_up import start_store
from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.live_options import LiveOptions
from rlhi_plugin.persona.building import checked_building, open_worker
from rlhi_plugin.persona.cache import PersonaCache, RenderedPersona
from rlhi_plugin.persona.changes import edit_stored
from rlhi_plugin.persona.chat_commands import ChatCommands, Speaking, without_command_traffic
from rlhi_plugin.persona.edits import PersonaEdit
from rlhi_plugin.persona.gate import GateMode
from rlhi_plugin.persona.worker import PersonaWorker
from rlhi_plugin.privacy.consent import ConsentCache, last_request
from rlhi_plugin.privacy.messages import MessageRedactor, open_redactor
from rlhi_plugin.recorder import Recorder, Turn
from rlhi_plugin.records import FeedbackEvent, FeedbackKind, Persona, Purpose
from rlhi_plugin.stores import ConsentStore, ConversationStore, FeedbackStore, PersonaStore

COMMAND_PATIENCE = 5
"""How many times longer than a turn a command waits for the store: its user asked for just that (ours)."""


@dataclass(slots=True)
class Admission:
    """What may be done with one model call.

    Attributes:
        logged: Whether its turn is stored.
        persona: The user's persona; None where there is none, or they do not allow it.
        whole: Whether the whole history may be stored; else only what came with this turn (see `first`).
    """

    logged: bool
    persona: RenderedPersona | None
    whole: bool

    def first(self, messages: Sequence[BaseMessage]) -> int:
        """Index of the first message of a thread that may be stored.

        A history does not say when its messages were said. So where some of it may have been said before the user was
        forgotten, or without their consent, all of it stays out but the last request and what follows it: that one is
        being made now, also when it repeats an old one.
        """
        return 0 if self.whole else _last_request(messages)


class Live:
    """Store, personas, consent, redaction and log of one app. Thread-safe.

    Args:
        store: URL of a store, or an object that is a `ConversationStore`.
        options: See `LiveOptions`.

    Raises:
        ConfigError: an option cannot work, or not with this store.
        StoreError: the store refuses us for good. One that is only down is opened when it is back (`start_store`).
    """

    def __init__(self, store: str | ConversationStore, options: LiveOptions) -> None:
        redactor = open_redactor(options.redact, vault=options.vault)
        self.store: ConversationStore = _checked_store(store)
        self.injects = options.persona == "inject"
        writer = WriterOptions(
            durability=options.durability, store_timeout_s=options.store_timeout_s, **_journal(store, options.journal)
        )
        self._redaction = None if redactor is None else MessageRedactor(redactor)
        self.recorder = Recorder(self.store, writer, redaction=self._redaction)
        decisions = self.store if isinstance(self.store, ConsentStore) else None
        consents = None if decisions is None else TimedConsents(decisions, **_limits(self.store, writer))
        self.consent = ConsentCache(consents, options.consent)
        self._reads: list[TimedConsents | TimedPersonas] = [] if consents is None else [consents]
        self._personas: PersonaCache | None = None
        self._persona_store: PersonaStore | None = None
        self._commands: ChatCommands | None = None
        self.takes_commands = options.commands
        """Whether users may give commands in the chat."""
        self._worker: PersonaWorker | None = None
        if options.persona != "off" or options.commands:
            self._persona_store = _checked_persona_store(self.store, options.persona_store)
            self._use(self._persona_store, options, writer)

    def _use(self, kept: PersonaStore, options: LiveOptions, writer: WriterOptions) -> None:
        """What is done with personas: read, built, talked about."""
        if options.persona != "off":
            timed = TimedPersonas(kept, **_limits(kept, writer))
            self._reads.append(timed)
            self._personas = PersonaCache(
                timed,
                max_age_s=options.persona_max_age_s,
                gate_mode=GateMode(options.persona_gate),
                prior=options.persona_prior,
            )
        if options.commands:
            if not isinstance(self.store, FeedbackStore):
                raise ConfigError(
                    f"{type(self.store).__name__} keeps no feedback, which is where /do-not-learn is noted. Use a "
                    "store with the methods record_feedback and feedback, or leave commands off."
                )
            timeout_s = COMMAND_PATIENCE * options.store_timeout_s
            self._commands = ChatCommands(kept, keep=self._keep, changed=self._changed, timeout_s=timeout_s)
        building = checked_building(options.persona_builder)
        if building is not None and self._personas is not None:
            self._worker = open_worker(
                building, self.store, kept, allows=self._may_personalise, updated=self._personas.expire
            )

    def is_ready(self, conversation_id: str, user_id: str | None) -> bool:
        """Whether `admit` would answer from memory: in an event loop, ask in a thread if not."""
        known = self._personas is None or user_id is None or self._personas.is_ready(conversation_id, user_id)
        return known and self.consent.is_ready(user_id)

    def admit(
        self, conversation_id: str, user_id: str | None, first_request: Callable[[], str | None] | None = None
    ) -> Admission:
        """Ask the user's consent and look their persona up. Never raises.

        Args:
            conversation_id: The thread.
            user_id: Pseudonym; None for an anonymous user.
            first_request: Tells what the thread began with, for the relevance gate.
        """
        standing = self.consent.standing(user_id)
        persona = None
        if self._personas is not None and user_id is not None and Purpose.PERSONALISE in standing.allowed:
            persona = self._personas.get(conversation_id, user_id, first_request)
        return Admission(Purpose.LOG in standing.allowed, persona, standing.is_whole)

    def prepare(self, conversation_id: str, user_id: str | None, history: Sequence[BaseMessage]) -> None:
        """Begin, while the model answers, what `record` would have to do afterwards. Never raises, waits for nothing.

        Args:
            conversation_id: The thread.
            user_id: Pseudonym or None.
            history: It, up to what the model is asked.
        """
        begins = len(history) == 1
        asked = history if begins else history[_last_request(history) :]
        self.recorder.prepare(conversation_id, user_id, asked, begins=begins)

    def command(self, messages: Sequence[BaseMessage]) -> str | None:
        """The command that a thread ends with; None where there is none, or commands are off: the model answers."""
        return None if self._commands is None else self._commands.given(messages)

    def answer(
        self, command: str, conversation_id: str, user_id: str | None, admission: Admission, *, named: bool
    ) -> AIMessage:
        """Carry out what `command` gave; waits for the stores: in an event loop, ask in a thread.

        Args:
            command: The user's whole message.
            conversation_id: The thread.
            user_id: Pseudonym; None for an anonymous user.
            admission: What `admit` said of this call.
            named: Whether the app named the thread, so that its next turn will be of the same conversation.

        Raises:
            ConfigError: commands are off.
        """
        if self._commands is None:
            raise ConfigError("commands are off. Switch them on with commands=True.")
        used = admission.persona.statements if admission.persona is not None and self.injects else ()
        return self._commands.answer(command, Speaking(user_id, conversation_id, named=named, used=used))

    def said(self, messages: Sequence[AnyMessage]) -> Sequence[AnyMessage]:
        """A thread without commands and our replies to them: what the model and the log should see."""
        return messages if self._commands is None else without_command_traffic(messages)

    def record(self, describe: Callable[[], Turn], conversation_id: str, user_id: str | None) -> None:
        """See `Recorder.record`; then the persona builder, if there is one, is told. Never raises.

        Who withdrew while the model answered is not logged. The past of a thread that is new to this process is stored
        only after asking the user's consent again.
        """
        if Purpose.LOG not in self.consent.standing(user_id).allowed:
            return
        self.recorder.record(describe, self._asked_again)
        if self._worker is not None and user_id is not None and self._may_personalise(user_id):
            self._worker.notice(user_id, conversation_id)

    def get_persona(self, user_id: str) -> Persona | None:
        """What is stored of a user.

        Raises:
            ConfigError: there are no personas here.
            StoreError: the store cannot be read.
        """
        return self._kept().get_persona(user_id)

    def edit_persona(self, user_id: str, edit: PersonaEdit) -> Persona:
        """Change a stored persona; running threads see it at their next turn.

        Raises:
            ConfigError: there are no personas here, no such statement, or the wording cannot be kept.
            StoreError: the store cannot be written.
        """
        after = edit_stored(self._kept(), user_id, edit, self._redaction)
        self._changed(user_id)
        return after

    def record_feedback(self, event: FeedbackEvent) -> bool:
        """Keep what a user did with an answer, redacted: in the store, else in the journal, as a turn is kept.

        Returns:
            Whether it was kept: False where it was known, where the user allows no log, and where neither store nor
            journal took it, which `Recorder.dropped` counts.

        Raises:
            ConfigError: the store keeps no feedback.
        """
        if not isinstance(self.store, FeedbackStore):
            raise ConfigError(
                f"{type(self.store).__name__} keeps no feedback. Use one with the method record_feedback."
            )
        # A refusal is kept of those too who allow nothing else to be kept.
        if event.kind is not FeedbackKind.DO_NOT_LEARN and not self.consent.allows(event.user_id, Purpose.LOG):
            return False
        return self.recorder.record_feedback(event)

    def _asked_again(self, turn: Turn) -> Turn:
        """The turn, without its past where the user was forgotten or withdrew since that was last asked.

        What is remembered of a user is up to half a minute old. That is soon enough for what is said now, which another
        half minute would not bring back; a past that comes with an app's own history would come back for good.
        """
        if len(turn.history) <= 1 or turn.user_id is None or turn.first:
            return turn
        if self.recorder.knows(turn.conversation_id, turn.user_id):
            return turn
        first = _last_request(turn.history)
        if not first:
            return turn
        self.consent.forget(turn.user_id)
        return replace(turn, first=first) if self.consent.may_hold_refused(turn.user_id) else turn

    def forget(self, user_id: str) -> None:
        """Drop what is in memory of a user; see `rlhi_plugin.privacy.forget_user` for all the rest."""
        self.consent.forget(user_id)
        self._changed(user_id)

    def close(self) -> None:
        """Finish the persona in work, write what is queued, release the journal. The store stays open."""
        if self._worker is not None:
            self._worker.close()
        self.recorder.close()
        if self._commands is not None:
            self._commands.close()
        for reads in self._reads:
            reads.close()

    def _keep(self, event: FeedbackEvent) -> None:
        """Keep a refusal, whose user must not be told that it is kept when it is not."""
        lost = self.recorder.dropped
        if not self.record_feedback(event) and self.recorder.dropped > lost:
            raise StoreError("neither the store nor the journal took it. See rlhi status, and say it again later.")

    def _changed(self, user_id: str) -> None:
        if self._personas is not None:
            self._personas.drop(user_id)

    def _may_personalise(self, user_id: str) -> bool:
        return self.consent.allows(user_id, Purpose.PERSONALISE)

    def _kept(self) -> PersonaStore:
        if self._persona_store is None:
            raise ConfigError("persona='off' uses no personas. Choose 'inject' or 'shadow'.")
        return self._persona_store

    def status(self) -> DurabilityStatus:
        """How store, queue and journal stand."""
        return self.recorder.status()


def first_request(messages: Sequence[BaseMessage]) -> str | None:
    """What a thread began with: the text of its first user message."""
    return next((message.text for message in messages if isinstance(message, HumanMessage)), None)


class _Limits(TypedDict):
    timeout_s: float
    may_hang: bool


class _Journal(TypedDict):
    journal: Path | None
    inherits: tuple[Path, ...]


def _limits(store: object, writer: WriterOptions) -> _Limits:
    """How long a read may take, and whether a store can be trusted to keep that."""
    return {"timeout_s": writer.store_timeout_s, "may_hang": may_outlive(writer.journal, store)}


def _last_request(messages: Sequence[BaseMessage]) -> int:
    return last_request(messages, lambda one: isinstance(one, HumanMessage))


def _journal(store: str | ConversationStore, given: str | Path | None) -> _Journal:
    if given != "auto":
        return {"journal": Path(given) if given else None, "inherits": ()}
    folder = journal_folder(store)
    return {"journal": folder, "inherits": tuple(one for one in journal_folders(store) if one != folder)}


def _checked_store(store: str | ConversationStore) -> ConversationStore:
    if isinstance(store, str):
        return start_store(store)
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
