"""Turns that must not be stored any more: their words go at once, their number stays.

The file ``withheld.log`` of a journal folder has a line for each, without its words and without its user::

    {"at":"2026-11-24T18:20:01+00:00","reason":"forgotten","size":2}
"""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from rlhi_plugin.durability.readmission import Withheld
from rlhi_plugin.durability.turn_file import blank

_FILE = "withheld.log"


def note_withheld(folder: Path, reason: Withheld, size: int) -> None:
    """Count one turn. It is counted before its words go: a crash between the two counts it twice, never not at all.

    Raises:
        OSError: the file cannot be written.
    """
    line = json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), "reason": reason, "size": size})
    descriptor = os.open(folder / _FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def read_withheld(folder: Path) -> Counter[str]:
    """How many turns of a journal folder were withheld, by reason. A damaged line counts as ``unknown``."""
    try:
        lines = (folder / _FILE).read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return Counter()
    return Counter(map(_reason, lines))


def blank_line(file: Path, offset: int, length: int) -> None:
    """Overwrite a line of a journal file, on disk, with one that holds nothing.

    Raises:
        OSError: it cannot be written.
    """
    # Not through the journal's own descriptor: Linux appends what is written through one opened with O_APPEND.
    descriptor = os.open(file, os.O_WRONLY)
    try:
        os.pwrite(descriptor, blank(length), offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(line: str) -> str:
    try:
        return str(json.loads(line)["reason"])
    except (ValueError, KeyError, TypeError):
        return "unknown"
