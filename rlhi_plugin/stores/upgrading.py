"""From an older schema to this one, by Alembic.

``rlhi_meta`` is what says which schema a store has; Alembic's own table is set from it before each upgrade.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.stores.address import database_file, display_url
from rlhi_plugin.stores.dialects import lock_schema, writing
from rlhi_plugin.stores.engine import connect, refuse_newer, stored_schema, translated
from rlhi_plugin.stores.schema import STORE_SCHEMA

_SCRIPTS = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What `upgrade_store` did.

    Attributes:
        before: The schema that the store had.
        after: The one that it has now.
        backup: The copy of the file that was made first; None where nothing was to do, or the store is on a server.
    """

    before: int
    after: int
    backup: Path | None


def current_schema(url: str) -> int:
    """The schema of the store at `url`, which is left as it is.

    Raises:
        ConfigError: there is no store.
        StoreError: the database cannot be read.
    """
    engine = connect(url, create=False)
    try:
        with translated(f"read the schema of {display_url(url)}"), engine.connect() as connection:
            found = stored_schema(connection)
    finally:
        engine.dispose()
    if found is None:
        raise ConfigError(f"there is no store in {display_url(url)}. Correct the URL, or log something into it first.")
    return found


def upgrade_store(url: str, *, backed_up: bool = False) -> Upgrade:
    """Bring the tables of a store up to `STORE_SCHEMA`, in one transaction.

    Args:
        url: The store. An SQLite file is copied beside itself first, as ``FILE.bak-<schema>-<time>``.
        backed_up: The caller's word that a store on a server has a backup.

    Raises:
        ConfigError: there is no store, or it is on a server and `backed_up` is False.
        StoreError: it is newer than this program, or cannot be copied or changed; it is then as it was.
    """
    before = current_schema(url)
    refuse_newer(before, display_url(url))
    if before == STORE_SCHEMA:
        return Upgrade(before=before, after=before, backup=None)
    file = database_file(url)
    if file is None and not backed_up:
        raise ConfigError(
            f"{display_url(url)} has schema {before} and is on a server, where no backup is made. "
            "Make one with pg_dump, then run the same command with --yes."
        )
    backup = None if file is None else _back_up(file, before)
    engine = connect(url, create=False)
    try:
        with translated(f"upgrade {display_url(url)}"), writing(engine).begin() as connection:
            lock_schema(connection)
            _run(connection, stored_schema(connection) or before)
    finally:
        engine.dispose()
    return Upgrade(before=before, after=STORE_SCHEMA, backup=backup)


def upgrade_if_only_added(connection: Connection, found: int, where: str) -> None:
    """Take the missing steps inside the caller's transaction, provided that none of them changes or removes anything.

    An app that starts with a new version of this library goes on logging without anybody's help: adding columns and
    tables loses nothing and rewrites nothing, and processes of the old version that still run name the columns that
    they write.

    Raises:
        StoreError: a step does more than add; the message says to run `rlhi db upgrade`.
    """
    steps = ScriptDirectory(str(_SCRIPTS)).iterate_revisions(str(STORE_SCHEMA), str(found))
    if not all(getattr(step.module, "only_adds", False) for step in steps):
        raise StoreError(
            f"{where} has schema {found}, and this RLHI needs {STORE_SCHEMA}. "
            f"Stop what writes it, then run: rlhi db upgrade --store {where}"
        )
    _run(connection, found)


def _run(connection: Connection, found: int) -> None:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.stamp(config, str(found), purge=True)
    command.upgrade(config, str(STORE_SCHEMA))


def _back_up(file: Path, schema: int) -> Path:
    """A consistent copy of the file as it is now, whatever is written meanwhile."""
    copy = file.with_name(f"{file.name}.bak-{schema}-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")
    try:
        copy.touch(mode=0o600, exist_ok=False)
        with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        copy.chmod(file.stat().st_mode & 0o777)
    except (OSError, sqlite3.Error) as error:
        copy.unlink(missing_ok=True)
        raise StoreError(f"cannot copy {file} to {copy}: {error}. Free some space; nothing was changed.") from error
    return copy
