"""Only the app's key opens what was replaced."""

import sqlite3
import threading

import pytest
from cryptography.fernet import Fernet

from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.privacy.messages import MessageRedactor, open_redactor
from rlhi_plugin.privacy.placeholders import Scope
from rlhi_plugin.privacy.vault import FernetVault, unredact

SCOPE = Scope("t1", "u_1")
KEY_FILE = "-----BEGIN RSA PRIVATE KEY-----\nmail bob@example.com\nAAAA\n-----END RSA PRIVATE KEY-----"


@pytest.fixture
def vault(tmp_path):
    vault = FernetVault(tmp_path / "vault.db", key=Fernet.generate_key())
    yield vault
    vault.close()


def test_there_and_back(vault):
    text = f"I am Bob@Example.com, password=hunter2! and {KEY_FILE}"
    redaction = MessageRedactor(open_redactor("default", vault=vault))
    clean = redaction.text(text, SCOPE)
    assert "hunter2" not in clean
    assert unredact(clean, vault, SCOPE) == text
    assert unredact(clean, vault, Scope("t2", "u_1")) == clean


def test_the_file_holds_no_plain_text_and_other_keys_do_not_open_it(vault, tmp_path):
    clean = MessageRedactor(open_redactor("default", vault=vault)).text("bob@example.com", SCOPE)
    file = tmp_path / "vault.db"
    assert b"bob@example" not in file.read_bytes()
    assert file.stat().st_mode & 0o077 == 0
    other = FernetVault(file, key=Fernet.generate_key())
    with pytest.raises(ConfigError, match="another key"):
        unredact(clean, other, SCOPE)
    other.close()


def test_it_survives_reopening_and_threads(tmp_path):
    key = Fernet.generate_key()
    vault = FernetVault(tmp_path / "v.db", key=key)
    redactor = open_redactor("default", vault=vault)
    texts = [f"user{i}@example.com" for i in range(40)]
    clean = {}

    def work(part):
        for text in part:
            clean[text] = redactor.redact(text, scope=SCOPE).text

    threads = [threading.Thread(target=work, args=(texts[i::2],)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    vault.close()
    again = FernetVault(tmp_path / "v.db", key=key)
    assert [unredact(clean[text], again, SCOPE) for text in texts] == texts
    again.close()


def test_forgetting_a_user_leaves_the_others(vault):
    redaction = MessageRedactor(open_redactor("default", vault=vault))
    mine, theirs = redaction.text("bob@example.com", SCOPE), redaction.text("eve@example.com", Scope("t1", "u_2"))
    assert vault.forget("u_1") == 1
    assert vault.forget("u_1") == 0
    assert unredact(mine, vault, SCOPE) == mine
    assert unredact(theirs, vault, Scope("t1", "u_2")) == "eve@example.com"
    redaction.text("bob@example.com", SCOPE)
    assert unredact(mine, vault, SCOPE) == "bob@example.com"


def test_a_vault_that_cannot_be_written_stops_the_text(vault, tmp_path):
    redactor = open_redactor("default", vault=vault)
    with sqlite3.connect(tmp_path / "vault.db") as other:
        other.execute("DROP TABLE replaced")
    other.close()
    with pytest.raises(StoreError, match="cannot write the vault"):
        redactor.redact("bob@example.com", scope=SCOPE)


def test_wrong_arguments(tmp_path, vault):
    with pytest.raises(ConfigError, match="Fernet key"):
        FernetVault(tmp_path / "v.db", key="short")
    with pytest.raises(ConfigError, match="folder"):
        FernetVault(tmp_path / "no" / "v.db", key=Fernet.generate_key())
    with pytest.raises(ConfigError, match="vault="):
        open_redactor("off", vault=vault)
    (tmp_path / "text.db").write_text("not a database, but long enough to be looked at" * 30)
    with pytest.raises(StoreError, match="cannot open the vault"):
        FernetVault(tmp_path / "text.db", key=Fernet.generate_key())
