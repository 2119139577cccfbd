"""What the middleware and every integration do around a model call: consent and persona before it, the log after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypedDict

from langchain_core.messages import BaseMessage, HumanMessage

from rlhi_plugin.durability import (
    Durability,
    DurabilityStatus,
    TimedConsents,
    TimedPersonas,
    WriterOptions,
    journal_folder,
    journal_folders,
)
from rlhi_plugin.durability.start_up import start_store
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.persona.cache import PersonaCache, RenderedPersona
from rlhi_plugin.persona.cohort import CohortPrior
from rlhi_plugin.persona.gate import GateMode
from rlhi_plugin.privacy.consent import ConsentCache, ConsentPolicy, last_request
from rlhi_plugin.privacy.messages import MessageRedactor, RedactOption, open_redactor
from rlhi_plugin.privacy.vault import Vault
from rlhi_plugin.recorder import Recorder, Turn
from rlhi_plugin.records import FeedbackEvent, Purpose
from rlhi_plugin.stores import ConsentStore, ConversationStore, FeedbackStore, PersonaStore

PersonaMode = Literal["inject", "shadow", "off"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveOptions:
    """Options of the live half. `RLHIMiddleware` explains each of them.

    Raises:
        ConfigError: one of them cannot work.
    """

    persona: PersonaMode = "inject"
    persona_store: PersonaStore | None = None
    persona_max_age_s: float = 60.0
    persona_gate: GateMode | str = GateMode.OFF
    persona_prior: CohortPrior | None = None
    durability: Durability = "sync"
    journal: str | Path | None = "auto"
    store_timeout_s: float = 2.0
    redact: RedactOption = "default"
    vault: Vault | None = None
    consent: ConsentPolicy | None = None

    def __post_init__(self) -> None:
        if self.persona not in ("inject", "shadow", "off"):
            raise ConfigError(f"persona={self.persona!r} is not a mode. Choose 'inject', 'shadow' or 'off'.")
        if self.persona_max_age_s < 0:
            raise ConfigError(f"persona_max_age_s={self.persona_max_age_s} is negative. Give seconds, 0 or more.")
        if self.persona_gate not in list(GateMode):
            modes = ", ".join(repr(str(mode)) for mode in GateMode)
            raise ConfigError(f"persona_gate={self.persona_gate!r} is not a mode. Choose one of {modes}.")
        if self.consent is not None and not isinstance(self.consent, ConsentPolicy):
            raise ConfigError(f"consent={self.consent!r} is no policy. Pass ConsentPolicy(default={{'train': False}}).")


@dataclass(frozen=True, slots=True)
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
        redaction = None if redactor is None else MessageRedactor(redactor)
        self.recorder = Recorder(self.store, writer, redaction=redaction)
        decisions = self.store if isinstance(self.store, ConsentStore) else None
        self.consent = ConsentCache(
            None if decisions is None else TimedConsents(decisions, timeout_s=options.store_timeout_s), options.consent
        )
        self._personas: PersonaCache | None = None
        if options.persona != "off":
            kept = _checked_persona_store(self.store, options.persona_store)
            self._personas = PersonaCache(
                TimedPersonas(kept, timeout_s=options.store_timeout_s),
                max_age_s=options.persona_max_age_s,
                gate_mode=GateMode(options.persona_gate),
                prior=options.persona_prior,
            )

    def is_ready(self, conversation_id: str, user_id: str | None) -> bool:
        """Whether `admit` would answer from memory: in an event loop, ask in a thread if not."""
        known = self._personas is None or user_id is None or self._personas.is_ready(conversation_id, user_id)
        return known and self.consent.is_ready(user_id)

    def admit(self, conversation_id: str, user_id: str | None, first_request: str | None = None) -> Admission:
        """Ask the user's consent and look their persona up. Never raises.

        Args:
            conversation_id: The thread.
            user_id: Pseudonym; None for an anonymous user.
            first_request: What the thread began with, for the relevance gate.
        """
        logged = self.consent.allows(user_id, Purpose.LOG)
        persona = None
        if self._personas is not None and user_id is not None and self.consent.allows(user_id, Purpose.PERSONALISE):
            persona = self._personas.get(conversation_id, user_id, first_request)
        return Admission(logged, persona, whole=not self.consent.may_hold_refused(user_id))

    def record(self, describe: Callable[[], Turn]) -> None:
        """See `Recorder.record`. The past of a thread that is new to this process is stored only after asking again."""
        self.recorder.record(lambda: self._asked_again(describe()))

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
        if not self.consent.allows(event.user_id, Purpose.LOG):
            return False
        return self.recorder.record_feedback(event)

    def _asked_again(self, turn: Turn) -> Turn:
        """The turn, without its past where the user was forgotten or withdrew since that was last asked.

        What is remembered of a user is up to half a minute old. That is soon enough for what is said now, which another
        half minute would not bring back; a past that comes with an app's own history would come back for good.
        """
        if turn.user_id is None or turn.first or self.recorder.knows(turn.conversation_id, turn.user_id):
            return turn
        first = _last_request(turn.history)
        if not first:
            return turn
        self.consent.forget(turn.user_id)
        return replace(turn, first=first) if self.consent.may_hold_refused(turn.user_id) else turn

    def forget(self, user_id: str) -> None:
        """Drop what is in memory of a user; see `rlhi_plugin.privacy.forget_user` for all the rest."""
        self.consent.forget(user_id)
        if self._personas is not None:
            self._personas.drop(user_id)

    def status(self) -> DurabilityStatus:
        """How store, queue and journal stand."""
        return self.recorder.status()


def first_request(messages: Sequence[BaseMessage]) -> str | None:
    """What a thread began with: the text of its first user message."""
    return next((message.text for message in messages if isinstance(message, HumanMessage)), None)


class _Journal(TypedDict):
    journal: Path | None
    inherits: tuple[Path, ...]


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
