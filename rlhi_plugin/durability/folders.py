"""Journal folders seen from outside: what waits there, replaying it, and taking one user's words out of it."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rlhi_plugin.durability.journal import Journal
from rlhi_plugin.durability.owned import OwnedAppends
from rlhi_plugin.durability.readmission import Readmission
from rlhi_plugin.durability.replay import Round, replay
from rlhi_plugin.durability.turn_file import (
    PROGRESS,
    SUFFIX,
    Line,
    adopt_file,
    decode,
    files_in,
    is_owned,
    owner_pid,
    progress_of,
    read_lines,
    refused_in,
    sync_folder,
)
from rlhi_plugin.durability.withheld import note_withheld, read_withheld
from rlhi_plugin.stores import ConversationStore


@dataclass(frozen=True, slots=True)
class JournalFileReport:
    """One journal file.

    Attributes:
        path: The file.
        pid: The process that made it.
        owned: Whether a living process owns it, and will replay it by itself.
        turns: Usable lines.
        messages: Messages in them.
        damaged: Lines that are not usable, cut short ones included.
    """

    path: Path
    pid: int
    owned: bool
    turns: int
    messages: int
    damaged: int


@dataclass(frozen=True, slots=True)
class JournalReport:
    """A journal folder; all zero where there is none.

    Attributes:
        folder: The folder.
        files: Its journal files, oldest first.
        refused: Lines that were set aside, by file.
        withheld: Turns that were erased because their user no longer allows them, by reason, since ever.
    """

    folder: Path
    files: tuple[JournalFileReport, ...]
    refused: tuple[tuple[Path, int], ...]
    withheld: Mapping[str, int]

    @property
    def waiting(self) -> int:
        """Turns that the store does not have yet, or that are being replayed."""
        return sum(file.turns for file in self.files)

    @property
    def set_aside(self) -> int:
        """Lines that a store refused, or that are damaged."""
        return sum(lines for _, lines in self.refused)


def read_folder(folder: Path) -> JournalReport:
    """Look at a journal folder. Changes nothing, and may be done while processes write there.

    Raises:
        OSError: a file cannot be read.
    """
    reports = [_report(file) for file in files_in(folder)]
    refused = [(file, len(file.read_bytes().splitlines())) for file in refused_in(folder)]
    return JournalReport(folder, tuple(report for report in reports if report), tuple(refused), read_withheld(folder))


def replay_folder(folder: Path, store: ConversationStore, *, refused: bool = False) -> Round:
    """Put what dead processes left in a folder into a store. Living ones replay their own files.

    What was said by users who were forgotten since, or who no longer allow a log, is erased instead.

    Args:
        folder: The journal of this store.
        store: Where the turns belong.
        refused: Offer the lines that were set aside once more, too.

    Raises:
        OSError: a file cannot be read or written.
    """
    journal, readmission = Journal(folder), Readmission(store, OwnedAppends(store))
    try:
        journal.take_over()
        done = _all_rounds(journal, readmission)
    finally:
        journal.close()
    if not refused:
        return done
    outcomes: Counter[str] = Counter()
    for file in refused_in(folder):
        if not is_owned(file.with_suffix(SUFFIX)):
            outcomes += _offer_again(file, readmission)
    left = sum(len(file.read_bytes().splitlines()) for file in refused_in(folder))
    return Round(done.replayed + outcomes["taken"], left, done.left, done.error, done.withheld + outcomes["withheld"])


def _all_rounds(journal: Journal, readmission: Readmission) -> Round:
    """Replay a long journal to its end, or to the first failure; the sum of the rounds."""
    together = readmission.put_together if readmission.together else None
    replayed = refused = withheld = 0
    while True:
        done = replay(journal, readmission.put, together, alive=bool(replayed))
        replayed, refused, withheld = replayed + done.replayed, refused + done.refused, withheld + done.withheld
        if not journal.unread or not (done.replayed or done.withheld or done.refused):
            return Round(replayed, refused, done.left, done.error, withheld)


def erase_user(folder: Path, user_id: str) -> tuple[int, list[Path]]:
    """Take one user's turns out of a journal folder, set-aside ones included.

    Returns:
        How many turns were removed, and the files that living processes own, which could not be changed: what they
        hold of the user goes to the store, whose tombstone has to keep it out.

    Raises:
        OSError: a file cannot be read or written.
    """
    removed, owned = 0, []
    for file in files_in(folder):
        descriptor = adopt_file(file)
        if descriptor is None:
            if file.exists():
                owned.append(file)
            continue
        try:
            file.with_suffix(PROGRESS).unlink(missing_ok=True)
            removed += _keep(file, lambda raw: _is_not_of(decode(raw, 0), user_id))
        finally:
            os.close(descriptor)
    for file in refused_in(folder):
        removed += _keep(file, lambda raw: _is_not_of(_set_aside_line(raw), user_id))
    return removed, owned


def _report(file: Path) -> JournalFileReport | None:
    turns = messages = damaged = 0
    try:
        for line in read_lines(file, progress_of(file)):
            if line.turn is None:
                damaged += 1
            else:
                turns, messages = turns + 1, messages + len(line.turn.messages)
    except FileNotFoundError:  # its owner has just replayed it
        return None
    return JournalFileReport(file, owner_pid(file), is_owned(file), turns, messages, damaged)


def _offer_again(file: Path, readmission: Readmission) -> Counter[str]:
    outcomes: Counter[str] = Counter()

    def still_refused(raw: bytes) -> bool:
        line = _set_aside_line(raw)
        if line.turn is None:
            return True
        try:
            withheld = readmission.put(line.turn)
        except Exception:  # noqa: BLE001 - a store may raise anything; the line stays with its first reason
            return True
        if withheld is not None:
            note_withheld(file.parent, withheld, line.turn.size)
        outcomes["taken" if withheld is None else "withheld"] += 1
        return False

    _keep(file, still_refused)
    return outcomes


def _set_aside_line(raw: bytes) -> Line:
    try:
        return decode(json.loads(raw)["line"].encode() + b"\n", 0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Line(0, len(raw), problem=f"not a line that was set aside: {error}")


def _is_not_of(line: Line, user_id: str) -> bool:
    return line.turn is None or line.turn.user_id != user_id


def _keep(file: Path, wanted: Callable[[bytes], bool]) -> int:
    """Rewrite a file with the wanted lines only; return how many went. It appears whole or not at all."""
    gone = left = 0
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".draft-")
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as kept, file.open("rb") as stream:
            for raw in stream:
                if wanted(raw):
                    kept.write(raw)
                    left += 1
                else:
                    gone += 1
            kept.flush()
            os.fsync(kept.fileno())
        if not left:
            file.unlink()
        elif gone:
            draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(file.parent)
    return gone
