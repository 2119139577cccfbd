"""Rows of a Parquet file, a few at a time: memory does not grow with the file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, BinaryIO

from rlhi_plugin.errors import MissingExtraError

_BATCH = 64
"""Rows that are in memory at once, beside the pages that pyarrow reads them from."""


def parquet_rows(stream: BinaryIO, unread: Callable[[Collection[str]], Collection[str]]) -> Iterator[Any]:
    """Each row as a dict, or the ValueError that says why it is none.

    Args:
        stream: A file that can be sought in.
        unread: Of the columns, those that nobody will look at.

    Raises:
        MissingExtraError: pyarrow is not installed.
        ValueError: the file, or the rest of it, is damaged.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet") from error
    try:
        file = pq.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20)
        names = file.schema_arrow.names
        left_out = unread(names)
        columns = [name for name in names if name not in left_out]
        for batch in file.iter_batches(batch_size=_BATCH, columns=columns, use_threads=False):
            yield from _rows(batch)
    except OSError as error:
        # pyarrow reports damaged pages as I/O errors, damaged structure as ValueErrors.
        raise ValueError(str(error)) from error


def _rows(batch: Any) -> Iterator[Any]:
    try:
        yield from batch.to_pylist()
    except ValueError:
        # One unreadable text spoils the batch: look for it.
        for i in range(batch.num_rows):
            try:
                (row,) = batch.slice(i, 1).to_pylist()
            except ValueError as error:
                yield error
            else:
                yield row
