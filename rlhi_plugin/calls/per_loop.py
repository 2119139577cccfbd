"""One object per event loop, for those that belong to the loop in which they are first used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

_T = TypeVar("_T")


class PerLoop(Generic[_T]):
    """Makes an object for each event loop: one client then serves an app's loop and a command's several ones.

    Args:
        make: Makes the object; called inside the loop.
    """

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._made: WeakKeyDictionary[asyncio.AbstractEventLoop, _T] = WeakKeyDictionary()

    def get(self) -> _T:
        """The running loop's object."""
        loop = asyncio.get_running_loop()
        if loop not in self._made:
            self._made[loop] = self._make()
        return self._made[loop]

    def pop(self) -> _T | None:
        """The running loop's object, which is then forgotten; None where there is none."""
        return self._made.pop(asyncio.get_running_loop(), None)
