"""Conversations that their users want nothing to be learned from: kept as a log, and used for nothing else.

An exclusion is a feedback event of the kind ``do_not_learn`` about a thread. So it is kept wherever feedback is, for
anonymous threads too, and before the first word of a thread is logged; it does not go when it is old. An export holds
it in the place of the conversation: whoever imports the file or trains on it knows.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, cast

from pydantic import ValidationError

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.privacy.mentions import mentions
from rlhi_plugin.records import SCHEMA_VERSION, Conversation, FeedbackEvent, FeedbackKind
from rlhi_plugin.stores import FeedbackStore

_MARK = b'"do_not_learn"'


def exclusion(conversation_id: str, user_id: str | None, at: datetime) -> FeedbackEvent:
    """The event that keeps a thread out. Of two for one thread and user, a store keeps the first.

    Args:
        conversation_id: The thread, under the name that the app gives it.
        user_id: Pseudonym; None for an anonymous thread.
        at: When the user said so.
    """
    return FeedbackEvent(
        event_id=f"do-not-learn@{_owner(user_id)}",
        conversation_id=conversation_id,
        user_id=user_id,
        kind=FeedbackKind.DO_NOT_LEARN,
        created_at=at,
    )


class Exclusions:
    """Knows which conversations are to stay out.

    Args:
        events: Feedback of any kind.
    """

    def __init__(self, events: Iterable[FeedbackEvent]) -> None:
        self._events = {
            (name, event.user_id): event
            for event in events
            if event.kind is FeedbackKind.DO_NOT_LEARN
            # Where a thread's name was taken, the recorder has stored it as ``thread@owner``.
            for name in (event.conversation_id, f"{event.conversation_id}@{_owner(event.user_id)}")
        }

    def __bool__(self) -> bool:
        return bool(self._events)

    @property
    def conversations(self) -> frozenset[tuple[str, str | None]]:
        """Names of the conversations that stay out, each with its owner."""
        return frozenset(self._events)

    def of(self, conversation: Conversation | FeedbackEvent) -> FeedbackEvent | None:
        """The event that keeps a conversation, or feedback on it, out; None where nothing does.

        Nobody keeps out what is another's.
        """
        return self._events.get((conversation.conversation_id, conversation.user_id))


NO_EXCLUSIONS = Exclusions(())


def exclusions_in(store: object, *, user_id: str | None = None) -> Exclusions:
    """What a store knows; nothing where it keeps no feedback.

    Args:
        store: Any conversation store.
        user_id: Only this user's.

    Raises:
        StoreError: the store cannot be read.
    """
    return Exclusions(store.feedback(user_id=user_id) if isinstance(store, FeedbackStore) else ())


def without_excluded(
    conversations: Iterable[Conversation],
    exclusions: Exclusions,
    *,
    left_out: Callable[[Conversation, FeedbackEvent], object],
) -> Iterator[Conversation]:
    """The conversations that may be learned from.

    Args:
        conversations: Of any users.
        exclusions: What stays out.
        left_out: Told each conversation that is not among them, and why.
    """
    for conversation in conversations:
        event = exclusions.of(conversation)
        if event is None:
            yield conversation
        else:
            left_out(conversation, event)


def read_exclusions(path: str | Path) -> Exclusions:
    """The exclusions in an export, wherever in it they stand.

    Args:
        path: ``.jsonl`` or ``.jsonl.gz``, or a folder of them; a file of another form holds none, and is not opened.

    Raises:
        ConfigError: the log cannot be read, or an exclusion is damaged: to go on would use what must not be used.
    """
    log = Path(path)
    files = sorted(file for file in log.rglob("*") if file.is_file()) if log.is_dir() else [log]
    return Exclusions(event for file in files if ".jsonl" in file.suffixes for event in _events(file))


def _events(file: Path) -> Iterator[FeedbackEvent]:
    number = 0
    try:
        if file.suffix != ".gz" and not mentions(file, _MARK):
            return
        with cast("BinaryIO", (gzip.open if file.suffix == ".gz" else open)(file, "rb")) as stream:
            for number, line in enumerate(stream, start=1):  # noqa: B007 - the error below names it
                if _MARK in line and (event := _event(line)) is not None:
                    yield event
    except ValueError as error:
        raise ConfigError(f"{file}:{number}: the exclusion is damaged: {error}. Export the log again.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile):
        # Whoever reads the conversations meets the same damage, names it, and gets nothing from behind it either.
        return
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}. Give the path of a log.") from error


def _event(line: bytes) -> FeedbackEvent | None:
    """The event in a line that names the kind; None where it only talks about it, or is no JSON at all."""
    try:
        row = json.loads(line)
    except ValueError:
        if line.lstrip().startswith((f'{{"schema":{SCHEMA_VERSION},"event_id"'.encode(), b'{"event_id"')):
            raise
        return None
    if not isinstance(row, dict) or row.get("kind") != FeedbackKind.DO_NOT_LEARN or "event_id" not in row:
        return None
    row.pop("schema", None)
    try:
        return FeedbackEvent.model_validate(row)
    except ValidationError as error:
        raise ValueError(str(error)) from error


def _owner(user_id: str | None) -> str:
    """How the owner is written where a thread's name was taken (`rlhi_plugin.durability.owned`)."""
    return user_id or "anonymous"
