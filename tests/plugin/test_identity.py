"""Pseudonyms and the key behind them."""

import hashlib
import hmac
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from rlhi_plugin import identity
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.identity import key_file, load_key, pseudonym, same_key
from rlhi_plugin.records import UserId


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A configuration folder and no key in the environment."""
    monkeypatch.delenv("RLHI_KEY", raising=False)
    monkeypatch.setattr(identity.platformdirs, "user_config_dir", lambda app: str(tmp_path / "config" / app))
    return tmp_path


@given(user=st.text(min_size=1))
def test_pseudonyms_are_stable_and_valid(user):
    one = pseudonym(user, key=b"k" * 16)
    assert one == pseudonym(user, key=b"k" * 16)
    assert TypeAdapter(UserId).validate_python(one) == one
    assert len(one) == 34
    assert one != pseudonym(user, key=b"l" * 16)


def test_known_value():
    expected = hmac.new(b"0123456789abcdef", b"u42", hashlib.sha256).hexdigest()[:32]
    assert pseudonym("u42", key=b"0123456789abcdef") == f"u_{expected}"


def test_different_users_differ_also_in_broken_text():
    key = b"k" * 16
    assert len({pseudonym(user, key=key) for user in ("a", "A", "a ", "\ud800", "\ud801", "?")}) == 6


def test_nobody_has_no_pseudonym():
    with pytest.raises(ConfigError, match="Pass None"):
        pseudonym("")


def test_key_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("RLHI_KEY", "s" * 16)
    assert load_key() == b"s" * 16
    monkeypatch.setenv("RLHI_KEY", "short")
    with pytest.raises(ConfigError, match="at least 16"):
        load_key()


def test_key_file_is_made_once_and_private(own_folder):
    key = load_key()
    assert key_file().is_relative_to(own_folder)
    assert stat.S_IMODE(key_file().stat().st_mode) == 0o600
    assert list(key_file().parent.iterdir()) == [key_file()]
    identity._key_from.cache_clear()
    assert load_key() == key


def test_those_who_start_together_agree_on_a_key(own_folder):
    file = key_file()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: identity._create(file), range(8)))
    assert len(file.read_text().strip()) == 64
    assert list(file.parent.iterdir()) == [file]


def test_a_damaged_key_file_is_not_replaced(own_folder):
    key_file().parent.mkdir(parents=True)
    key_file().write_text("")
    with pytest.raises(ConfigError, match="Restore the file"):
        load_key()
    assert key_file().read_text() == ""


def test_within_one_reading_the_key_stays_the_same(monkeypatch):
    monkeypatch.setenv("RLHI_KEY", "k" * 32)
    with same_key():
        first = pseudonym("ann")
        monkeypatch.setenv("RLHI_KEY", "other" * 8)
        assert pseudonym("ann") == first
    assert pseudonym("ann") != first
    with same_key():
        monkeypatch.setenv("RLHI_KEY", "short")
        with pytest.raises(ConfigError):
            pseudonym("ann")
