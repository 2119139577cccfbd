"""Column types that read and write the same on every database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Dialect, Integer, String, Text, TypeDecorator
from sqlalchemy.types import TypeEngine

Identity = BigInteger().with_variant(Integer, "sqlite")
"""A key that the database counts up: 64 bits on either, but SQLite only counts a column declared INTEGER."""

_ESCAPE = "\x1a"
_NUL = "\x00"


class UTCTime(TypeDecorator[datetime]):
    """An aware time as ISO 8601 text in UTC with microseconds: sorts as text, and SQLite keeps no time zones itself."""

    impl = String(32)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        """Aware time to text."""
        del dialect
        return None if value is None else value.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        """Text to aware time."""
        del dialect
        return None if value is None else datetime.fromisoformat(value)


class AnyText(TypeDecorator[str]):
    """Text of any characters. PostgreSQL knows no NUL, so there it is written as SUB 0, and SUB as SUB 1.

    Args:
        length: Characters, declared where the database only notes it; escaped text may be longer.
    """

    impl = Text
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__()
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """VARCHAR on SQLite, as the first schema has it; TEXT on PostgreSQL, where the two are one."""
        if dialect.name == "sqlite" and self.length is not None:
            return dialect.type_descriptor(String(self.length))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Text as the database can hold it."""
        if value is None or dialect.name == "sqlite" or (_NUL not in value and _ESCAPE not in value):
            return value
        return value.replace(_ESCAPE, f"{_ESCAPE}1").replace(_NUL, f"{_ESCAPE}0")

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        """None on SQLite: values go as they are, without a call for each."""
        return None if dialect.name == "sqlite" else super().bind_processor(dialect)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        """None on SQLite: values come as they are, without a call for each."""
        return None if dialect.name == "sqlite" else super().result_processor(dialect, coltype)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Text as it was given."""
        del dialect
        if value is None or _ESCAPE not in value:
            return value
        return value.replace(f"{_ESCAPE}0", _NUL).replace(f"{_ESCAPE}1", _ESCAPE)
