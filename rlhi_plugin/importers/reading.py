"""From files to records: which format a row has, which rows belong together, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from pydantic import ValidationError

from rlhi_plugin.errors import ConfigError, RecordError
from rlhi_plugin.importers.chatgpt_export import CHATGPT
from rlhi_plugin.importers.files import Watch, rows_of
from rlhi_plugin.importers.gathering import Gathering
from rlhi_plugin.importers.halie import HALIE
from rlhi_plugin.importers.langfuse import LANGFUSE
from rlhi_plugin.importers.langsmith import LANGSMITH
from rlhi_plugin.importers.lmsys import LMSYS
from rlhi_plugin.importers.openai_messages import OPENAI
from rlhi_plugin.importers.openassistant import OPENASSISTANT
from rlhi_plugin.importers.realhumaneval import REALHUMANEVAL
from rlhi_plugin.importers.rlhi_export import RLHI
from rlhi_plugin.importers.row import Format, Imported, Row, Value
from rlhi_plugin.importers.sharegpt import SHAREGPT
from rlhi_plugin.importers.wildchat import WILDCHAT, WILDCHAT_IN_ANY_ORDER
from rlhi_plugin.privacy.tombstones import is_tombstone_row

FORMATS = (
    RLHI,
    WILDCHAT,
    CHATGPT,
    OPENASSISTANT,
    REALHUMANEVAL,
    HALIE,
    LANGSMITH,
    LANGFUSE,
    SHAREGPT,
    LMSYS,
    OPENAI,
)
"""All formats, the ones that more fields tell first: the first that recognises a row reads it."""


def read_log(
    path: str | Path, log_format: str | None = None, watch: Watch | None = None, *, any_order: bool = False
) -> Iterator[Imported]:
    """Read everything in a file, an archive or a folder.

    Args:
        path: What to read, see `rlhi_plugin.importers.files`.
        log_format: Name of the format of every row; None tells each row's from its fields.
        watch: Hears how many more bytes were read from disk.
        any_order: Read WildChat rows whose turns are empty or out of order too: good for labelling what users said,
            not for making pairs.

    Returns:
        Conversations and feedback events in the order of the file, and the errors of rows that cannot be used in their
        place. Formats that spread a conversation over rows come at the end, in the order of their first rows.

    Raises:
        ConfigError: there is no such format or file.
        MissingExtraError: a Parquet file, and pyarrow is not installed.
    """
    chosen = None if log_format is None else format_named(log_format)
    return _read(rows_of(path, _Columns(chosen), watch), chosen, any_order=any_order)


def read_rows(rows: Iterator[Row | RecordError], log_format: str | None = None) -> Iterator[Imported]:
    """As `read_log`, for rows that come from elsewhere than a file."""
    return _read(rows, None if log_format is None else format_named(log_format), any_order=False)


def is_spread(value: Value) -> bool:
    """Whether the conversation that a row belongs to may have other rows."""
    found = _format_of(value)
    return found is not None and found.place is not None


def format_named(name: str) -> Format:
    """The format of this name.

    Raises:
        ConfigError: there is none.
    """
    for known in FORMATS:
        if known.name == name:
            return known
    raise ConfigError(f"there is no format {name!r}. Known formats: {', '.join(known.name for known in FORMATS)}")


class _Columns:
    """Chooses the columns of a Parquet file that its format does not look at."""

    def __init__(self, chosen: Format | None) -> None:
        self._chosen = chosen

    def __call__(self, columns: Collection[str]) -> Collection[str]:
        chosen = self._chosen or _format_of(dict.fromkeys(columns))
        return chosen.unread if chosen else ()


def _format_of(value: Value) -> Format | None:
    for known in FORMATS:
        if known.recognises(value):
            return known
    return None


def _reader(found: Format | None, *, any_order: bool) -> Format | None:
    return WILDCHAT_IN_ANY_ORDER if any_order and found is WILDCHAT else found


def _read(rows: Iterator[Row | RecordError], chosen: Format | None, *, any_order: bool) -> Iterator[Imported]:
    waiting: dict[str, Gathering] = {}
    with ExitStack() as stack:
        for row in rows:
            if isinstance(row, RecordError):
                yield row
                continue
            if is_tombstone_row(row.value):
                continue
            found = _reader(chosen or _format_of(row.value), any_order=any_order)
            if found is None:
                yield row.refuse(_unknown(row.value))
                continue
            try:
                place = found.place(row) if found.place else None
            except ValueError as error:
                yield row.refuse(str(error))
                continue
            if place is None:
                yield from _records(found, [row])
                continue
            if found.name not in waiting:
                waiting[found.name] = stack.enter_context(Gathering())
            waiting[found.name].add(row, place)
        for name, gathering in waiting.items():
            for group in gathering.groups():
                yield from _records(format_named(name), group)


def _records(found: Format, rows: Sequence[Row]) -> Iterator[Imported]:
    try:
        yield from found.read(rows)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        yield rows[0].refuse(f"{where}: {first['msg']}" if where else first["msg"])
    except (ValueError, RecursionError) as error:
        yield rows[0].refuse(str(error))


def _unknown(value: Value) -> str:
    fields = ", ".join(sorted(map(str, value))[:8]) or "none"
    known = "; ".join(f"{known.name} ({known.fields})" for known in FORMATS)
    return f"neither an RLHI export nor another known format. Its fields: {fields}. Known: {known}"
