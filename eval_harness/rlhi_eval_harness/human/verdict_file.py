"""Verdicts on disk: one line each, there for good before the next pair is shown.

An append is written, flushed and synced, or undone: after a failure the file ends where it ended before. A last line
without its end was never acknowledged to anybody; it is not read, and it is cut off before the next append.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from rlhi_eval_harness.human.records import HumanVerdict, Undo
from rlhi_eval_harness.run_folder import drop_torn_line
from rlhi_plugin.errors import ArtefactError, ConfigError

Line = HumanVerdict | Undo
_LINE: TypeAdapter[Line] = TypeAdapter(Line)


class VerdictFile:
    """An append-only file, held by one process.

    Args:
        path: Created when absent.
    """

    def __init__(self, path: Path) -> None:
        drop_torn_line(path)
        self.lines = read_lines(path)
        self._stream = path.open("ab", buffering=0)
        _sync_folder(path.parent)

    def append(self, line: Line) -> None:
        """Put one line on disk.

        Raises:
            OSError: it could not be written; the file is as it was.
        """
        content, before = (line.to_json() + "\n").encode(), self._stream.seek(0, os.SEEK_END)
        try:
            if self._stream.write(content) != len(content):
                raise OSError("the disk took only part of the line")  # noqa: TRY301 - undone below like any failure
            os.fsync(self._stream.fileno())
        except OSError:
            self._stream.truncate(before)
            raise
        self.lines.append(line)

    def close(self) -> None:
        """Let the file go."""
        self._stream.close()


def read_lines(path: Path) -> list[Line]:
    """All whole lines; none where there is no file.

    Raises:
        ArtefactError: a line that has its end is damaged, or an undo is of nothing; names file and line.
    """
    if not path.exists():
        return []
    lines: list[Line] = []
    known: set[str] = set()
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    for number, text in enumerate(whole.split(b"\n") if whole else (), start=1):
        try:
            line = _LINE.validate_json(text)
        except ValidationError as error:
            raise ArtefactError(
                f"{path}:{number}: damaged line ({error.errors()[0]['msg']}). Mend or remove the line."
            ) from error
        name = line.verdict_id if isinstance(line, HumanVerdict) else line.undoes
        if (name in known) is isinstance(line, HumanVerdict):
            wrong = "is there twice" if isinstance(line, HumanVerdict) else "is taken back, but not there"
            raise ArtefactError(f"{path}:{number}: the verdict {name} {wrong}. Remove the line.")
        known.add(name)
        lines.append(line)
    return lines


def standing(lines: list[Line]) -> list[HumanVerdict]:
    """Verdicts that were not taken back, in the order in which they were given."""
    undone = {line.undoes for line in lines if isinstance(line, Undo)}
    return [line for line in lines if isinstance(line, HumanVerdict) and line.verdict_id not in undone]


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a study's folder for one process; the kernel lets it go when the process ends, however it ends.

    Raises:
        ConfigError: another process holds it.
    """
    import fcntl

    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"another rlhi-eval human serves {folder}. Open its page, or end it first; raters share one page."
            ) from error
        yield


def _sync_folder(folder: Path) -> None:
    """A new file is there for good only once its folder is synced too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
