"""Appends with a time limit: the caller stops waiting, the append itself goes on to its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from rlhi_plugin.durability.deadline import DeadlineThreads
from rlhi_plugin.records import Message
from rlhi_plugin.stores import BeginningStore, ConversationStore, SubmittingStore

T = TypeVar("T")


class TimedAppends:
    """Appends to a store, each within its own time limit. Usable from any thread.

    A store that lets its callers stop waiting is asked here; any other one gets a thread for each append in progress.

    Args:
        store: Where to append.
        name: Of the threads.
        may_hang: Whether to trust no store in this thread: its disk may hang, and the journal is on another one.
    """

    def __init__(self, store: ConversationStore, name: str, *, may_hang: bool = False) -> None:
        self._store = store
        self._submits = store if isinstance(store, SubmittingStore) and not may_hang else None
        self.begins = store if isinstance(store, BeginningStore) and not may_hang else None
        """The store, where it can be given what begins a conversation."""
        self._threads = DeadlineThreads(name)

    @property
    def busy(self) -> int:
        """Threads in use, those of appends that were given up included."""
        return self._threads.busy

    def append(self, name: str, user_id: str | None, messages: Sequence[Message], timeout_s: float) -> None:
        """See `ConversationStore.append`.

        Raises:
            StoreTimeoutError: it was not done after `timeout_s` seconds, or too many hang already.
            Exception: whatever else the store raises.
        """
        store = self._store
        if self._submits is not None:
            self._submits.submit(name, user_id=user_id, messages=messages).result(timeout_s)
        else:
            self._threads.call(lambda: store.append(name, user_id=user_id, messages=messages), timeout_s)

    @property
    def reads_in_time(self) -> bool:
        """Whether the store itself keeps a read within a limit, so that no thread has to."""
        return self._submits is not None and bool(getattr(self._store, "reads_in_time", False))

    def call(self, work: Callable[[], T], timeout_s: float) -> T:
        """Anything else that may take long; see `DeadlineThreads.call`."""
        return self._threads.call(work, timeout_s)

    def close(self) -> None:
        """Let idle threads end."""
        self._threads.close()
