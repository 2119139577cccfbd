"""What was replaced, for an app that asks to have it back: encrypted under a key that only the app has.

    vault = FernetVault("secrets.db", key=Fernet.generate_key())
    redactor = open_redactor("default", vault=vault)
    ...
    unredact(message.content, vault, Scope("t1", user_id))

It is a file of its own, apart from the conversations, so exports, personas and training never see it.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Protocol

from rlhi_plugin.errors import ConfigError, MissingExtraError, StoreError
from rlhi_plugin.privacy.placeholders import PLACEHOLDER, Scope

_TABLE = """
CREATE TABLE IF NOT EXISTS replaced (
  user_id TEXT NOT NULL, conversation_id TEXT NOT NULL, placeholder TEXT NOT NULL, token BLOB NOT NULL,
  PRIMARY KEY (user_id, conversation_id, placeholder)
) WITHOUT ROWID
"""
_DELETE = "DELETE FROM replaced WHERE user_id = ?"
_BUSY_S = 10.0
_KNOWN = 100_000
"""Placeholders that are known to be in the file, so that a thread's history is not written again at every turn."""

_DEPTH = 5
"""A replaced value may hold placeholders itself: a key file with an address in it."""


class Vault(Protocol):
    """Keeps what placeholders stand for. May be called from any thread."""

    def put(self, scope: Scope, placeholder: str, value: str) -> None:
        """Keep a value; the first one of a placeholder stays."""
        ...

    def get(self, scope: Scope, placeholder: str) -> str | None:
        """The value, or None where there is none."""
        ...

    def forget(self, user_id: str) -> int:
        """Delete all values of a user, and say how many there were."""
        ...


class FernetVault:
    """A `Vault` in an SQLite file, each value encrypted with Fernet (AES-128-CBC and HMAC-SHA256).

    A value is on disk before the redacted text is handed on. Who has the file without the key learns how many values
    of which kind each conversation held, and how long they were.

    Args:
        file: Made when absent; its folder must exist.
        key: A Fernet key: ``cryptography.fernet.Fernet.generate_key()``. Keep it where the file is not.

    Raises:
        ConfigError: the key is none, or the folder does not exist.
        StoreError: the file cannot be opened.
        MissingExtraError: `cryptography` is not installed.
    """

    def __init__(self, file: str | Path, *, key: str | bytes) -> None:
        try:
            from cryptography.fernet import Fernet
        except ImportError as error:
            raise MissingExtraError("cryptography", "vault") from error
        try:
            self._fernet = Fernet(key)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                "the key of the vault is not a Fernet key. Make one with: "
                'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
            ) from error
        self._file = Path(file)
        if not self._file.parent.is_dir():
            raise ConfigError(f"the folder of the vault does not exist: {self._file.parent}. Create it.")
        self._known: set[tuple[Scope, str]] = set()
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(self._file, timeout=_BUSY_S, check_same_thread=False)
            self._connection.execute("PRAGMA secure_delete=ON")
            self._connection.execute("PRAGMA synchronous=FULL")
            with self._connection:
                self._connection.execute(_TABLE)
        except sqlite3.Error as error:
            raise StoreError(f"cannot open the vault {file}: {error}. Check the file and its permissions.") from error
        self._file.chmod(0o600)

    def put(self, scope: Scope, placeholder: str, value: str) -> None:
        """See `Vault.put`.

        Raises:
            StoreError: the file cannot be written. The text is then not stored either, rather than beyond recovery.
        """
        with self._lock:
            if (scope, placeholder) in self._known:
                return
            token = self._fernet.encrypt(value.encode("utf-8", "surrogatepass"))
            row = (scope.user_id or "", scope.conversation_id, placeholder, token)
            try:
                with self._connection:
                    self._connection.execute("INSERT OR IGNORE INTO replaced VALUES (?, ?, ?, ?)", row)
            except sqlite3.Error as error:
                raise StoreError(f"cannot write the vault {self._file}: {error}. Free its disk or lock.") from error
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known.add((scope, placeholder))

    def get(self, scope: Scope, placeholder: str) -> str | None:
        """See `Vault.get`.

        Raises:
            ConfigError: the value was encrypted under another key.
            StoreError: the file cannot be read.
        """
        from cryptography.fernet import InvalidToken

        wanted = (scope.user_id or "", scope.conversation_id, placeholder)
        query = "SELECT token FROM replaced WHERE user_id = ? AND conversation_id = ? AND placeholder = ?"
        try:
            with self._lock:
                row = self._connection.execute(query, wanted).fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"cannot read the vault {self._file}: {error}. Check the file.") from error
        try:
            return None if row is None else self._fernet.decrypt(row[0]).decode("utf-8", "surrogatepass")
        except InvalidToken as error:
            raise ConfigError(f"{self._file} was written under another key. Give the key it was made with.") from error

    def forget(self, user_id: str) -> int:
        """See `Vault.forget`. SQLite overwrites the deleted bytes.

        Raises:
            StoreError: the file cannot be written.
        """
        with self._lock:
            self._known = {known for known in self._known if known[0].user_id != user_id}
            try:
                with self._connection:
                    return self._connection.execute(_DELETE, (user_id,)).rowcount
            except sqlite3.Error as error:
                raise StoreError(f"cannot write the vault {self._file}: {error}. Free its disk or lock.") from error

    def close(self) -> None:
        """Close the file. May be called twice."""
        with self._lock:
            self._connection.close()


def forget_in_vault(file: Path, user_id: str) -> int:
    """Delete all values of a user from a vault's file, for which no key is needed; how many there were.

    Raises:
        ConfigError: there is no such file, or it is no vault.
        StoreError: the file cannot be written.
    """
    if not file.is_file():
        raise ConfigError(f"there is no vault {file}. Give the file that the app's FernetVault was made with.")
    try:
        with closing(sqlite3.connect(file, timeout=_BUSY_S)) as connection, connection:
            connection.execute("PRAGMA secure_delete=ON")
            return connection.execute(_DELETE, (user_id,)).rowcount
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise StoreError(f"cannot write the vault {file}: {error}. Free its disk or lock.") from error
        raise ConfigError(f"{file} is no vault. Give the file that the app's FernetVault was made with.") from error
    except sqlite3.DatabaseError as error:
        raise ConfigError(f"{file} is no vault: {error}. Give the file of the app's FernetVault.") from error


def unredact(text: str, vault: Vault, scope: Scope) -> str:
    """The text with the values in place of the placeholders; those that the vault does not know stay.

    Args:
        text: A stored text.
        vault: Opened with the app's key.
        scope: The conversation and user that the text was stored under.

    Raises:
        ConfigError: the vault was written under another key.
        StoreError: the vault cannot be read.
    """

    def value(match: re.Match[str]) -> str:
        found = match.group()
        kept = vault.get(scope, found)
        return found if kept is None else kept

    for _ in range(_DEPTH):
        before, text = text, PLACEHOLDER.sub(value, text)
        if text == before:
            break
    return text
