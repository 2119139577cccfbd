"""Pseudonyms: the app's own user ids never reach the store, only a keyed hash of them.

The pseudonym is HMAC-SHA256 (RFC 2104) under a key that is kept apart from the data: in the environment variable
``RLHI_KEY``, or in a file that is created once in the user's configuration folder. Without the key, nobody can test
whether a guessed user id is in the store. Losing the key separates users from their history.
"""

from __future__ import annotations

import hmac
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

import platformdirs

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import UserId

KEY_VARIABLE = "RLHI_KEY"
_FOLDER_VARIABLES = ("HOME", "XDG_CONFIG_HOME", "APPDATA", "LOCALAPPDATA")
MIN_KEY_LENGTH = 16
"""Characters; a shorter key could be guessed (ours)."""


def pseudonym(user: str, *, key: bytes | None = None) -> UserId:
    """Replace the app's user id by ``u_`` and 32 hex digits (128 bits), always the same ones under one key.

    Args:
        user: The app's own id: an account number, an e-mail address. Not empty.
        key: Another key than this machine's.

    Raises:
        ConfigError: `user` is empty, or the key is unusable.
    """
    if not user:
        raise ConfigError("an empty user id identifies nobody. Pass None for an anonymous user.")
    return _pseudonym(user, load_key() if key is None else key)


@lru_cache(maxsize=4096)
def _pseudonym(user: str, key: bytes) -> UserId:
    # Surrogates occur in ids read from broken bytes; two ids that differ only there must stay different.
    keyed = _keyed(key).copy()
    keyed.update(user.encode("utf-8", "surrogatepass"))
    return f"u_{keyed.digest()[:16].hex()}"


@lru_cache(maxsize=8)
def _keyed(key: bytes) -> hmac.HMAC:
    # Beginning anew takes several times as long as the rest: OpenSSL looks its function up each time.
    return hmac.new(key, digestmod="sha256")


def key_file() -> Path:
    """Where the key is kept when ``RLHI_KEY`` is not set."""
    # Asking the platform for every row of a log takes longer than the hash; what it says depends on these alone.
    return _key_file(platformdirs.user_config_dir, *map(os.environ.get, _FOLDER_VARIABLES))


@lru_cache(maxsize=8)
def _key_file(folder_of: Callable[[str], str], *_: str | None) -> Path:
    return Path(folder_of("rlhi")) / "identity.key"


@contextmanager
def same_key() -> Iterator[None]:
    """Within it the key is looked for once, when it is first needed: who reads a log asks for every row."""
    token = _held.set([])
    try:
        yield
    finally:
        _held.reset(token)


_held: ContextVar[list[bytes] | None] = ContextVar("held", default=None)


def load_key() -> bytes:
    """The key of this machine: from the environment, else from the key file, which is created when absent.

    Raises:
        ConfigError: the key is too short, or its file cannot be read or written.
    """
    held = _held.get()
    if held is None:
        return _find_key()
    if not held:
        held.append(_find_key())
    return held[0]


def _find_key() -> bytes:
    from_environment = os.environ.get(KEY_VARIABLE)
    if from_environment is None:
        return _key_from(key_file())
    if len(from_environment) < MIN_KEY_LENGTH:
        raise ConfigError(
            f"{KEY_VARIABLE} has {len(from_environment)} characters, at least {MIN_KEY_LENGTH} are needed. Make one "
            'with: python -c "import secrets; print(secrets.token_hex(32))"'
        )
    return from_environment.encode("utf-8", "surrogateescape")


@lru_cache(maxsize=8)
def _key_from(file: Path) -> bytes:
    try:
        if not file.exists():
            _create(file)
        key = file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot use the key file {file}: {error}. Correct it, or set {KEY_VARIABLE}.") from error
    if len(key) < MIN_KEY_LENGTH:
        raise ConfigError(f"the key in {file} is damaged. Restore the file from a backup, or set {KEY_VARIABLE}.")
    return key.encode()


def _create(file: Path) -> None:
    """Write a new key; of several processes that do so at once, the first wins and the others use its key."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".identity-")  # mkstemp makes it 0600
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(secrets.token_hex(32) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        # A hard link, unlike a rename, never replaces a key that another process has just made.
        try:
            file.hardlink_to(draft)
        except FileExistsError:
            return
    finally:
        draft.unlink()
