"""A store on SQLite as Parquet, by way of Arrow: no row passes through Python.

`rlhi_plugin.sqlite_parquet_worker` says why that happens in a process of its own. Where that cannot be started, or the
driver is not installed (``pip install 'rlhi[parquet]'``), the caller goes by way of rows.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.parquet_logs import REPEATED, appearing_whole, parquet_schema
from rlhi_plugin.stores import SQLStore
from rlhi_plugin.stores.address import database_file
from rlhi_plugin.stores.columnar import sqlite_queries
from rlhi_plugin.stores.dialects import BUSY_TIMEOUT_MS
from rlhi_plugin.stores.engine import translated

_READERS = 4
"""Threads at most. One file gives hardly more (ours)."""
_MESSAGES_AT_ONCE = 20_000
_BYTES_AT_ONCE = 128 << 20
_ROWS_PER_READ = 1024
"""The text of one read has 2 GiB at most: so messages may be of 2 MiB on average."""
_WORKER = Path(__file__).with_name("sqlite_parquet_worker.py")
_log = logging.getLogger("rlhi.export")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which conversations are exported; all of them by default.

    Attributes:
        users: For each user, None being those without an id, whether they are; None asks nobody. Who is not named came
            after the export began, and is left out.
        excluded: Conversations that are not, with their owners.
        forgotten: When users were forgotten, in ISO 8601.
    """

    users: Mapping[str | None, bool] | None = None
    excluded: frozenset[tuple[str, str | None]] = frozenset()
    forgotten: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExportCounts:
    """What came of an export, in conversations.

    Attributes:
        written: In the file.
        refused: Left out because their users do not allow the purpose.
        excluded: Left out because their users want nothing to be learned from them.
    """

    written: int = 0
    refused: int = 0
    excluded: int = 0


class _CannotError(Exception):
    """The export has to go by way of rows."""


def write_store(
    store: SQLStore, out: Path, selection: Selection, *, advance: Callable[[int], None] = lambda _: None
) -> ExportCounts | None:
    """Write the conversations of one consistent state of a store to a Parquet file, which appears whole or not at all.

    Args:
        store: Where they are.
        out: The file.
        selection: Which of them.
        advance: Told how many more conversations were looked at.

    Returns:
        None where this way is closed, and nothing was written: the store is on a server, the driver is not installed,
        its process cannot be started, or records have to be looked at one by one.

    Raises:
        ConfigError: the folder does not exist or the file cannot be written.
        MissingExtraError: pyarrow is not installed.
        StoreError: the store cannot be read.
    """
    database = database_file(store.url)
    if database is None or not find_spec("adbc_driver_sqlite") or not sys.executable:
        return None
    schema = parquet_schema()
    try:
        with appearing_whole(out) as draft:
            return _exported(_job(database, draft, schema, selection), out, advance)
    except _CannotError as why:
        _log.info("the export goes by way of rows: %s", why)
        return None


def _job(database: Path, draft: Path, schema: Any, selection: Selection) -> dict[str, Any]:
    users = selection.users
    return {
        # Opened as the store is, so that its log is read too; but never made.
        "database": f"{database.resolve().as_uri()}?mode=rw",
        "busy_timeout_ms": BUSY_TIMEOUT_MS,
        "messages_at_once": _MESSAGES_AT_ONCE,
        "bytes_at_once": _BYTES_AT_ONCE,
        "rows_per_read": _ROWS_PER_READ,
        "readers": min(os.cpu_count() or 1, _READERS),
        **asdict(sqlite_queries()),
        "file": str(draft),
        "schema": schema.serialize().to_pybytes().hex(),
        "repeated": REPEATED,
        "allowed": None if users is None else [user for user, allowed in users.items() if user and allowed],
        "anonymous": users is None or users.get(None, False),
        "refused": [user for user, allowed in (users or {}).items() if user and not allowed],
        "excluded": sorted(selection.excluded, key=str),
        "forgotten": dict(selection.forgotten),
    }


def _exported(job: dict[str, Any], out: Path, advance: Callable[[int], None]) -> ExportCounts:
    counts = {"written": 0, "refused": 0, "excluded": 0}
    # Closed also when `advance` raises: nobody is to write on.
    with closing(_answers(job)) as answers:
        for said in answers:
            if "read" in said:
                with translated("read conversations"):
                    raise sqlite3.DatabaseError(said["read"])
            if "write" in said:
                raise ConfigError(f"cannot write {out}: {said['write']}. Free some space, or name another file.")
            if "forgotten" in said:
                raise _CannotError(said["forgotten"])
            if "looked_at" in said:
                advance(said.pop("looked_at"))
                counts = {name: counts[name] + count for name, count in said.items()}
    return ExportCounts(**counts)


def _answers(job: dict[str, Any]) -> Generator[dict[str, Any]]:
    """What the worker says, up to its last word."""
    is_ready = False
    with _worker() as (process, asked, answered):
        try:
            asked.write(json.dumps(job))
            asked.close()
        except OSError as error:
            raise _CannotError(_last_words(process) or str(error)) from error
        for line in answered:
            said = _parsed(line)
            is_ready = is_ready or "ready" in said
            if not is_ready:
                break
            yield said
            if not said.keys().isdisjoint(("done", "read", "write", "forgotten")):
                return
        words = _last_words(process)
    if not is_ready:
        raise _CannotError(words)
    with translated("read conversations"):
        raise sqlite3.DatabaseError(f"the process that read them ended: {words}")


@contextmanager
def _worker() -> Iterator[tuple[subprocess.Popen[str], IO[str], IO[str]]]:
    """The process, what it reads and what it says; it ends with the block, however that ends."""
    # As this one finds its packages. -P: the names of our files must not stand for other modules.
    path = os.pathsep.join(entry for entry in sys.path if entry)
    try:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-P", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path},
        )
    except OSError as error:
        raise _CannotError(str(error)) from error
    with process:
        assert process.stdin is not None  # noqa: S101 - each of them is a pipe
        assert process.stdout is not None  # noqa: S101
        try:
            yield process, process.stdin, process.stdout
        except BaseException:
            process.kill()
            raise


def _parsed(line: str) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _last_words(process: subprocess.Popen[str]) -> str:
    """The end of what a process that has ended wrote to its error output, and its exit status."""
    assert process.stderr is not None  # noqa: S101 - it is a pipe
    lines = process.stderr.read().strip().splitlines()
    return f"{lines[-1] if lines else 'no word'} (exit status {process.wait()})"
