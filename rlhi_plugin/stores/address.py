"""What a store URL may be, and how it is shown: a password is never printed."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from rlhi_plugin.errors import ConfigError

_EXAMPLE = (
    "Write it as sqlite:///rlhi.db (a file in this folder), sqlite:////var/lib/rlhi.db (an absolute path), or "
    "postgresql://user:password@host/database."
)
_SQLITE = frozenset({"sqlite", "sqlite+pysqlite"})
_POSTGRESQL = frozenset({"postgresql", "postgres", "postgresql+psycopg"})


def parse_url(url: str) -> URL:
    """The URL with the driver that we use.

    Raises:
        ConfigError: it is malformed, or names another database than SQLite in a file or PostgreSQL.
    """
    if not isinstance(url, str):
        raise ConfigError(f"a {type(url).__name__} is not a store URL. {_EXAMPLE}")
    if "\0" in url:
        raise ConfigError(f"{_without_secrets(url)!r} is not a store URL: it holds a NUL. {_EXAMPLE}")
    try:
        parsed = make_url(url)
    # A port that is no number is a plain ValueError.
    except (ArgumentError, ValueError):
        raise ConfigError(f"{_without_secrets(url)!r} is not a store URL. {_EXAMPLE}") from None
    if parsed.drivername in _POSTGRESQL:
        if not parsed.database:
            raise ConfigError(f"{display_url(url)!r} names no database. {_EXAMPLE}")
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in _SQLITE:
        raise ConfigError(f"stores on {parsed.drivername!r} are not supported, only SQLite and PostgreSQL. {_EXAMPLE}")
    if parsed.host or not parsed.database or parsed.database == ":memory:" or parsed.database.startswith("file:"):
        raise ConfigError(f"{_without_secrets(url)!r} names no file that would outlive the process. {_EXAMPLE}")
    return URL.create("sqlite+pysqlite", database=parsed.database)


def database_file(url: str) -> Path | None:
    """The file that a store URL names, or None where the store is on a server.

    Raises:
        ConfigError: see `parse_url`.
    """
    parsed = parse_url(url)
    return Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" else None


def display_url(url: str) -> str:
    """The URL without password and options, fit to be printed and logged. Never raises."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return _without_secrets(url)
    if parsed.get_backend_name() == "sqlite":
        return _without_secrets(url)
    user = f"{quote(parsed.username, safe='')}@" if parsed.username else ""
    port = f":{parsed.port}" if parsed.port else ""
    return f"postgresql://{user}{parsed.host or ''}{port}/{parsed.database or ''}"


def _without_secrets(url: str) -> str:
    """Whatever was given in place of a URL, cut off before anything that may be a password."""
    return f"{url.partition(':')[0]}:..." if "@" in url or "password" in url.lower() else url
