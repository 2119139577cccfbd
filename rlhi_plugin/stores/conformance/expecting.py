"""How a check says that a store does not hold."""

from __future__ import annotations

from rlhi_plugin.records import Message


class ConformanceError(AssertionError):
    """A store does not do what its protocol says."""


def expect(holds: bool, otherwise: str) -> None:
    """Raise where something does not hold.

    Raises:
        ConformanceError: with `otherwise` as its message.
    """
    if not holds:
        raise ConformanceError(otherwise)


def talk(*contents: str, prefix: str = "m") -> list[Message]:
    """Messages of a user and an assistant in turns, without times."""
    roles = ("user", "assistant")
    return [Message(id=f"{prefix}{i}", role=roles[i % 2], content=text) for i, text in enumerate(contents)]
