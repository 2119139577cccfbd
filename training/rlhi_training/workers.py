"""Worker processes and Ctrl-C: a terminal sends it to all, and it is for the process that was started, which ends them.

That process starts them inside `holding_ctrl_c`, with `begin` as their initializer.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


def begin() -> None:
    """In a worker: ignore Ctrl-C, and end when the process that was started is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def holding_ctrl_c() -> Iterator[None]:
    """Inside, Ctrl-C waits; processes that are started inside do not hear it before they ignore it."""
    # It lets Ctrl-C through when it starts, so it has to be there already.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
