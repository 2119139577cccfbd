"""Conversation logs in files: our own export, written and read, and logs that were made elsewhere, read.

One JSON object a line, plain or gzipped. What a line holds is told from its fields. A line that cannot be used is given
back as a `RecordError` in its place; it stops nothing.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydantic import ValidationError

from rlhi_plugin.errors import ConfigError, RecordError
from rlhi_plugin.privacy.tombstones import is_tombstone, tombstone_line
from rlhi_plugin.records import SCHEMA_VERSION, Conversation, Tombstone
from rlhi_plugin.wildchat import is_wildchat, read_wildchat

VERSION_FIELD = "schema"
"""Field of every exported line that holds `SCHEMA_VERSION`."""


def read_conversations(path: str | Path) -> Iterator[Conversation | RecordError]:
    """Read a log line by line: our export or WildChat rows, ``.jsonl`` or ``.jsonl.gz``.

    Returns:
        For each line that is neither blank nor a tombstone, its conversation, or the error that says why there is none.

    Raises:
        ConfigError: there is no such file, or it cannot be opened.
    """
    file = Path(path)
    try:
        # The generator that reads it closes it.
        stream = cast("BinaryIO", (gzip.open if file.suffix == ".gz" else open)(file, "rb"))
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}. Give the path of a JSONL file.") from error
    return _read(stream, file)


def write_conversations(
    path: str | Path, conversations: Iterable[Conversation], tombstones: Iterable[Tombstone] = ()
) -> int:
    """Write an export; gzipped when the name ends in ``.gz``. The file appears whole or not at all.

    Tombstones go along with it, so that whoever reads the file knows who was forgotten.

    Returns:
        How many conversations were written.

    Raises:
        ConfigError: the folder does not exist or cannot be written.
    """
    file = Path(path)
    try:
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    except OSError as error:
        raise ConfigError(
            f"cannot write to {file.parent}: {error.strerror}. Create the folder, or name another."
        ) from error
    draft, count = Path(name), 0
    try:
        with os.fdopen(descriptor, "wb") as raw:
            # mtime=0: the same conversations give the same bytes.
            stream = gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) if file.suffix == ".gz" else raw
            for tombstone in tombstones:
                stream.write(tombstone_line(tombstone))
            for conversation in conversations:
                stream.write(_line(conversation))
                count += 1
            if stream is not raw:
                stream.close()
            raw.flush()
            os.fsync(raw.fileno())
        # mkstemp makes a private file; an export is as readable as any other file of this user.
        draft.chmod(0o666 & ~_umask())
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return count


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _line(conversation: Conversation) -> bytes:
    return f'{{"{VERSION_FIELD}":{SCHEMA_VERSION},{conversation.to_json()[1:]}\n'.encode()


def _read(stream: BinaryIO, file: Path) -> Iterator[Conversation | RecordError]:
    number = 0
    with stream:
        while True:
            number += 1
            try:
                line = stream.readline()
            except (OSError, EOFError, zlib.error) as error:
                yield RecordError(f"the file is damaged from here on: {error}. Fetch it again.", path=file, line=number)
                return
            if not line:
                return
            if line.strip() and not is_tombstone(line):
                yield _parse(line, file, number)


def _parse(line: bytes, file: Path, number: int) -> Conversation | RecordError:
    try:
        row = json.loads(line.decode("utf-8"))
        if not isinstance(row, dict):
            return RecordError("not a JSON object", path=file, line=number)
        if b"\\u" in line:
            # Escapes can spell half a character, which no database and no other reader would take.
            json.dumps(row, ensure_ascii=False).encode()
        return read_wildchat(row) if is_wildchat(row) else _own(row)
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 at byte {error.start}"
    except UnicodeEncodeError as error:
        problem = f"half a character (a lone surrogate, {error.object[error.start]!a})"
    except json.JSONDecodeError as error:
        problem = f"not JSON: {error.msg} at column {error.colno}"
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = f"{where}: {first['msg']}" if where else first["msg"]
    except (ValueError, RecursionError) as error:
        problem = str(error)
    return RecordError(problem, path=file, line=number)


def _own(row: dict[str, Any]) -> Conversation:
    if "conversation_id" not in row or "messages" not in row:
        raise ValueError(
            "neither an RLHI export (conversation_id, messages) nor a WildChat row (conversation_hash, conversation)"
        )
    version = row.pop(VERSION_FIELD, SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema {version!r}, this program reads {SCHEMA_VERSION}. Upgrade with: pip install -U rlhi")
    return Conversation.model_validate(row)
