"""The nouns of the offline half: labelled turns, candidates, preference pairs, and what was dropped on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from rlhi_plugin.chat import FinishReason
from rlhi_plugin.records import ChatMessage, FollowUpLabel, Persona, Record, UserId
from rlhi_training.pair_rows import fields_of, line_of

Stage = Literal["ingest", "label", "personas", "rewrite", "reward", "contrast", "filter", "pairs", "train"]
PairSource = Literal["rewrite", "reward", "contrast"]
"""``rewrite``: User-Guided Rewrites. ``reward``: User-Based Rewards. ``contrast``: persona contrast, ours."""
CandidateOrigin = Literal["logged", "sample", "guided", "rewrite"]
UNGUIDED = "unguided"
"""`Candidate.guidance` of a rewrite whose writer did not know what the user said (the paper's ablation)."""


class LabelledTurn(Record):
    """One request, its logged answer, and what the user said next."""

    conversation_id: str
    user_id: UserId | None = None
    turn: int = Field(ge=0)
    """0-based count of user messages; the request is this one."""
    context: tuple[ChatMessage, ...] = Field(min_length=1)
    """Everything up to and including the request; the last message is the user's. Holds no injected persona."""
    response: str = Field(min_length=1)
    """The answer as it was logged."""
    follow_up: str | None = None
    """The next user message, or None at the end of the conversation."""
    label: FollowUpLabel | None = None
    """Label of `follow_up`; None exactly when there is none."""
    request_id: str
    response_id: str
    follow_up_id: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.context[-1].role != "user":
            raise ValueError("the context must end with a user message")
        if (self.follow_up is None) != (self.label is None):
            raise ValueError("follow_up and label come together")
        return self

    @property
    def key(self) -> str:
        """Names the turn in files and messages: ``conversation#turn``."""
        return f"{self.conversation_id}#{self.turn}"


class Candidate(Record):
    """One possible answer to one request."""

    conversation_id: str
    turn: int
    text: str = Field(min_length=1)
    origin: CandidateOrigin
    guidance: str | None = None
    """For ``guided``: the name of the text property that was asked for. For ``rewrite``: the follow-up's message id,
    or `UNGUIDED`."""
    finish_reason: FinishReason = "stop"
    model: str
    """What wrote it."""

    @property
    def candidate_id(self) -> str:
        """Content address: equal text for the same turn is the same candidate."""
        return _address(self.conversation_id, self.turn, self.text)


@lru_cache(maxsize=1024)
def _address(conversation_id: str, turn: int, text: str) -> str:
    # Filters, caps and provenance ask for it again and again.
    return hashlib.sha256(f"{conversation_id}#{turn}\0{text}".encode()).hexdigest()[:16]


class ScoredCandidate(Record):
    """A candidate and how well it suits one user's persona."""

    candidate: Candidate
    user_id: UserId | None
    """Whose persona it was scored under; None is the user-agnostic reward."""
    score: float = Field(allow_inf_nan=False)
    """Higher is better. Comparable only between candidates of one turn under one persona and one reward model."""
    reward_model: str


class PersonaBefore(Record):
    """What was known about a user at the moment before one of their conversations began."""

    conversation_id: str
    user_id: UserId | None = None
    persona: Persona | None = None
    why_none: str | None = None
    """``anonymous``, ``time_unknown``, ``no_earlier_history``, ``nothing_said``, ``model_call_failed`` or
    ``personas_off``; None exactly when there is one."""

    @model_validator(mode="after")
    def _persona_or_reason(self) -> Self:
        if (self.persona is None) == (self.why_none is None):
            raise ValueError("there is either a persona or a reason why there is none")
        return self


class ProposedPair(Record):
    """A pair as a stage proposes it, with all that the filters need to judge it."""

    source: PairSource
    conversation_id: str
    turn: int
    persona: Persona | None = None
    """Goes into the prompt; None is a pair without persona."""
    chosen: Candidate
    rejected: Candidate
    margin: float = Field(default=0.0, allow_inf_nan=False)
    asked: tuple[str, ...] = ()
    """Names of the checkable properties that the choice rests on, as read from the user's words; sorted."""

    @property
    def key(self) -> str:
        """Names the proposal: ``conversation#turn/source/user/chosen>rejected``."""
        user = self.persona.user_id if self.persona else "-"
        ids = f"{self.chosen.candidate_id}>{self.rejected.candidate_id}"
        return f"{self.conversation_id}#{self.turn}/{self.source}/{user}/{ids}"


class Provenance(Record):
    """Where a pair comes from, down to the logged messages."""

    conversation_id: str
    turn: int
    request_id: str
    response_id: str
    follow_up_id: str | None = None
    persona_message_ids: tuple[str, ...] = ()
    """The user turns that the persona quotes."""
    chosen_candidate: str
    rejected_candidate: str


class PreferencePair(Record):
    """For one prompt, one answer that this user would rather have than another."""

    source: PairSource
    user_id: UserId | None = None
    """Whose persona the prompt holds; None is a pair without persona."""
    prompt: tuple[ChatMessage, ...] = Field(min_length=1)
    """Persona (system message, where there is one) and context; ends with the user's request."""
    chosen: str = Field(min_length=1)
    rejected: str = Field(min_length=1)
    margin: float = Field(default=0.0, allow_inf_nan=False)
    """Score of chosen minus score of rejected under the pair's reward; 0 where nothing was scored."""
    persona_digest: str | None = None
    provenance: Provenance
    label: FollowUpLabel | None = None
    """What the user's next message was taken for; None where there was none."""
    labeller: str | None = None
    """Name and version of what labelled it."""
    chosen_model: str | None = None
    """What wrote it."""
    rejected_model: str | None = None
    log: str | None = None
    """Format of the log that the request comes from (`Conversation.source`)."""
    language: str | None = None
    """As the log names it."""

    @model_validator(mode="before")
    @classmethod
    def _from_row(cls, data: Any) -> Any:
        """Also accept what `to_json` writes."""
        return fields_of(data) if isinstance(data, Mapping) else data

    @model_validator(mode="after")
    def _is_a_preference(self) -> Self:
        if self.prompt[-1].role != "user":
            raise ValueError("a prompt ends with a user message")
        if self.chosen.strip() == self.rejected.strip():
            raise ValueError("chosen and rejected are the same text")
        return self

    def to_json(self) -> str:
        """One line of JSON in the form that trainers read (`rlhi_training.pair_rows`)."""
        return line_of(self)

    def to_line(self) -> bytes:
        """See `Record.to_line`."""
        return self.to_json().encode()

    @property
    def pair_id(self) -> str:
        """Content address of prompt, chosen and rejected."""
        body = "\0".join([*(f"{m.role}\1{m.content}" for m in self.prompt), self.chosen, self.rejected])
        return hashlib.sha256(body.encode()).hexdigest()[:16]


class Dropped(Record):
    """An item that a stage did not pass on, and why. Nothing leaves the pipeline silently."""

    stage: Stage
    key: str
    """What it was: ``file:line``, ``conversation``, ``conversation#turn`` or a pair id."""
    reason: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """A name from a small vocabulary, countable in the funnel."""
    detail: str = ""
    """What a reader needs to act on it."""
