"""The nouns of the live half: messages, conversations, follow-ups and personas.

All are immutable pydantic models that reject unknown fields. Times are timezone-aware. A record is written as one JSON
object per line (`Record.to_json`), the form that `rlhi export` writes and every later stage reads.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

SCHEMA_VERSION = 1
"""Version of the records in this module; written into every export."""

USER_ID_PATTERN = r"^[A-Za-z0-9_.:\-]{1,128}$"
"""What a pseudonym looks like."""

UserId = Annotated[str, StringConstraints(pattern=USER_ID_PATTERN)]
"""A pseudonym. Whoever creates a record has already replaced the app's own user name (see `rlhi_plugin.identity`)."""

Role = Literal["system", "user", "assistant", "tool"]

Finish = Literal["incomplete", "failed"]
"""Why an answer is only a part of one: its stream was closed or its run cancelled, or the model failed midway."""


class Record(BaseModel):
    """Base of every record: frozen, closed, documented under each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def to_json(self) -> str:
        """One line of JSON, without the fields that hold their default."""
        return self.model_dump_json(exclude_defaults=True)

    def to_line(self) -> bytes:
        """`to_json` in UTF-8."""
        return self.__pydantic_serializer__.to_json(self, exclude_defaults=True)


class ChatMessage(Record):
    """A role and a text: what a chat template renders and a provider accepts."""

    role: Role
    content: str


class Message(Record):
    """One logged message, with what answered it when the role is ``assistant``."""

    id: str = Field(min_length=1, max_length=256)
    """Unique within its conversation; the same message seen twice has the same id."""
    role: Role
    content: str
    created_at: AwareDatetime | None = None
    """When it was logged, or None where an imported log does not say."""
    model: str | None = None
    """The model that wrote it (assistant messages)."""
    adapter: str | None = None
    """The `AdapterRecord.adapter_id` that was active, if any."""
    persona_digest: str | None = None
    """Digest of the rendered persona that was in the prompt, if any."""
    parent_id: str | None = Field(default=None, max_length=256)
    """Id of the message that it follows, where that is not the one before it: an edited request and a regenerated
    answer have the parent of what they replace, and so begin a branch."""
    latency_s: float | None = Field(default=None, ge=0.0)
    """Seconds from the call of the model to its whole answer (assistant messages)."""
    input_tokens: int | None = Field(default=None, ge=0)
    """Prompt tokens as the provider counted them (assistant messages)."""
    output_tokens: int | None = Field(default=None, ge=0)
    """Tokens of the answer as the provider counted them (assistant messages)."""
    finish: Finish | None = None
    """Why it is only a part of an answer (what a model says); None is a whole one, as far as is known. An answer that
    a limit of tokens cut short is whole in this sense: it came as the model gave it."""

    @classmethod
    def of_valid(cls, values: dict[str, Any]) -> Self:
        """A message of values of which it is known that they are valid, all of them: checking takes time.

        Args:
            values: Of every field, in the order of the fields; it becomes the message's own.
        """
        made = cls.__new__(cls)
        object.__setattr__(made, "__dict__", values)
        object.__setattr__(made, "__pydantic_fields_set__", set(values))
        object.__setattr__(made, "__pydantic_extra__", None)
        object.__setattr__(made, "__pydantic_private__", None)
        return made

    def as_chat(self) -> ChatMessage:
        """Role and text alone, as a prompt holds them."""
        return ChatMessage(role=self.role, content=self.content)


class Conversation(Record):
    """One thread of one user with one assistant, in the order in which it happened."""

    conversation_id: str = Field(min_length=1, max_length=256)
    user_id: UserId | None = None
    """The user's pseudonym; None is an anonymous conversation, never merged with another and never given a persona."""
    messages: tuple[Message, ...]
    started_at: AwareDatetime | None = None
    language: str | None = None
    """Name of the main language in English ("French"), where known."""
    toxic: bool | None = None
    """What the log's own moderation said, where it said anything."""
    source: str = "rlhi"
    """Which log it comes from: ``rlhi``, ``wildchat``, ..."""

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        ids = [message.id for message in self.messages]
        if len(set(ids)) != len(ids):
            raise ValueError("two messages share an id")
        return self


class FeedbackKind(StrEnum):
    """What a user did with an answer, other than saying something."""

    THUMBS_UP = "thumbs_up"
    THUMBS_DOWN = "thumbs_down"
    EDIT = "edit"
    """The user rewrote the answer; `FeedbackEvent.value` is what they made of it."""
    COPY = "copy"
    REGENERATE = "regenerate"
    ABANDON = "abandon"
    """The user left the thread without a further word."""
    DO_NOT_LEARN = "do_not_learn"
    """Nothing may be learned from the thread (`rlhi_plugin.privacy.exclusions`)."""


class FeedbackEvent(Record):
    """One signal about one answer, or about a whole thread."""

    event_id: str = Field(min_length=1, max_length=256)
    """Unique within its conversation; the same event seen twice has the same id."""
    conversation_id: str = Field(min_length=1, max_length=256)
    message_id: str | None = Field(default=None, max_length=256)
    """The answer that it is about; None is the whole thread."""
    user_id: UserId | None = None
    kind: FeedbackKind
    value: str | None = None
    """The edited text, a comment, the passage that was copied; None where the kind says it all."""
    created_at: AwareDatetime | None = None
    """When it happened, or None where an imported log does not say."""


class Purpose(StrEnum):
    """What a user's words may be used for; each needs its own consent."""

    LOG = "log"
    PERSONALISE = "personalise"
    TRAIN = "train"


class ConsentDecision(Record):
    """What one user decided about one purpose. The newest decision counts."""

    user_id: UserId
    purpose: Purpose
    granted: bool
    decided_at: AwareDatetime


class Tombstone(Record):
    """A user who was forgotten: nothing that they said before `forgotten_at` may come back by import or ingest."""

    user_id: UserId
    forgotten_at: AwareDatetime


class FollowUpLabel(StrEnum):
    """What a user message after the first one does (arXiv 2509.25137, section 2.2)."""

    NEW_REQUEST = "new_request"
    WITH_FEEDBACK = "reattempt_with_feedback"
    WITHOUT_FEEDBACK = "reattempt_without_feedback"
    POSITIVE_FEEDBACK = "positive_feedback"


class FollowUpSubtype(StrEnum):
    """What a follow-up does in more detail; several go with more than one label."""

    CORRECTION = "correction"
    POINTS_OUT_ERROR = "points_out_error"
    CONSTRAINT_ADDED = "constraint_added"
    STYLE_OR_FORMAT = "style_or_format"
    MORE_DETAIL = "more_detail"
    SHORTER = "shorter"
    CLARIFIES_INTENT = "clarifies_intent"
    FRUSTRATION = "frustration"
    REPEAT = "repeat"
    THANKS = "thanks"
    NEXT_STEP = "next_step"
    NEW_TOPIC = "new_topic"
    QUESTION_ABOUT_ANSWER = "question_about_answer"
    CONTINUE = "continue"
    ROLEPLAY_TURN = "roleplay_turn"
    OTHER = "other"


class FollowUp(Record):
    """The label of one user message after the first, judged against the reply just before it."""

    conversation_id: str
    turn: int = Field(ge=1)
    """0-based count of user messages: the first follow-up is turn 1."""
    message_id: str
    label: FollowUpLabel
    """What the labeller decided; not always the likeliest class, see the labeller."""
    subtype: FollowUpSubtype | None = None
    """None where the labeller gives none."""
    probabilities: dict[FollowUpLabel, float] = Field(default_factory=dict)
    """Probability of each class, summing to 1; empty where the labeller gives none."""
    evidence: str | None = None
    """The user's own words that decided it, verbatim."""
    labeller: str
    """Name and version of what labelled it."""


class Evidence(Record):
    """Where a persona statement comes from: a verbatim quote of a user turn."""

    conversation_id: str
    message_id: str
    quote: str = Field(min_length=1)
    said_at: AwareDatetime | None = None


class StatementType(StrEnum):
    """What a persona statement is about. It decides where the statement matters (`rlhi_plugin.persona.gate`)."""

    LENGTH = "length"
    STYLE = "style"
    """Tone and manners: formal, friendly, emojis, a greeting."""
    FORMAT = "format"
    """Lists, tables, headings, steps."""
    CONTENT = "content"
    """What an answer holds: numbers, examples, sources."""
    LANGUAGE = "language"
    EXPERTISE = "expertise"
    """What the user knows or does, and how simple an answer has to be."""
    AVOID = "avoid"
    """What has to stay out."""
    OTHER = "other"
    """Anything else, facts of one conversation among it; also whatever was stored before types existed."""


class PersonaStatement(Record):
    """One preference of one user, in natural language, with the user's words that support it."""

    text: str = Field(min_length=1)
    """What is rendered into the prompt. One line."""
    evidence: tuple[Evidence, ...] = Field(min_length=1)
    """Newest first. A statement that the user wrote themselves cites that edit."""
    confidence: float = Field(default=1.0, ge=0.0, le=1.0)
    """How well the evidence supports it at `last_seen`; `rlhi_plugin.persona.memory.strength` says what is left."""
    type: StatementType = StatementType.OTHER
    first_seen: AwareDatetime | None = None
    """Time of the first turn that supports it, also of one no longer cited."""
    last_seen: AwareDatetime | None = None
    """Time of the newest turn that supports it."""
    locked: bool = False
    """The user fixed it: it does not fade, no rebuilding changes it, and no later turn contradicts it."""


class Removal(Record):
    """A statement that the user removed. It keeps no words, only enough to know them again."""

    fingerprints: tuple[tuple[str, ...], ...] = Field(min_length=1)
    """For the statement and each of its quotations, digests of its words."""
    wishes: tuple[str, ...] = ()
    """What the statement asked for, where code can read it: ``length:-``."""
    removed_at: AwareDatetime


class Persona(Record):
    """What a user's own words say about how they like to be answered."""

    user_id: UserId
    statements: tuple[PersonaStatement, ...]
    """Most important first; never empty strings; may be empty when nothing is known."""
    covers_until: AwareDatetime | None = None
    """Time of the newest turn that was read for it; what it is used on must be later."""
    builder: str
    """Name and version of the builder."""
    version: int = Field(default=0, ge=0)
    """Counts the changes of what is known about the user; 0 is a persona that was built in one go."""
    reserve: tuple[PersonaStatement, ...] = ()
    """Known, but not rendered: too weak, too old, or one too many. Later turns may bring them back."""
    removed: tuple[Removal, ...] = ()
    """What the user removed, and must not come back."""
    excluded: tuple[str, ...] = ()
    """Conversations that the user wants nothing to be learned from."""
    turns_read: int = Field(default=0, ge=0)
    """How many turns of the user were read for it; another number up to `covers_until` means another history."""
    edge: tuple[str, ...] = ()
    """The turns said at exactly `covers_until`, as ``conversation/message``: others of that moment are still new."""

    @property
    def digest(self) -> str:
        """SHA-256 of the statements' texts, in hex: equal personas render to equal bytes."""
        return hashlib.sha256("\n".join(s.text for s in self.statements).encode()).hexdigest()
