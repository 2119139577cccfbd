"""SIGTERM ends a run as Ctrl-C does: schedulers and containers send it, and answers on their way are paid for."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rlhi_plugin.terminal import INTERRUPTED

TERMINATED = 128 + signal.SIGTERM
"""Exit code after SIGTERM, as shells count it."""


@contextmanager
def terminating_in_order() -> Iterator[None]:
    """Inside, which is to be the whole program, SIGTERM is Ctrl-C with an exit code of its own."""
    received = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = True
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler):
            # asyncio's, in its loop, which ends the task and not the loop.
            handler(number, frame)
            return
        # A shell script's jobs in the background ignore Ctrl-C.
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except SystemExit as exit_:
        if received and exit_.code == INTERRUPTED:
            raise SystemExit(TERMINATED) from exit_
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
