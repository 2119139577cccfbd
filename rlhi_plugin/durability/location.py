"""Where the journal of a store is: every store has its own, or one's turns would be replayed into another."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs


def journal_folder(store: object) -> Path:
    """The folder for the journal of a store, which is made when it is first needed.

    Args:
        store: URL of a store, or a store object.

    Returns:
        ``rlhi.db.journal`` beside an SQLite file ``rlhi.db``. Else ``journal/NAME`` in the user's data folder, where
        the name comes from the URL without its password. A store object is asked for its attribute `url`; one without
        gets a folder of this process alone: give it a fixed one, or nothing finds the journal after a crash.
    """
    url = store if isinstance(store, str) else getattr(store, "url", None)
    if not isinstance(url, str):
        return _user_folder(f"{type(store).__name__}-{os.getpid()}-{secrets.token_hex(4)}")
    scheme, _, rest = url.partition(":///")
    if scheme.startswith("sqlite") and rest:
        file = Path(rest.partition("?")[0]).absolute()
        return file.with_name(f"{file.name}.journal")
    parts = urlsplit(url)
    where = f"{parts.scheme.partition('+')[0]}://{parts.username or ''}@{parts.hostname or ''}:{parts.port or ''}"
    digest = hashlib.sha256(f"{where}{parts.path}".encode()).hexdigest()[:12]
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", f"{parts.hostname or 'local'}{parts.path}")[:80]
    return _user_folder(f"{readable}-{digest}")


def _user_folder(name: str) -> Path:
    return Path(platformdirs.user_data_dir("rlhi")) / "journal" / name
