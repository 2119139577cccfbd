"""The nouns of UserEval: what is asked for, one item, and the frozen manifest that holds ids and no text."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlhi_plugin.errors import ArtefactError, ConfigError
from rlhi_plugin.records import ChatMessage, FollowUpLabel, Record, UserId

Turn = Literal["initial", "follow-up"]

MANIFEST = "manifest.json"
ITEMS = "items.jsonl"
PERSONAS = "personas.jsonl"


class BuildOptions(BaseModel):
    """Who is evaluated, and on what. The paper does not say how it chose; every value is ours."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    min_history: int = Field(default=2, ge=1)
    """Conversations that a user must have had before the evaluated ones."""
    conversations: int = Field(default=2, ge=1)
    """The user's last ones, which are evaluated."""
    min_statements: int = Field(default=1, ge=0)
    """Statements that a persona must hold; 0 keeps users of whom nothing is known."""
    max_turns: int = Field(default=4, ge=1)
    """User messages of a conversation that are evaluated, from its start."""
    max_users: int | None = Field(default=None, ge=2)
    """So many, drawn at random; None is all."""
    max_characters: int = Field(default=12_000, ge=100)
    """Of a request with all that came before it. A longer one is dropped with a reason, never cut."""
    language: str | None = None
    """Only conversations in this language, by its English name; those that do not say are kept. None: all."""
    seed: int = 0


class UserEvalItem(Record):
    """One user message of an evaluated conversation, with what came before and after it."""

    item_id: str
    """``user/00``."""
    user: UserId
    conversation_id: str
    message_id: str
    turn: int = Field(ge=0)
    """0-based count among the conversation's user messages."""
    history: tuple[ChatMessage, ...]
    """What was said before it in the conversation, user and assistant in turn."""
    request: str
    logged_reply: str | None = None
    """What the log's assistant answered."""
    follow_up_id: str | None = None
    follow_up: str | None = None
    """What the user really said to that answer."""
    label: FollowUpLabel | None = None
    """What the labeller made of it."""

    @property
    def group(self) -> Turn:
        """Initial and follow-up turns are reported apart."""
        return "initial" if self.turn == 0 else "follow-up"


class ItemKey(Record):
    """An item without its text."""

    item_id: str
    user: UserId
    conversation_id: str
    message_id: str
    turn: int
    follow_up_id: str | None = None
    label: FollowUpLabel | None = None


class UserKey(Record):
    """A user without their text."""

    history: tuple[str, ...]
    """Conversations that the persona is made from; all of them ended before the first evaluated one began."""
    persona_digest: str


class Manifest(Record):
    """A frozen suite: ids, options and digests. With the same log it gives the same suite again."""

    schema_version: int = 1
    log_digest: str
    """SHA-256 of the log, in hex."""
    options: BuildOptions
    labeller: str
    persona_builder: str
    users: dict[str, UserKey]
    items: tuple[ItemKey, ...]
    dropped_users: dict[str, int]
    """By reason."""
    dropped_items: dict[str, int]
    """By reason, of users who are evaluated."""

    @property
    def digest(self) -> str:
        """SHA-256 of users and items, in hex."""
        body = self.model_dump(mode="json", include={"users", "items"})
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        ConfigError: there is none at `path`.
        ArtefactError: it is damaged.
    """
    try:
        value: Any = json.loads(path.read_text("utf-8"))
        return Manifest.model_validate(value)
    except OSError as error:
        raise ConfigError(f"cannot read the manifest {path}: {error.strerror}. Check the path.") from error
    except (ValueError, ValidationError) as error:
        raise ArtefactError(f"{path} is no manifest of a UserEval suite: {error}. Build the suite again.") from error


def key_of(item: UserEvalItem) -> ItemKey:
    """The item without its text."""
    return ItemKey.model_validate({name: getattr(item, name) for name in ItemKey.model_fields})
