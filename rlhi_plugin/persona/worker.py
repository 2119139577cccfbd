"""Personas kept up to date in the app's own process, by one thread that nobody waits for.

`PersonaWorker.notice` costs a dictionary entry. A user is due when a thread of theirs has ended (they began another),
after so many new turns, or when they have been quiet for a while; however many turns that were, they are one update.
What the worker cannot do is logged and counted, and never reaches the assistant.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.persona.job import update_stored
from rlhi_plugin.persona.updater import PersonaUpdater
from rlhi_plugin.stores import ConversationStore, PersonaStore

_log = logging.getLogger("rlhi.persona")


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerOptions:
    """When a persona is updated.

    Attributes:
        after_turns: New turns of a user, at least 1.
        idle_s: Seconds without a turn of that user, above 0.
        max_waiting: Users whose turns are remembered, at least 1; of more, the one who spoke longest ago is left to
            their next turn.

    Raises:
        ConfigError: one of them is out of range.
    """

    after_turns: int = 8
    idle_s: float = 120.0
    max_waiting: int = 10_000

    def __post_init__(self) -> None:
        if self.after_turns < 1 or not self.idle_s > 0 or self.max_waiting < 1:
            raise ConfigError(
                f"after_turns={self.after_turns}, idle_s={self.idle_s}, max_waiting={self.max_waiting}: one of them is "
                "out of range. Give at least 1 turn, more than 0 seconds, and at least 1 user."
            )


@dataclass(frozen=True, slots=True)
class WorkerCounts:
    """What a worker has done since it was made.

    Attributes:
        updated: Updates that went through, also those that found nothing new.
        failed: Updates that did not; the user's next turn tries again.
        skipped: Users who were pushed out of the waiting list.
        refused: Users who, when their turn came, did not allow to be personalised.
        waiting: Users with turns that no update has read yet.
    """

    updated: int
    failed: int
    skipped: int
    refused: int
    waiting: int


@dataclass(slots=True)
class _Waiting:
    conversation_id: str
    turns: int
    last_turn: float
    """Seconds of the monotonic clock."""
    due: bool


class PersonaWorker:
    """Updates personas in a thread of its own. Thread-safe.

    Args:
        store: Where conversations are.
        updater: Makes the next persona.
        personas: Where personas are; `store` unless given.
        options: When.
        allows: Whether a user, by pseudonym, may be personalised; asked before each update, and before what it made is
            stored.
        updated: Told the pseudonym of each user after their update.

    Raises:
        ConfigError: `store` keeps no personas and `personas` was not given.
    """

    def __init__(
        self,
        store: ConversationStore,
        updater: PersonaUpdater,
        *,
        personas: PersonaStore | None = None,
        options: WorkerOptions | None = None,
        allows: Callable[[str], bool] = lambda _: True,
        updated: Callable[[str], object] = lambda _: None,
    ) -> None:
        kept = store if personas is None else personas
        if not isinstance(kept, PersonaStore):
            raise ConfigError(f"{type(kept).__name__} keeps no personas. Pass personas=, a store that does.")
        self._store, self._personas, self._updater = store, kept, updater
        self._options = options or WorkerOptions()
        self._allows, self._tell = allows, updated
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()
        self._wake = threading.Condition()
        self._closing = False
        self._busy = False
        self._updated = self._failed = self._skipped = self._refused = 0
        self._thread: threading.Thread | None = None

    @property
    def counts(self) -> WorkerCounts:
        """What has been done so far."""
        with self._wake:
            return WorkerCounts(self._updated, self._failed, self._skipped, self._refused, len(self._waiting))

    def notice(self, user_id: str, conversation_id: str) -> None:
        """A turn of this user was logged. Returns at once; starts the thread at the first call."""
        now = time.monotonic()
        with self._wake:
            if self._closing:
                return
            known = self._waiting.get(user_id)
            if known is None:
                known = self._waiting[user_id] = _Waiting(conversation_id, 0, now, due=False)
            known.turns += 1
            known.last_turn = now
            # The first turn of a new thread: the one before has ended.
            known.due = known.due or known.conversation_id != conversation_id
            known.due = known.due or known.turns >= self._options.after_turns
            known.conversation_id = conversation_id
            self._waiting.move_to_end(user_id)
            if len(self._waiting) > self._options.max_waiting:
                self._waiting.popitem(last=False)
                self._skipped += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="rlhi-personas", daemon=True)
                self._thread.start()
            if known.due or len(self._waiting) == 1:
                self._wake.notify_all()

    def drain(self, timeout_s: float = 60.0) -> bool:
        """Update everybody who waits, now, and wait for it.

        Returns:
            Whether all were done in time.
        """
        with self._wake:
            for waiting in self._waiting.values():
                waiting.due = True
            self._wake.notify_all()
            return self._wake.wait_for(lambda: not self._waiting and not self._busy, timeout_s)

    def close(self, timeout_s: float = 10.0) -> None:
        """Finish the update in progress and stop; those who wait are left to the next job. May be called twice."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s)

    def _run(self) -> None:
        while (user_id := self._next()) is not None:
            refused = failed = False
            try:
                refused = not self._allows(user_id)
                if not refused:
                    update = update_stored(self._store, self._personas, user_id, self._updater, allows=self._allows)
                    refused = asyncio.run(update) is None
                if not refused:
                    self._tell(user_id)
            except Exception:  # noqa: BLE001 - a worker that dies of one user serves none of the others
                _log.exception("the persona of %s could not be updated; their next turn tries again", user_id)
                failed = True
            with self._wake:
                self._failed += failed
                self._refused += refused
                self._updated += not (failed or refused)
                self._busy = False
                self._wake.notify_all()

    def _next(self) -> str | None:
        """The user to update next, once there is one; None at the end."""
        with self._wake:
            while not self._closing:
                now, idle = time.monotonic(), self._options.idle_s
                for user_id, waiting in self._waiting.items():
                    if waiting.due or now - waiting.last_turn >= idle:
                        del self._waiting[user_id]
                        self._busy = True
                        return user_id
                first = next(iter(self._waiting.values()), None)
                # Sorted by last turn: whoever comes first is idle first.
                self._wake.wait(None if first is None else max(0.001, first.last_turn + idle - now))
            return None
