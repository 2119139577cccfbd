"""The call journal: every model call is on disk before it is made and after it is answered.

An SQLite file in WAL mode. SQLite and not an appended text file, because a run of a million calls must find one answer
by its digest without reading the others, a torn write at a power cut is undone by its own recovery, and anybody can
query it: ``sqlite3 calls.db "select purpose, count(*), sum(cost_usd) from answers group by 1"``. ``synchronous=FULL``
makes an acknowledged answer outlive a power cut; what waits at one moment shares one commit, so that this costs one
flush and not one flush a call.

An attempt without an outcome was begun by a process that ended in the middle. It may have been paid for, and is asked
again: it is counted as possibly paid twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pydantic import TypeAdapter

from rlhi_plugin.chat import ChatReply, ChatRequest
from rlhi_plugin.errors import ArtefactError

Outcome = Literal["answered", "refused", "unknown", "interrupted"]
"""``refused``: the provider said that it had not done the work; ``unknown``: it said nothing, or not all of it;
``interrupted``: our own process ended first."""

SCHEMA_VERSION = 1
_SCHEMA = """
create table if not exists answers (
    digest text primary key, model text not null, purpose text not null, replies text not null,
    prompt_tokens integer not null, completion_tokens integer not null, cost_usd real, finished_at text not null
);
create table if not exists attempts (
    id integer primary key, digest text not null, model text not null, purpose text not null,
    remote integer not null, begun_at text not null, outcome text, detail text
);
create index if not exists attempts_by_digest on attempts (digest);
"""
_MOST_AT_ONCE = 1_000
_NO_ROOM_OR_RIGHTS = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN")
_REPLIES = TypeAdapter(tuple[ChatReply, ...])

_Work = Callable[[sqlite3.Connection], Any]


@dataclass(frozen=True, slots=True)
class Usage:
    """What one purpose has asked of one model.

    Attributes:
        purpose: The stage, or what else the caller named.
        model: The model.
        answered: Calls that were answered.
        attempts: Times that a call was sent; more than `answered` where some failed.
        prompt_tokens: Of the answered calls.
        completion_tokens: Of the answered calls.
        cost_usd: Of the answered calls; None where a price is not known.
        maybe_twice: Attempts that nobody knows the end of, at calls that were answered another time.
    """

    purpose: str
    model: str
    answered: int
    attempts: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    maybe_twice: int


def call_digest(model: str, request: ChatRequest) -> str:
    """SHA-256 over the model and everything in the request: what the answer depends on, and nothing else."""
    body = {"model": model, **request.model_dump(mode="json", exclude_none=True)}
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode(errors="replace")).hexdigest()


class CallJournal:
    """One journal file, open. A context manager. Safe for many tasks and threads, and for several processes.

    Args:
        path: Made when absent.

    Raises:
        ArtefactError: the file cannot be opened, is no journal, or is of a later version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.purpose = ""
        """Recorded with each call from now on: a run's stages set it."""
        self.resumed = 0
        """Attempts that an earlier process left in the middle."""
        self._queue: queue.SimpleQueue[tuple[_Work, Future[Any]] | None] = queue.SimpleQueue()
        self._flying: set[asyncio.Task[Any]] = set()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._reader = self._connect()
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            name = getattr(error, "sqlite_errorname", "")
            place = isinstance(error, OSError) or name.startswith(_NO_ROOM_OR_RIGHTS)
            raise ArtefactError(
                f"{path} cannot be used as a call journal: {error}. "
                + (
                    "Make room or rights there, and run the same command again."
                    if place
                    else "Move it away to begin a new one; what it holds is then asked, and paid, again."
                )
            ) from error
        self._thread = threading.Thread(target=self._serve, name="rlhi-call-journal", daemon=True)
        self._thread.start()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=30.0, isolation_level=None, check_same_thread=False)
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=full")
        return connection

    def _prepare(self) -> None:
        (version,) = self._reader.execute("pragma user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"it was written by a later version ({version})")
        self._reader.executescript(_SCHEMA)
        self._reader.execute(f"pragma user_version={SCHEMA_VERSION}")
        self.resumed = self._reader.execute(
            "update attempts set outcome = 'interrupted' where outcome is null"
        ).rowcount

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what waits, and close the file."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        self._reader.close()

    def replies(self, digest: str) -> tuple[ChatReply, ...] | None:
        """The answer to a call; None where it has none yet."""
        row = self._reader.execute("select replies from answers where digest = ?", (digest,)).fetchone()
        return None if row is None else _REPLIES.validate_json(row[0])

    async def begin(self, digest: str, model: str, *, remote: bool) -> int:
        """Write that a call is about to be sent; the attempt's number, when that is on disk."""
        row = (digest, model, self.purpose, remote, _now())
        insert = "insert into attempts (digest, model, purpose, remote, begun_at) values (?, ?, ?, ?, ?)"
        number: int = await self._write(lambda db: db.execute(insert, row).lastrowid)
        return number

    async def answered(self, attempt: int, digest: str, model: str, replies: Sequence[ChatReply]) -> None:
        """Write an answer; it is on disk when this returns."""
        costs = [reply.cost_usd for reply in replies if reply.cost_usd is not None]
        row = (
            digest,
            model,
            self.purpose,
            _REPLIES.dump_json(tuple(replies), exclude_defaults=True).decode(),
            sum(reply.prompt_tokens for reply in replies),
            sum(reply.completion_tokens for reply in replies),
            sum(costs) if costs else None,
            _now(),
        )

        def write(db: sqlite3.Connection) -> None:
            db.execute("insert or replace into answers values (?, ?, ?, ?, ?, ?, ?, ?)", row)
            db.execute("update attempts set outcome = 'answered' where id = ?", (attempt,))

        await self._write(write)

    async def failed(self, attempt: int, outcome: Outcome, detail: str) -> None:
        """Write that an attempt has failed."""
        update = "update attempts set outcome = ?, detail = ? where id = ?"
        await self._write(lambda db: db.execute(update, (outcome, detail[:500], attempt)))

    def usage(self) -> list[Usage]:
        """What was asked so far, by purpose and model, in order of first use."""
        rows = self._reader.execute(
            """
            select a.purpose, a.model, count(distinct a.digest), min(a.id),
                sum(a.outcome in ('unknown', 'interrupted') and a.remote and w.digest is not null), count(*)
            from attempts a left join answers w on w.digest = a.digest group by 1, 2 order by 4
            """
        ).fetchall()
        done = {
            (purpose, model): rest
            for purpose, model, *rest in self._reader.execute(
                "select purpose, model, count(*), sum(prompt_tokens), sum(completion_tokens), sum(cost_usd)"
                " from answers group by 1, 2"
            )
        }
        return [
            Usage(purpose, model, answered, attempts, prompt, completion, cost, twice or 0)
            for purpose, model, _, _, twice, attempts in rows
            for answered, prompt, completion, cost in [done.get((purpose, model), (0, 0, 0, None))]
        ]

    def spent(self) -> tuple[float, int]:
        """US dollars of all answered calls whose price is known, and the number of calls that were sent."""
        (cost,) = self._reader.execute("select coalesce(sum(cost_usd), 0) from answers").fetchone()
        (calls,) = self._reader.execute("select count(*) from attempts where remote").fetchone()
        return float(cost), int(calls)

    # Calls in flight: cancelling who waits for one does not cancel the call, which is paid for.

    def fly(self, task: asyncio.Task[Any]) -> None:
        """Remember a call in flight, for `land`."""
        self._flying.add(task)
        task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[Any]) -> None:
        self._flying.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has it, or has gone

    @property
    def in_flight(self) -> int:
        """Calls that were sent and not answered yet."""
        return len(self._flying)

    async def land(self) -> None:
        """Wait until every call in flight has ended and is written."""
        while self._flying:
            await asyncio.wait(self._flying)

    # Writing: one thread, and one commit for all that waits.

    async def _write(self, work: _Work) -> Any:
        future: Future[Any] = Future()
        self._queue.put((work, future))
        return await asyncio.wrap_future(future)

    def _serve(self) -> None:
        with closing(self._connect()) as db:
            while (first := self._queue.get()) is not None:
                batch, last = self._waiting(first)
                _commit(db, batch, self.path)
                if last:
                    return

    def _waiting(self, first: tuple[_Work, Future[Any]]) -> tuple[list[tuple[_Work, Future[Any]]], bool]:
        """Everything that waits, and whether it is the last."""
        batch = [first]
        while len(batch) < _MOST_AT_ONCE:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
            if item is None:
                return batch, True
            batch.append(item)
        return batch, False


def _commit(db: sqlite3.Connection, batch: Sequence[tuple[_Work, Future[Any]]], path: Path) -> None:
    # A caller that has gone does not change what is written.
    waiting = [(work, future, future.set_running_or_notify_cancel()) for work, future in batch]
    try:
        db.execute("begin immediate")
        results = [work(db) for work, _, _ in waiting]
        db.execute("commit")
    except sqlite3.Error as error:
        if db.in_transaction:
            db.execute("rollback")
        failure = ArtefactError(f"{path} cannot be written: {error}. Make room on the disk and run again.")
        for _, future, wanted in waiting:
            if wanted:
                future.set_exception(failure)
        return
    for (_, future, wanted), result in zip(waiting, results, strict=True):
        if wanted:
            future.set_result(result)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
