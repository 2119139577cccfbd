"""A row of a foreign file, what may come out of it, and what a format has to say about itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlhi_plugin.errors import RecordError
from rlhi_plugin.records import Conversation, FeedbackEvent

Imported = Conversation | FeedbackEvent | RecordError
"""What comes out of a log: what was said, what was done about it, and what cannot be used with the reason."""

Value = Mapping[str, Any]
"""One JSON object, line of a table, or record of a Parquet file."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a file.

    Attributes:
        value: Its fields.
        path: The file; a file in an archive is named as if the archive were a folder.
        line: 1-based number of the line or record.
        unit: What `line` counts.
        account: The foreign id of the person whose log the file is, where a file beside it says so.
    """

    value: Value
    path: Path
    line: int
    unit: Literal["line", "record"] = "line"
    account: str | None = None

    def refuse(self, why: str) -> RecordError:
        """The error that names this row."""
        return RecordError(why, path=self.path, line=self.line, unit=self.unit)


@dataclass(frozen=True, slots=True)
class Place:
    """Which rows a row belongs with.

    Attributes:
        key: Rows with one key are read together.
        group: Rows of all keys that some row puts into this group are read together; None where this row does not say.
    """

    key: str
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of log.

    Attributes:
        name: What ``--format`` calls it, and `Conversation.source` of what it holds.
        fields: The fields that tell it, for people.
        recognises: Whether a row is of this kind, by its fields alone.
        read: Records of the rows that belong together, a single one where `place` is None or gives None. Raises
            ValueError where none of them can be used.
        place: Where a row belongs, for formats that spread a conversation over several rows.
        unread: Columns of a Parquet file that `read` does not look at.
    """

    name: str
    fields: str
    recognises: Callable[[Value], bool]
    read: Callable[[Sequence[Row]], Iterable[Imported]]
    place: Callable[[Row], Place | None] | None = None
    unread: frozenset[str] = frozenset()
