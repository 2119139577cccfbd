"""Who is speaking, in which thread: from an explicit `turn`, or from what a call carries along."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import UUID

USER_KEYS = ("user_id",)
"""Keys of metadata that name the user."""
THREAD_KEYS = ("thread_id", "session_id", "conversation_id")
"""Keys of metadata that name the thread, the first one that is there."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """Where one call belongs.

    Attributes:
        user_id: The app's own user id as it was found, not yet checked, not yet a pseudonym; None is anonymous.
        thread_id: The app's thread as it was found; None where the call names none.
    """

    user_id: object = None
    thread_id: object = None

    def otherwise(self, other: Speaker) -> Speaker:
        """This speaker, with what it lacks taken from `other`."""
        return Speaker(
            other.user_id if self.user_id is None else self.user_id,
            other.thread_id if self.thread_id is None else self.thread_id,
        )


_NOBODY = Speaker()
_current: ContextVar[Speaker] = ContextVar("rlhi_speaker", default=_NOBODY)


@contextmanager
def turn(*, user_id: str | int | UUID | None = None, thread_id: str | int | UUID | None = None) -> Iterator[Speaker]:
    """Say who is speaking in the calls inside, in this thread or task. It wins over what the calls themselves say.

    Turns may be nested: the inner one keeps what it does not name.

    Args:
        user_id: The app's own user id. What cannot be one is logged as an error, and the user is anonymous.
        thread_id: The app's thread.
    """
    speaker = Speaker(_given(user_id), _given(thread_id)).otherwise(_current.get())
    token = _current.set(speaker)
    try:
        yield speaker
    finally:
        _current.reset(token)


def current_speaker() -> Speaker:
    """What the `turn` around this call says; empty where there is none."""
    return _current.get()


def speaker_from(*sources: Mapping[str, Any] | None) -> Speaker:
    """The speaker that metadata names; earlier sources win, for the user and the thread each on its own."""
    return Speaker(_first(sources, USER_KEYS), _first(sources, THREAD_KEYS))


def as_id(value: object) -> str | None:
    """The text of a user or thread id; None where there is none.

    Raises:
        TypeError: `value` cannot be an id. True is an int, and as an id always a mistake.
    """
    if _given(value) is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | UUID):
        raise TypeError(f"an id is a str, an int or a UUID, not {type(value).__name__}")
    return str(value)


def _given(value: object) -> object:
    return None if value == "" else value


def _first(sources: tuple[Mapping[str, Any] | None, ...], keys: tuple[str, ...]) -> object:
    found = (_given(source.get(key)) for source in sources if source for key in keys)
    return next((value for value in found if value is not None), None)
