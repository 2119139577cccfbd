"""Conversation logs as Parquet: one row a conversation, its messages a list of structs.

The form is that of our JSONL export, field by field, so `datasets.load_dataset("parquet", data_files=...)` gives rows
that look like its lines. pyarrow writes and reads it; it comes with the extra ``parquet`` (and with ``train``).
"""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlhi_plugin.errors import ConfigError, MissingExtraError, RecordError
from rlhi_plugin.records import SCHEMA_VERSION, Conversation
from rlhi_plugin.stores.columnar import HEAD_COLUMNS, MESSAGE_COLUMNS, ConversationColumns

VERSION_KEY = b"rlhi.schema"
"""Key of the file's metadata that holds `SCHEMA_VERSION`."""

REPEATED = [
    *("user_id", "language", "source"),
    *(f"messages.list.element.{name}" for name in ("role", "model", "adapter", "persona_digest", "finish")),
]
"""Columns whose values recur, so that each is stored once."""

_CONVERSATIONS_AT_ONCE = 2_000


def write_parquet(path: str | Path, conversations: Iterable[Conversation]) -> int:
    """Write conversations to a Parquet file, which appears whole or not at all.

    Returns:
        How many were written.

    Raises:
        ConfigError: the folder does not exist or cannot be written.
        MissingExtraError: pyarrow is not installed.
    """
    return write_parquet_columns(path, _batches(iter(conversations)))


def write_parquet_columns(path: str | Path, batches: Iterable[ConversationColumns]) -> int:
    """As `write_parquet`, from columns (`SQLStore.columns`): the fast way to export a whole store.

    Returns:
        How many conversations were written.

    Raises:
        ConfigError, MissingExtraError: see `write_parquet`.
    """
    pyarrow, parquet = _pyarrow()
    schema, count = parquet_schema(), 0
    with (
        _without_cycle_search(),
        appearing_whole(Path(path)) as draft,
        parquet.ParquetWriter(
            draft, schema, compression="zstd", compression_level=1, use_dictionary=REPEATED
        ) as writer,
        # Compressing needs no Python, so the next rows are read meanwhile.
        ThreadPoolExecutor(1) as compressing,
    ):
        written = None
        for batch in batches:
            table = _to_table(pyarrow, schema, batch)
            if written is not None:
                written.result()
            written = compressing.submit(writer.write_table, table)
            count += len(batch.starts) - 1
        if written is not None:
            written.result()
    return count


def read_parquet(path: str | Path) -> Iterator[Conversation | RecordError]:
    """Read what `write_parquet` wrote, a few thousand conversations at a time.

    Returns:
        For each row its conversation, or the error that says why there is none; a row's number stands for a line's.

    Raises:
        ConfigError: there is no such file, it is no Parquet, or it does not hold conversations.
        MissingExtraError: pyarrow is not installed.
    """
    pyarrow, parquet = _pyarrow()
    try:
        file = parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise ConfigError(f"cannot read {path}: {error}. Give the path of a Parquet file.") from error
    names = set(file.schema_arrow.names)
    version = int((file.schema_arrow.metadata or {}).get(VERSION_KEY, b"1"))
    if not {"conversation_id", "messages"} <= names:
        file.close()
        raise ConfigError(f"{path} does not hold conversations (conversation_id, messages). Give an RLHI export.")
    if version != SCHEMA_VERSION:
        file.close()
        raise ConfigError(f"{path} has schema {version}, this program reads {SCHEMA_VERSION}. pip install -U rlhi")
    return _read(file, Path(path), pyarrow)


def _read(file: Any, path: Path, pyarrow: Any) -> Iterator[Conversation | RecordError]:
    number = 0
    with file:
        batches = file.iter_batches(batch_size=_CONVERSATIONS_AT_ONCE)
        while True:
            try:
                batch = next(batches, None)
            except (OSError, pyarrow.ArrowInvalid) as error:
                said = str(error).rstrip(".")
                yield RecordError(
                    f"the file is damaged from here on: {said}. Export it again.", path=path, line=number + 1
                )
                return
            if batch is None:
                return
            for row in batch.to_pylist():
                number += 1
                yield _to_conversation(row, path, number)


def _to_conversation(row: dict[str, Any], path: Path, number: int) -> Conversation | RecordError:
    try:
        return Conversation.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return RecordError(f"{where}: {first['msg']}" if where else first["msg"], path=path, line=number)


def _batches(conversations: Iterator[Conversation]) -> Iterator[ConversationColumns]:
    while some := list(islice(conversations, _CONVERSATIONS_AT_ONCE)):
        said = [message for conversation in some for message in conversation.messages]
        starts = [0]
        for conversation in some:
            starts.append(starts[-1] + len(conversation.messages))
        yield ConversationColumns(
            heads={name: [_plain(getattr(c, name)) for c in some] for name in HEAD_COLUMNS},
            starts=starts,
            messages={name: [_plain(getattr(m, name)) for m in said] for name in MESSAGE_COLUMNS},
        )


def _plain(value: Any) -> Any:
    return value.astimezone(UTC).isoformat(timespec="microseconds") if hasattr(value, "astimezone") else value


def parquet_schema() -> Any:
    """Columns of the file, which are the fields of a `Conversation`, and their Arrow types.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    pyarrow, _ = _pyarrow()
    kinds = {
        "started_at": pyarrow.timestamp("us", "UTC"),
        "created_at": pyarrow.timestamp("us", "UTC"),
        "toxic": pyarrow.bool_(),
        "latency_s": pyarrow.float64(),
        "input_tokens": pyarrow.int64(),
        "output_tokens": pyarrow.int64(),
    }
    message = pyarrow.struct([(name, kinds.get(name, pyarrow.string())) for name in MESSAGE_COLUMNS])
    heads = [(name, kinds.get(name, pyarrow.string())) for name in HEAD_COLUMNS]
    fields = [*heads, ("messages", pyarrow.list_(message))]
    return pyarrow.schema(fields, metadata={VERSION_KEY: str(SCHEMA_VERSION).encode()})


def _to_table(pyarrow: Any, schema: Any, batch: ConversationColumns) -> Any:
    kind = schema.field("messages").type.value_type
    said = [_array(pyarrow, batch.messages[field.name], field.type) for field in kind]
    structs = pyarrow.StructArray.from_arrays(said, fields=list(kind))
    lists = pyarrow.ListArray.from_arrays(pyarrow.array(batch.starts, pyarrow.int32()), structs)
    heads = [_array(pyarrow, batch.heads[name], schema.field(name).type) for name in HEAD_COLUMNS]
    return pyarrow.Table.from_arrays([*heads, lists], schema=schema)


def _array(pyarrow: Any, values: Any, kind: Any) -> Any:
    if not pyarrow.types.is_timestamp(kind):
        return pyarrow.array(values, kind)
    # Arrow parses a column of text many times faster than Python makes as many datetimes.
    return pyarrow.array(values, pyarrow.string()).cast(kind)


@contextmanager
def _without_cycle_search() -> Iterator[None]:
    """Rows are tuples of text by the million: none is part of a cycle, and looking at each took a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def appearing_whole(file: Path) -> Iterator[Path]:
    """A draft beside the file that takes its name when all went well, and is gone otherwise."""
    try:
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    except OSError as error:
        raise ConfigError(
            f"cannot write to {file.parent}: {error.strerror}. Create the folder, or name another."
        ) from error
    draft = Path(name)
    try:
        yield draft
        os.fsync(descriptor)
        mask = os.umask(0)
        os.umask(mask)
        # mkstemp makes a private file; an export is as readable as any other file of this user.
        draft.chmod(0o666 & ~mask)
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "parquet") from error
