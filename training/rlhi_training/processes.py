"""What a process does alone when several train together (``accelerate launch``, ``torchrun``)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def together() -> bool:
    """Whether a launcher started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_main() -> bool:
    """Whether this process writes what all of them make."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def main_first() -> Iterator[None]:
    """Let the main process through first, then the others."""
    if not together():
        yield
        return
    from accelerate import PartialState

    with PartialState().main_process_first():
        yield
