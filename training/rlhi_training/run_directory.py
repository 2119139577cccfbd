"""A run directory: one file per stage output, what was dropped, and a manifest that says how each file came about.

::

    runs/1/
      manifest.json            recipe, input digest, versions, prompts; per stage: digests, counts, reasons, seconds
      conversations.jsonl ...  one JSONL per stage output
      dropped/<stage>.jsonl    what the stage did not pass on, and why
      calls.db                 every model call, written before it is made and after it is answered
      adapter/                 the trained adapter

Files are replaced atomically. A stage whose inputs have the digest that the manifest recorded, and whose files are
still what it wrote, is reused. A stage counts only from the moment the manifest names it, which is written last.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from rlhi_plugin.errors import ArtefactError, FullDiskError, RLHIError, UserError
from rlhi_plugin.records import Record
from rlhi_training.drafts import clear_drafts, whole
from rlhi_training.records import Dropped, Stage

MANIFEST_SCHEMA_VERSION = 1
WORKING = "shards"
"""Folder of what a run in shards works with."""

R = TypeVar("R", bound=Record)

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_RIGHTS = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR})


class StageEntry(Record):
    """What the manifest keeps of one finished stage."""

    inputs_digest: str
    """SHA-256 over everything that the stage's output depends on."""
    files: dict[str, str]
    """SHA-256 of each file or folder that the stage wrote, by path relative to the run directory."""
    inputs: int = Field(ge=0)
    """Items that the stage read; always `passed` plus `dropped`."""
    passed: int = Field(ge=0)
    dropped: int = Field(ge=0)
    outputs: int = Field(ge=0)
    """Records written. One item may yield several (pairs of one request)."""
    reasons: dict[str, int] = Field(default_factory=dict)
    """Dropped items by reason."""
    seconds: float = Field(ge=0.0)
    finished_at: str
    notes: dict[str, Any] = Field(default_factory=dict)
    """What else a reader may want: tables, metrics, the names of models."""


class Manifest(Record):
    """manifest.json."""

    schema_version: int = MANIFEST_SCHEMA_VERSION
    recipe: dict[str, Any]
    logs: str
    """The conversation log, as it was given on the command line."""
    logs_digest: str
    versions: dict[str, str]
    seed: int
    engine: str = "memory"
    """``memory``: one process; ``local`` or ``ray``: in shards (`rlhi_training.scale`)."""
    stages: dict[str, StageEntry] = Field(default_factory=dict)


@dataclass(frozen=True)
class StageResult:
    """What a stage hands to the run directory.

    Attributes:
        inputs: Number of items that the stage read.
        passed: How many of them led to at least one output.
        dropped: The others, one entry per item.
        files: Records to write, by file name.
        notes: Extra facts for the manifest.
        written: Paths (relative to the run directory) that the stage wrote itself.
    """

    inputs: int
    passed: int
    dropped: Sequence[Dropped]
    files: Mapping[str, Sequence[Record]]
    notes: Mapping[str, Any] | None = None
    written: Sequence[str] = ()


def check_conservation(stage: Stage, result: StageResult) -> None:
    """Inputs = passed + dropped, and no item is dropped twice.

    Raises:
        ArtefactError: items got lost or were counted twice: a defect of the stage.
    """
    if result.inputs != result.passed + len(result.dropped):
        raise ArtefactError(
            f"stage {stage} lost track of its items: {result.inputs} in, {result.passed} passed on,"
            f" {len(result.dropped)} dropped. This is a defect in the stage; please report it."
        )
    keys = Counter(item.key for item in result.dropped)
    twice = [key for key, count in keys.items() if count > 1]
    if twice or any(item.stage != stage for item in result.dropped):
        raise ArtefactError(
            f"stage {stage} dropped an item twice or under another stage's name: {twice[:3]}."
            " This is a defect in the stage; please report it."
        )


class RunDirectory:
    """Reads and writes one run directory.

    Args:
        path: Created when absent.

    Raises:
        UserError: the path is a file, or cannot be created.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot use {path} as a run directory: {error.strerror}. Give another --out.") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for one process. Drafts that a killed one left are deleted.

        Raises:
            UserError: another process is working in it.
        """
        with (self.path / ".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(
                    f"another process is working in {self.path}. Wait for it or use another --out."
                ) from error
            self.clear_drafts()
            yield

    def clear_drafts(self) -> None:
        """Delete the drafts that nobody writes any more."""
        folders = [self.path, self.path / "dropped", *(self.path / WORKING).rglob("**")]
        clear_drafts(file for folder in folders for file in folder.glob(".*"))

    def manifest(self) -> Manifest | None:
        """The manifest, or None in a fresh directory.

        Raises:
            ArtefactError: there is one, but it cannot be read.
        """
        path = self.path / "manifest.json"
        if not path.exists():
            return None
        try:
            return Manifest.model_validate_json(path.read_text("utf-8"))
        except (ValidationError, UnicodeDecodeError) as error:
            raise ArtefactError(f"{path} is damaged. Delete it to start the run again: {error}") from error

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest; from then on the stages that it names count as done."""
        write_atomically(self.path / "manifest.json", json.dumps(manifest.model_dump(mode="json"), indent=2) + "\n")

    def read(self, name: str, record: type[R]) -> list[R]:
        """All records of one stage file.

        Raises:
            ArtefactError: the file is absent or holds something else.
        """
        path = self.path / name
        try:
            with path.open(encoding="utf-8") as lines:
                return [record.model_validate_json(line) for line in lines]
        except FileNotFoundError as error:
            raise ArtefactError(f"{path} is missing. Run the stage that writes it again.") from error
        except (ValidationError, UnicodeDecodeError) as error:
            raise ArtefactError(f"{path} is damaged. Delete it and run again: {error}") from error

    def finish(self, stage: Stage, result: StageResult) -> dict[str, str]:
        """Check and write what a stage made; returns the digest of each file.

        Raises:
            ArtefactError: inputs are not outputs plus dropped.
        """
        check_conservation(stage, result)
        for name, records in result.files.items():
            write_records(self.path / name, records)
        write_records(self.path / "dropped" / f"{stage}.jsonl", result.dropped)
        names = [*result.files, f"dropped/{stage}.jsonl", *result.written]
        return {name: digest_path(self.path / name) for name in names}

    def intact(self, entry: StageEntry) -> bool:
        """Whether every file of a finished stage is still what the stage wrote."""
        return all(
            (self.path / name).exists() and digest_path(self.path / name) == digest
            for name, digest in entry.files.items()
        )


@contextmanager
def writing_to(place: Path) -> Iterator[None]:
    """Inside, a disk without room and a folder without rights are said to be that.

    Args:
        place: File or folder that is written.

    Raises:
        FullDiskError: there is no room.
        UserError: there are no rights. Whatever was there before still is.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, RLHIError) or error.errno not in _NO_ROOM | _NO_RIGHTS:
            raise
        raise cannot_write(place, error) from error


def cannot_write(place: Path, error: OSError) -> UserError:
    """What to say of an error of the disk: a `FullDiskError` where it has no room."""
    where = f" ({error.filename})" if error.filename else ""
    kind = FullDiskError if error.errno in _NO_ROOM else UserError
    return kind(
        f"cannot write to {place}: {error.strerror}{where}. Make room or rights there, and run the same command again:"
        " what is done is kept."
    )


def write_atomically(path: Path, text: str) -> None:
    """Replace a file so that a reader, or a crash, sees either the old one or the whole new one."""
    write_lines(path, [text])


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write one JSON object per line, atomically."""
    write_lines(path, (record.to_json() + "\n" for record in records))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Replace a file with `lines`, which bring their own line ends; on any error the old file stays."""
    with whole(path) as stream:
        stream.writelines(line.encode() for line in lines)
        stream.flush()
        os.fsync(stream.fileno())


def digest_path(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and bytes of all files in a folder."""
    if path.is_dir():
        parts = sorted(p for p in path.rglob("*") if p.is_file())
        return digest_of([[p.relative_to(path).as_posix(), digest_path(p)] for p in parts])
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest_of(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
