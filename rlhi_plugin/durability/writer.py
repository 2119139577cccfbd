"""The writer between an assistant and its store: loses nothing that it acknowledged, and never makes a user wait long.

    turn -> store, within a time limit -> acknowledged
              | raised, or too slow
              v
            journal, fsynced ----------> acknowledged        a thread replays it when the store is back

After a failure the breaker is open: turns go to the journal at once, until a replay succeeds. Turns of a conversation
that waits in the journal go there too, so that none overtakes another. An append that was given up may still happen;
the replay then finds its messages stored already.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress

from rlhi_plugin.durability.appends import TimedAppends
from rlhi_plugin.durability.background import BackgroundReplay
from rlhi_plugin.durability.breaker import Breaker
from rlhi_plugin.durability.journal import Journal
from rlhi_plugin.durability.location import may_outlive
from rlhi_plugin.durability.owned import OwnedAppends
from rlhi_plugin.durability.readmission import Readmission
from rlhi_plugin.durability.seldom import SeldomLog
from rlhi_plugin.durability.status import DurabilityStatus
from rlhi_plugin.durability.turn_file import Write
from rlhi_plugin.durability.writer_options import WriterOptions
from rlhi_plugin.errors import OwnerMismatchError
from rlhi_plugin.records import FeedbackEvent, Message
from rlhi_plugin.stores import ConversationStore

_log = logging.getLogger("rlhi.middleware")

_IDLE_S = 5.0
_IN_PASSING_S = 0.1
"""Seconds for a read from a store that takes no turns: it may answer, and a user waits (ours)."""
_EXIT_S = 10.0


class DurableWriter:
    """Writes turns to a store, else to a journal. Usable from any thread; only its constructor raises.

    Args:
        store: Where turns belong.
        options: See `WriterOptions`.
    """

    def __init__(self, store: ConversationStore, options: WriterOptions) -> None:
        self._store = store
        self._owned = OwnedAppends(store)
        self._options = options
        self._seldom = SeldomLog(_log)
        self._breaker = Breaker(self._seldom)
        self._journal = Journal(options.journal, options.inherits) if options.journal else None
        self._replay: BackgroundReplay | None = None
        if self._journal is not None:
            readmission = Readmission(store, self._owned)
            self._replay = BackgroundReplay(self._journal, readmission, self._breaker, options.store_timeout_s)
        self._dropped = self._journalled = self._refused = 0
        self._start()
        if self._replay is not None:
            self._replay.take_over()
        _writers.add(self)

    def _start(self) -> None:
        """Everything that a forked child needs anew."""
        self._lock = threading.Lock()
        self._appends = TimedAppends(
            self._store, "rlhi-store", may_hang=may_outlive(self._options.journal, self._store)
        )
        self._begins = self._appends.begins if self._options.durability == "sync" else None
        self.may_begin = self._begins is not None
        """Whether `begin` can write anything."""
        self._queue: queue.Queue[Write] = queue.Queue(self._options.queue_size)
        self._queue_thread: threading.Thread | None = None

    def write(self, conversation_id: str, *, user_id: str | None, messages: Sequence[Message]) -> bool:
        """Take one turn.

        Returns:
            Whether it was taken: on disk (``sync``) or in the queue (``async``). Else it is counted as dropped.
        """
        return self._take(Write(conversation_id, user_id, messages))

    def begin(self, conversation_id: str, *, user_id: str | None, messages: Sequence[Message]) -> bool:
        """Write what begins a conversation, without asking the store for its end first.

        Returns:
            Whether it is on disk. False says nothing: ask for the end, and `write`.
        """
        # Somebody else's conversation of this name is one that is there.
        if self._begins is None or self._breaker.is_open or self._owned.has_other_name(conversation_id, user_id):
            return False
        if self._journal is not None and self._journal.holds((conversation_id, user_id)):
            return False
        try:
            submitted = self._begins.submit_new(conversation_id, user_id=user_id, messages=messages)
            begun = submitted.result(self._options.store_timeout_s) > 0
        except Exception as error:  # noqa: BLE001 - whatever the store raises, the turn goes on
            self._breaker.failed(error)
            return False
        self._breaker.succeeded()
        return begun

    def write_feedback(self, event: FeedbackEvent) -> bool:
        """Take one event, on the same way as a turn, and after the turns of its conversation that wait.

        Returns:
            Whether it was taken; False where the store has it already, and for one that is counted as dropped.
        """
        return self._take(Write(event.conversation_id, event.user_id, feedback=event))

    def _take(self, turn: Write) -> bool:
        if self._options.durability == "sync":
            return self._write(turn)
        try:
            self._queue.put_nowait(turn)
        except queue.Full:
            return self._drop(turn, RuntimeError(f"{self._options.queue_size} turns wait for the store already"))
        with self._lock:
            if self._queue_thread is None:
                self._queue_thread = self._thread(self._work_off, "rlhi-queue")
                _writers.add(self)  # it may have been closed, and then the end of the program would not wait for it
        return True

    def last_message_id(self, conversation_id: str, user_id: str | None) -> str | None:
        """What the store holds last of a conversation; None where it cannot say so in time. Never raises."""
        if self._breaker.is_open:
            return self._last_in_passing(conversation_id, user_id)
        limit_s = self._options.store_timeout_s
        try:
            if self._appends.reads_in_time:
                return self._owned.last_message_id(conversation_id, user_id, limit_s)
            return self._appends.call(lambda: self._owned.last_message_id(conversation_id, user_id), limit_s)
        except Exception as error:  # noqa: BLE001 - whatever the store raises, the turn goes on
            self._breaker.failed(error)
            return None

    def _last_in_passing(self, conversation_id: str, user_id: str | None) -> str | None:
        """The same from a store that takes no turns; one whose reads end by themselves may be readable all the same."""
        if not self._appends.reads_in_time:
            return None
        with suppress(Exception):  # that something is wrong with it is known already
            return self._owned.last_message_id(conversation_id, user_id, _IN_PASSING_S)
        return None

    def status(self) -> DurabilityStatus:
        """How it stands."""
        journal, replay = self._journal, self._replay
        return DurabilityStatus(
            mode=self._options.durability,
            queued=self._queue.unfinished_tasks,
            dropped=self._dropped,
            journalled=self._journalled + (replay.found if replay else 0),
            waiting=0 if journal is None else len(journal),
            replayed=replay.replayed if replay else 0,
            refused=self._refused + (replay.refused if replay else 0),
            withheld=replay.withheld if replay else 0,
            torn=replay.torn if replay else 0,
            store_ok=not self._breaker.is_open,
            last_error=self._breaker.last_error,
            journal=None if journal is None else str(journal.folder),
            reading=journal is not None and journal.reading,
        )

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until every queued turn is on disk, in the store or in the journal.

        Returns:
            False when `timeout_s` seconds were not enough.
        """
        ends = None if timeout_s is None else time.monotonic() + timeout_s
        with self._queue.all_tasks_done:
            while self._queue.unfinished_tasks:
                left = None if ends is None else ends - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._queue.all_tasks_done.wait(left)
        return True

    def close(self, timeout_s: float = _EXIT_S) -> bool:
        """Flush, stop replaying, and release the journal to whoever comes next. May be called twice.

        Returns:
            What `flush` says.
        """
        flushed = self.flush(timeout_s)
        if self._replay is not None:
            self._replay.close(min(timeout_s, self._options.store_timeout_s))
        self._appends.close()
        if self._journal is not None and flushed:
            self._journal.close()
        _writers.discard(self)
        return flushed

    def after_fork(self) -> None:
        """In a child process: the parent writes what is queued, and replays its journal."""
        self._breaker = Breaker(self._seldom, self._breaker.last_error)
        self._start()
        if self._journal is not None:
            self._journal.after_fork()
        if self._replay is not None:
            self._replay.start_anew(self._breaker)

    def _write(self, turn: Write) -> bool:
        if self._may_try(turn):
            try:
                taken = self._owned.put(turn, self._appends, self._options.store_timeout_s)
            except OwnerMismatchError as error:
                return self._refuse(turn, error)
            except Exception as error:  # noqa: BLE001 - a store may raise anything, and must not end the turn
                self._breaker.failed(error)
            else:
                self._breaker.succeeded()
                return taken
        return self._to_journal(turn)

    def _may_try(self, turn: Write) -> bool:
        if self._journal is not None and self._journal.holds((turn.conversation_id, turn.user_id)):
            return False
        if not self._breaker.is_open:
            return True
        # Where nothing waits, no replay will find out that the store is back: one turn in a while does.
        return not (self._replay is not None and self._replay.is_running) and self._breaker.may_try()

    def _to_journal(self, turn: Write) -> bool:
        if self._journal is None:
            return self._drop(turn, RuntimeError(f"there is no journal; the store says: {self._breaker.last_error}"))
        try:
            self._journal.append(turn)
        except Exception as error:  # noqa: BLE001 - a full disk, and whatever else may happen
            return self._drop(turn, error)
        with self._lock:
            self._journalled += 1
        if self._replay is not None:
            self._replay.soon()
        return True

    def _refuse(self, turn: Write, error: Exception) -> bool:
        if self._journal is None:
            return self._drop(turn, error)
        try:
            self._journal.refuse(self._journal.append(turn), str(error))
        except Exception as problem:  # noqa: BLE001 - as above
            return self._drop(turn, problem)
        with self._lock:
            self._refused += 1
            self._breaker.last_error = str(error)
        self._seldom.log(logging.ERROR, "a turn was refused and set aside in %s: %s", self._journal.folder, error)
        return True

    def _drop(self, turn: Write, error: Exception) -> bool:
        with self._lock:
            self._dropped += turn.size
            self._breaker.note(error)
        self._seldom.log(logging.ERROR, "%d message(s) or event(s) could not be stored", turn.size, error=error)
        return False

    def _thread(self, work: object, name: str) -> threading.Thread | None:
        thread = threading.Thread(target=work, name=name, daemon=True)  # type: ignore[arg-type]
        try:
            thread.start()
        except RuntimeError:  # the interpreter is shutting down; the next process replays
            return None
        return thread

    def _work_off(self) -> None:
        while True:
            try:
                turn = self._queue.get(timeout=_IDLE_S)
            except queue.Empty:
                with self._lock:
                    if self._queue.empty():
                        self._queue_thread = None
                        return
                continue
            try:
                self._write(turn)
            finally:
                self._queue.task_done()


_writers: weakref.WeakSet[DurableWriter] = weakref.WeakSet()


def _at_exit() -> None:
    for writer in list(_writers):
        if not writer.close():
            _log.error("%d turn(s) in memory were not written before the program ended", writer.status().queued)


def _in_child() -> None:
    for writer in list(_writers):
        writer.after_fork()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
