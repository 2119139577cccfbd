"""Fields of foreign rows, checked: each function gives what it promises or raises a ValueError that names the field."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from rlhi_plugin.identity import pseudonym
from rlhi_plugin.importers.row import Value
from rlhi_plugin.records import Message, UserId

_MILLISECONDS_FROM = 1e11
"""An epoch number from here on (the year 5138 in seconds) counts milliseconds."""


def name_in(row: Value, *names: str) -> str | None:
    """The first of these fields that holds an identifier: a text that is not empty, or a whole number."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
    return None


def required(row: Value, *names: str) -> str:
    """As `name_in`; the row is of no use without it."""
    found = name_in(row, *names)
    if found is None:
        raise ValueError(f"{' or '.join(names)} is missing")
    return found


def parent_in(row: Value, name: str) -> str | None:
    """The id of what this row follows; None is the beginning."""
    value = row.get(name)
    found = name_in(row, name)
    if found is None and value is not None and value != "":
        raise ValueError(f"{name} is {value!r}, not an id")
    return found


def text_in(row: Value, name: str) -> str:
    """A text, empty or not."""
    value = row.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} is missing" if value is None else f"{name} is not a text")  # noqa: TRY004 - one kind
    return value


def mapping_in(row: Value, name: str) -> Value:
    """An object, written out or as JSON text (as tables hold it); an absent one is empty."""
    value = unpacked(row.get(name))
    return value if isinstance(value, Mapping) else {}


def rows_in(row: Value, name: str) -> list[Value]:
    """A list of objects, written out or as JSON text."""
    value = unpacked(row.get(name))
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise ValueError(f"{name} is not a list of messages")
    return value


def unpacked(value: object) -> Any:
    """What a text that is a JSON object or array stands for; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def count_in(row: Value, *names: str) -> int | None:
    """The first of these fields that holds a number of things, as a number or as digits."""
    for name in names:
        value = row.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
            return int(value)
        if isinstance(value, str) and value.isdecimal():
            return int(value)
    return None


def user_in(source: str, name: str | None) -> UserId | None:
    """The keyed pseudonym of a foreign user, other than that of an equal name in another source; None is anonymous."""
    return pseudonym(f"{source}\0{name}") if name else None


def time_of(value: object) -> datetime | None:
    """Aware time, in UTC where the log names no zone.

    Args:
        value: ISO 8601 text, seconds or milliseconds since 1970 (as a number or as digits), or a `datetime`. None and
            empty text are a time that the log does not give.

    Raises:
        ValueError: it is something else.
    """
    if value is None or value == "":
        return None
    if type(value) is str:
        return _time_of_text(value)
    return _time_of(value)


@lru_cache(maxsize=64)
def _time_of_text(value: str) -> datetime:
    # Request and answer have the same one in many logs.
    return _time_of(value)


def _time_of(value: object) -> datetime:
    try:
        time = _read_time(value)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"the timestamp {value!r} cannot be read: {error}") from error
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _read_time(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            # Tables hold numbers as text.
            return _from_epoch(float(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _from_epoch(value)
    raise ValueError("neither ISO 8601 nor seconds since 1970")


def _from_epoch(value: float) -> datetime:
    return datetime.fromtimestamp(value / 1000 if abs(value) >= _MILLISECONDS_FROM else value, UTC)


def thread_id(source: str, name: str, user: UserId | None) -> str:
    """An id for a conversation that an app gave a name: not that of an equal name elsewhere, or of another user."""
    return f"{source}:{name}" if user is None else f"{source}:{name}@{user}"


def content_id(source: str, name: str | None, user: str | None, messages: Sequence[Message]) -> str:
    """An id for a conversation whose format gives none that is unique: what was said, and by whom.

    The same conversation read twice has the same id; two rows that share a name only by accident stay two.
    """
    body = json.dumps([user, [[m.role, m.content] for m in messages]])
    parts = [source, *([name[:200]] if name else []), hashlib.sha256(body.encode()).hexdigest()[:24]]
    return ":".join(parts)


def check_asked(messages: Sequence[Message]) -> None:
    """Refuse a conversation in which no user says anything."""
    if not any(message.role == "user" and message.content.strip() for message in messages):
        raise ValueError("there is no user message")
