"""Where the journal of a store is: every store has its own, or one's turns would be replayed into another."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.stores.address import database_file


def journal_folder(store: object) -> Path:
    """The folder for the journal of a store, which is made when it is first needed.

    Args:
        store: URL of a store, or a store object.

    Returns:
        ``rlhi.db.journal`` beside an SQLite file ``rlhi.db``, unless the folder of that is missing: to make it would
        hide that a disk is not mounted. Else ``journal/NAME`` in the user's data folder, where
        the name comes from the URL without its password. A store object is asked for its attribute `url`; one without
        gets a folder of this process alone: give it a fixed one, or nothing finds the journal after a crash.
    """
    beside, *elsewhere = journal_folders(store)
    return beside if beside.parent.is_dir() or not elsewhere else elsewhere[0]


def journal_folders(store: object) -> list[Path]:
    """Every folder in which turns for a store may wait, the usual one first. They need not exist.

    Args:
        store: See `journal_folder`.
    """
    url = store if isinstance(store, str) else getattr(store, "url", None)
    if not isinstance(url, str):
        return [_user_folder(f"{type(store).__name__}-{os.getpid()}-{secrets.token_hex(4)}")]
    scheme, _, rest = url.partition(":///")
    if scheme.startswith("sqlite") and rest:
        file = Path(rest.partition("?")[0]).absolute()
        return [file.with_name(f"{file.name}.journal"), _named(file.name, str(file))]
    return [_folder_of_server(url)]


def may_outlive(journal: Path | None, store: object) -> bool:
    """Whether the file of an SQLite store may hang while the journal does not: they are not on one disk.

    False for other stores, and without a journal True: then nothing that hangs is worth waiting for.
    """
    url = store if isinstance(store, str) else getattr(store, "url", None)
    try:
        file = database_file(url) if isinstance(url, str) else None
    except ConfigError:  # a store of another kind, with a URL of its own
        return False
    if file is None:
        return False
    return journal is None or _disk(journal) != _disk(file)


def _disk(path: Path) -> int | None:
    """Number of the disk that a path is on, or will be; None where nobody can say."""
    for folder in (path, *path.absolute().parents):
        try:
            return folder.stat().st_dev
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None


def _folder_of_server(url: str) -> Path:
    parts = urlsplit(url)
    where = f"{parts.scheme.partition('+')[0]}://{parts.username or ''}@{parts.hostname or ''}:{parts.port or ''}"
    return _named(f"{parts.hostname or 'local'}{parts.path}", f"{where}{parts.path}")


def _named(shown: str, unique: str) -> Path:
    digest = hashlib.sha256(unique.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", shown)[:80]
    return _user_folder(f"{readable}-{digest}")


def _user_folder(name: str) -> Path:
    return Path(platformdirs.user_data_dir("rlhi")) / "journal" / name
