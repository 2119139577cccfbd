"""Opening a store for an assistant, which starts whether or not the store is up."""

from __future__ import annotations

import logging

from rlhi_plugin.durability.deadline import DeadlineThreads
from rlhi_plugin.errors import StoreError
from rlhi_plugin.stores import display_url
from rlhi_plugin.stores.engine import may_come_back
from rlhi_plugin.stores.late_store import LateStore

START_S = 5.0
"""Seconds for which the start of an assistant waits for its store (ours)."""

_log = logging.getLogger("rlhi.middleware")


def start_store(url: str, *, timeout_s: float = START_S) -> LateStore:
    """The store at `url`. Where it is down, that is logged as an error, and it opens by itself when it is back.

    Down is what may pass: no answer, a locked file, a full or missing disk, a damaged file that is restored. What only
    a change of the URL or the program mends is raised.

    Args:
        url: See `open_store`.
        timeout_s: Seconds to wait; the opening goes on after that.

    Raises:
        ConfigError: the URL cannot name a store.
        MissingExtraError: the store is on PostgreSQL, and the extra ``postgres`` is not installed.
        StoreError: the database refuses us for good: the password, an absent database, a newer schema.
    """
    store, threads = LateStore(url), DeadlineThreads("rlhi-start")
    try:
        threads.call(store.open, timeout_s)
    except StoreError as error:
        if not may_come_back(error):
            store.close()
            raise
        _log.error(
            "the store %s is down, and opens when it is back; until then turns go to the journal: %s",
            display_url(url),
            error,
        )
    finally:
        threads.close()
    return store
