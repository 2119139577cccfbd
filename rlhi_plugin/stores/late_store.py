"""A store whose database may be down when the program starts: it is opened at the first use that finds it up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Connection

from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.stores.address import database_file, parse_url
from rlhi_plugin.stores.appending import Part
from rlhi_plugin.stores.dialects import make_engine
from rlhi_plugin.stores.engine import prepare
from rlhi_plugin.stores.group_commit import GroupCommit
from rlhi_plugin.stores.sql_store import SQLStore

T = TypeVar("T")


class LateStore(SQLStore):
    """An `SQLStore` that can be made without its database. Until that is up, everything it is asked raises StoreError.

    Tables are made, or brought up to date, when it opens, as `open_store` does.

    Args:
        url: See `open_store`. The folder of an SQLite file may be missing where the path is absolute: its disk may
            not be mounted yet. A relative one is part of the app, and missing is a mistake.

    Raises:
        ConfigError: the URL cannot name a store, or its relative folder does not exist.
        MissingExtraError: the store is on PostgreSQL, and the extra ``postgres`` is not installed.
    """

    def __init__(self, url: str) -> None:
        parsed, file = parse_url(url), database_file(url)
        if file is not None and not file.is_absolute() and not file.parent.is_dir():
            raise ConfigError(f"the folder of the store does not exist: {file.parent}. Create it, or correct the URL.")
        super().__init__(make_engine(parsed))
        self._given, self._file = url, file
        self._is_open = False
        self._opening = threading.Lock()
        # Opening may take longer than a caller waits.
        self._queue_when_open, self._queue = self._queue, GroupCommit(self._append_late)

    def open(self) -> None:
        """Open it now, unless it is open.

        Raises:
            StoreError: see `open_store`.
        """
        if self._is_open:
            return
        with self._opening:
            if not self._is_open:
                self._find_folder()
                prepare(self._engine, self._given, create=True)
                self._is_open, self._queue = True, self._queue_when_open

    def _find_folder(self) -> None:
        if self._file is None or self._file.parent.is_dir():
            return
        missing = FileNotFoundError(str(self._file.parent))
        raise StoreError(
            f"the folder of the store does not exist: {missing}. Mount its disk, create it, or correct the URL."
        ) from missing

    @contextmanager
    def _reading(self, doing: str) -> Iterator[Connection]:
        self.open()
        with super()._reading(doing) as connection:
            yield connection

    def _write(self, doing: str, work: Callable[[Connection], T]) -> T:
        self.open()
        return super()._write(doing, work)

    def _append_late(self, parts: Sequence[Part]) -> Sequence[int | Exception]:
        self.open()
        return self._append_group(parts)

    def last_message_id_within(self, conversation_id: str, limit_s: float | None) -> str | None:
        """See `SQLStore.last_message_id_within`."""
        self.open()
        return super().last_message_id_within(conversation_id, limit_s)

    @property
    def reads_in_time(self) -> bool:
        """See `SQLStore.reads_in_time`; opening may take longer."""
        return self._is_open and super().reads_in_time
