"""What a store may do besides its protocols, faster than by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def shortcut(store: object, method: str, faster: str) -> Callable[..., Any] | None:
    """The faster way to do what a method of a store does; None where it has none.

    The two must come from one place: where a class, or an object, of somebody's own says otherwise what the method
    does, the faster way of the class that it is made from is not taken.

    Args:
        store: Of any kind.
        method: As a protocol names it.
        faster: The other one's name.
    """
    for place in (store, *type(store).__mro__):
        own = getattr(place, "__dict__", {})
        if method in own or faster in own:
            found: Callable[..., Any] | None = getattr(store, faster) if method in own and faster in own else None
            return found
    return None


def reads_in_time(store: object) -> bool:
    """Whether the methods of a store that end in ``_within`` keep a limit in seconds by themselves: a file does."""
    return bool(getattr(store, "reads_in_time", False))
