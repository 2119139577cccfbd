"""The program of a process of its own: conversations from an SQLite file into a Parquet file, row by row in C alone.

The Arrow driver brings an SQLite of its own. Two of them in one process undo each other's locks on a file: POSIX frees
all of a process's locks when it closes any handle to that file. So this runs beside the process that has the store
open, where to the file it is one more reader. It imports nothing of ours, to be there soon.

It reads a job as JSON from its input and answers in lines of JSON: ``ready``, then after each part how many
conversations were looked at and left out, then ``done``. Or one of ``read``, ``write``, ``forgotten``: why it stopped.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from queue import SimpleQueue
from typing import Any

for _heavy in ("numpy", "pandas"):
    # pyarrow needs none of them, but imports what it finds, which takes longer than to read 50,000 turns.
    sys.modules[_heavy] = None  # type: ignore[assignment] # this is how Python is told that there is none

import adbc_driver_manager  # noqa: E402 - see above
import adbc_driver_sqlite  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.compute as pc  # noqa: E402
from pyarrow import parquet  # noqa: E402

_MAPPED_BYTES = 1 << 40
"""The file is read where the system has it in memory, without a copy."""
_LOCK_WAIT_MS = 1_000
"""How long to wait until nobody writes; in vain, one thread reads alone (ours)."""

Keys = tuple[int, int]
"""Of conversations: the first and the last one."""
Query = Callable[[Keys], str]


class _StoppedError(Exception):
    """Why there is no export: `args` are what failed and how."""


class Database:
    """A connection to the SQLite file of a job, which is only read.

    Args:
        job: See `main`.
        stack: Closes it.
        lock_wait_ms: How long another process's lock is waited for.
        locks: Whether it may take the lock of a writer.
    """

    def __init__(self, job: dict[str, Any], stack: ExitStack, lock_wait_ms: int, *, locks: bool = False) -> None:
        database = stack.enter_context(adbc_driver_sqlite.connect(job["database"]))
        self._connection = stack.enter_context(adbc_driver_manager.AdbcConnection(database))
        self._at_once = {adbc_driver_sqlite.StatementOptions.BATCH_ROWS.value: str(job["rows_per_read"])}
        for pragma in (f"busy_timeout={lock_wait_ms}", f"query_only={not locks}", f"mmap_size={_MAPPED_BYTES}"):
            self.table(f"PRAGMA {pragma}")

    def hold(self) -> None:
        """From here on, read the state of the file as it is now, and no later one."""
        self._connection.set_autocommit(enabled=False)
        # The first read is what fixes it.
        self.table("SELECT count(*) FROM sqlite_schema")

    def table(self, query: str) -> Any:
        """What a query selects."""
        with self._reader(query) as reader:
            return reader.read_all()

    def rows(self, query: str) -> Generator[Any]:
        """Batches of what it selects but for the first row, which tells the driver the columns' types."""
        with self._reader(query) as reader:
            yield reader.read_next_batch().slice(1)
            yield from reader

    @contextmanager
    def _reader(self, query: str) -> Iterator[Any]:
        with adbc_driver_manager.AdbcStatement(self._connection) as statement:
            statement.set_options(**self._at_once)
            statement.set_sql_query(query)
            stream, _ = statement.execute_query()
            with pa.RecordBatchReader.from_stream(stream) as reader:
                yield reader


def _databases(job: dict[str, Any], stack: ExitStack) -> list[Database]:
    """Connections for as many threads, which shall all see one state of the file."""
    wait_ms, count = job["busy_timeout_ms"], job["readers"]
    with ExitStack() as meanwhile:
        if count > 1:
            try:
                lock = Database(job, meanwhile, _LOCK_WAIT_MS, locks=True)
                lock.table("BEGIN IMMEDIATE")
            except adbc_driver_manager.Error:
                count = 1
        databases = [Database(job, stack, wait_ms) for _ in range(count)]
        for database in databases:
            database.hold()
    return databases


class Conversations:
    """Conversations with their messages, in the order of their keys, read by several threads.

    Args:
        job: See `main`.
        schema: Of a row.
        stack: Closes the files.
    """

    def __init__(self, job: dict[str, Any], schema: Any, stack: ExitStack) -> None:
        self._heads: Query = lambda keys: _between(job["heads"], keys)
        self._messages: Query = lambda keys: _between(job["messages"], keys)
        self._schema = schema
        self._messages_at_once, self._bytes_at_once = job["messages_at_once"], job["bytes_at_once"]
        self._free: SimpleQueue[Database] = SimpleQueue()
        databases = _databases(job, stack)
        self._readers = len(databases)
        for database in databases:
            self._free.put(database)
        (self._extent,) = databases[0].table(job["extent"]).to_pylist()

    def tables(self) -> Generator[Any]:
        """Some thousand messages at a time, a row for each conversation."""
        with ThreadPoolExecutor(self._readers) as pool:
            waiting: deque[tuple[Keys, Future[Any]]] = deque()
            stretches = self._stretches()
            try:
                while True:
                    while len(waiting) <= self._readers and (keys := next(stretches, None)) is not None:
                        waiting.append((keys, pool.submit(self._read, keys)))
                    if not waiting:
                        return
                    (first, last), found = waiting.popleft()
                    if (table := found.result()) is not None:
                        yield table
                        continue
                    for half in (((first + last) // 2 + 1, last), (first, (first + last) // 2)):
                        waiting.appendleft((half, pool.submit(self._read, half)))
            finally:
                for _, future in waiting:
                    future.cancel()

    def _stretches(self) -> Iterator[Keys]:
        """Keys that have together about as many messages as are read at once."""
        lowest, highest, count = self._extent["first"], self._extent["last"], self._extent["messages"]
        if not count:
            return
        width = max(1, (highest - lowest + 1) * self._messages_at_once // count)
        for first in range(lowest, highest + 1, width):
            yield first, min(first + width - 1, highest)

    def _read(self, keys: Keys) -> Any:
        """The conversations of these keys; None where that is too much at once, and there are keys to part."""
        database = self._free.get()
        try:
            batches, size = [], 0
            with closing(database.rows(self._messages(keys))) as rows:
                for batch in rows:
                    batches.append(batch)
                    size += batch.column("content").nbytes
                    if size > self._bytes_at_once and keys[0] < keys[1]:
                        return None
            return self._to_table(list(database.rows(self._heads(keys))), batches)
        finally:
            self._free.put(database)

    def _to_table(self, heads: list[Any], batches: list[Any]) -> Any:
        known, messages = _one(heads), _one(batches)
        runs = pc.run_end_encode(_only(messages, "conversation"))
        if not _only(known, "number").equals(runs.values):
            raise _StoppedError("read", "the file is malformed: messages without their conversation")
        kind = self._schema.field("messages").type.value_type
        said = [_only(messages, field.name).cast(field.type) for field in kind]
        structs = pa.StructArray.from_arrays(said, fields=list(kind))
        lists = pa.ListArray.from_arrays(pa.concat_arrays([pa.array([0], pa.int32()), runs.run_ends]), structs)
        columns = [_only(known, field.name).cast(field.type) for field in self._schema if field.name != "messages"]
        return pa.Table.from_arrays([*columns, lists], schema=self._schema)


def _between(query: str, keys: Keys) -> str:
    return query.replace(":first", str(keys[0])).replace(":last", str(keys[1]))


def _one(batches: list[Any]) -> Any:
    table = pa.Table.from_batches(batches).combine_chunks()
    # The driver passes on what stands in the file, which another program may have written.
    table.validate(full=True)
    return table


def _only(table: Any, name: str) -> Any:
    """A column, which is one array."""
    column = table.column(name)
    if column.num_chunks > 1:
        raise _StoppedError("read", "a conversation has more than 2 GiB of text")
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


class Choice:
    """Which conversations go into the file.

    Args:
        job: ``allowed``: None, or users; ``anonymous``: whether those without one count among them; ``refused``: users
            who are counted as left out; others came after the export began; ``excluded``: names with their owners;
            ``forgotten``: times by user.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self._allowed = None if job["allowed"] is None else pa.array(job["allowed"], pa.string())
        self._anonymous: bool = job["anonymous"]
        self._refused = pa.array(job["refused"], pa.string())
        self._excluded = {(name, user) for name, user in job["excluded"]}
        self._names = pa.array(sorted({name for name, _ in self._excluded}), pa.string())
        self._forgotten: dict[str, str] = job["forgotten"]

    def keep(self, table: Any) -> tuple[Any, dict[str, int]]:
        """The rows that stay, and how many do not, by reason."""
        self._look_for_forgotten(table)
        looked_at, refused = len(table), 0
        if self._allowed is not None:
            users = table.column("user_id")
            is_nobody = pc.is_null(users)
            refused = pc.sum(pc.is_in(users, self._refused)).as_py() or 0
            refused += 0 if self._anonymous else pc.sum(is_nobody).as_py() or 0
            allowed = pc.is_in(users, self._allowed)
            table = table.filter(pc.or_(allowed, is_nobody) if self._anonymous else allowed)
        named = pc.indices_nonzero(pc.is_in(table.column("conversation_id"), self._names)).to_pylist()
        names, users = table.column("conversation_id"), table.column("user_id")
        out = [row for row in named if (names[row].as_py(), users[row].as_py()) in self._excluded]
        if out:
            table = table.filter(pc.invert(pc.is_in(pa.array(range(len(table))), pa.array(out))))
        return table, {"looked_at": looked_at, "written": len(table), "refused": refused, "excluded": len(out)}

    def _look_for_forgotten(self, table: Any) -> None:
        """A store holds nothing from before its users were forgotten; where one does, whole records have to be read."""
        users = table.column("user_id")
        if not self._forgotten:
            return
        for row in pc.indices_nonzero(pc.is_in(users, pa.array(sorted(self._forgotten)))).to_pylist():
            begun, until = table.column("started_at")[row], self._forgotten[users[row].as_py()]
            times = pc.coalesce(pc.struct_field(table.column("messages")[row].values, "created_at"), begun)
            later = pc.greater(times, pa.scalar(until).cast(times.type))
            if not pc.all(pc.fill_null(later, fill_value=False)).as_py():
                raise _StoppedError("forgotten", "a message from before its user was forgotten")


def export(job: dict[str, Any], schema: Any) -> Iterator[dict[str, int]]:
    """Write the file of a job; after each part, how many conversations came and went.

    Raises:
        _StoppedError: it was not written.
    """
    choice = Choice(job)
    with ExitStack() as stack:
        with _stopping_on("read"):
            tables = stack.enter_context(closing(Conversations(job, schema, stack).tables()))
        with _stopping_on("write"):
            writer = parquet.ParquetWriter(
                job["file"], schema, compression="zstd", compression_level=1, use_dictionary=job["repeated"]
            )
        while True:
            with _stopping_on("read"):
                table = next(tables, None)
            if table is None:
                break
            table, counts = choice.keep(table)
            with _stopping_on("write"):
                writer.write_table(table)
            yield counts
        with _stopping_on("write"):
            writer.close()


@contextmanager
def _stopping_on(what: str) -> Iterator[None]:
    try:
        yield
    except (adbc_driver_manager.Error, pa.ArrowException, OSError) as error:
        raise _StoppedError(what, str(error)) from error


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201 - it is what this program is for


def main() -> None:
    """Do the job that stands on the input (`rlhi_plugin.sqlite_parquet` writes it)."""
    job = json.load(sys.stdin)
    _say(ready=True)
    try:
        for counts in export(job, pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(job["schema"])))):
            _say(**counts)
    except _StoppedError as error:
        what, how = error.args
        _say(**{what: " ".join(how.split())})
    else:
        _say(done=True)


if __name__ == "__main__":
    main()
