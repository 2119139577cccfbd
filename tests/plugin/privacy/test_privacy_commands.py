"""`rlhi consent`, `rlhi forget` and `rlhi retention`: output, effect, exit codes."""

import io
import json
import sqlite3
import sys
from datetime import UTC, datetime, timedelta

import pytest
import typer
from cryptography.fernet import Fernet
from typer.testing import CliRunner

from rlhi_plugin.identity import pseudonym
from rlhi_plugin.privacy import FernetVault, Scope, commands, open_redactor
from rlhi_plugin.records import Message, Purpose
from rlhi_plugin.terminal import run as run_app

URL = "sqlite:///a.db"


@pytest.fixture
def app():
    app = typer.Typer(pretty_exceptions_enable=False)
    commands.add_to(app)
    return app


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, store):
    """A working folder, and a store of one user that the commands open."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLHI_REGISTRY", str(tmp_path / "registry"))
    monkeypatch.setattr(commands, "open_store", lambda url, *, create: store)
    old, new = (datetime.now(UTC) - timedelta(days=days) for days in (100, 1))
    said = [Message(id=str(i), role="user", content="x", created_at=at) for i, at in enumerate((old, new))]
    store.append("t1", user_id=pseudonym("u42"), messages=said)
    return tmp_path


@pytest.fixture
def rlhi(app, monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["rlhi", *arguments])
        with pytest.raises(SystemExit) as end:
            run_app(app, "rlhi")
        out, err = capsys.readouterr()
        return end.value.code or 0, " ".join(out.split()), " ".join(err.split())

    return call


@pytest.mark.parametrize(
    "command", [["consent", "show"], ["consent", "grant"], ["consent", "withdraw"], ["forget"], ["retention", "apply"]]
)
def test_every_help_has_an_example(app, command):
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert f"Example: rlhi {' '.join(command)}" in " ".join(result.output.split()).replace("`", "")


def test_consent_is_granted_withdrawn_and_shown(rlhi, store):
    code, out, _ = rlhi("consent", "grant", "u42", "--purpose", "train", "--store", URL)
    assert (code, out) == (0, f"{pseudonym('u42')}: train is allowed")
    code, out, _ = rlhi("consent", "withdraw", pseudonym("u42"), "--purpose", "train", "--store", URL)
    assert (code, out) == (0, f"{pseudonym('u42')}: train is no longer allowed")
    assert [(d.purpose, d.granted) for d in store.decisions] == [(Purpose.TRAIN, True), (Purpose.TRAIN, False)]
    _, out, _ = rlhi("consent", "show", "u42", "--store", URL)
    assert "log │ as the app's policy says" in out
    assert "train │ no │ 20" in out


def test_forget_asks_first(rlhi, store, monkeypatch):
    for answer, left in (("n\n", 1), ("y\n", 0)):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        code, out, _ = rlhi("forget", "u42", "--store", URL)
        assert code == 0
        assert len(store.talks) == left
        assert ("nothing was deleted" in out) == bool(left)


def test_forget_says_what_it_did_and_what_it_cannot(rlhi, store, folder):
    user = pseudonym("u42")
    (folder / "runs" / "1").mkdir(parents=True)
    (folder / "runs" / "1" / "manifest.json").write_text("{}")
    (folder / "runs" / "1" / "pairs.jsonl").write_text(json.dumps({"user_id": user}) + "\n")
    (folder / "registry").mkdir()
    record = {"adapter_id": "a1", "stage": "promoted", "path": "/a1", "user_ids": [user], "run_manifest": "/m"}
    (folder / "registry" / "a1.json").write_text(json.dumps(record))
    (folder / "journal").mkdir()
    (folder / "journal" / "j.jsonl").write_text(json.dumps({"user_id": user}) + "\n")
    code, out, _ = rlhi("forget", "u42", "--store", URL, "--yes", "--journal", "journal")
    assert code == 0
    assert f"{user} is forgotten: 1 conversations" in out
    assert "1 journal lines" in out
    assert "run runs/1 still holds lines of theirs: pairs.jsonl (1). Delete it." in out
    assert "adapter a1 (promoted): trained on this user's turns; retire it (rlhi-adapters retire a1" in out
    assert "backups" in out
    assert (folder / "journal" / "j.jsonl").read_text() == ""
    assert list(store.stones) == [user]


def test_forget_reaches_the_vault(rlhi, store, folder):
    vault = FernetVault(folder / "vault.db", key=Fernet.generate_key())
    scopes = [Scope("t1", pseudonym(user)) for user in ("u42", "u43")]
    names = [open_redactor("default", vault=vault).redact("bob@example.com", scope=scope).text for scope in scopes]
    _, out, _ = rlhi("forget", "u42", "--store", URL, "--yes", "--vault", "vault.db")
    assert "1 values in a vault" in out
    assert [vault.get(scope, name) for scope, name in zip(scopes, names, strict=True)] == [None, "bob@example.com"]
    vault.close()
    assert "--vault" in rlhi("forget", "u42", "--store", URL, "--yes", "--force")[1]
    (folder / "no.db").write_text("no database at all, but a text")
    sqlite3.connect(folder / "empty.db").close()
    for wrong in ("absent.db", "no.db", "empty.db"):
        code, _, err = rlhi("forget", "u42", "--store", URL, "--yes", "--force", "--vault", wrong)
        assert code == 2
        assert "FernetVault" in err


def test_an_unknown_user_is_a_mistake_unless_forced(rlhi, store):
    code, _, err = rlhi("forget", "somebody", "--store", URL, "--yes")
    assert code == 2
    assert "holds nothing of user 'somebody'" in err
    assert "--force" in err
    assert not store.stones
    code, out, _ = rlhi("forget", "somebody", "--store", URL, "--yes", "--force")
    assert code == 0
    assert list(store.stones) == [pseudonym("somebody")]
    assert "is forgotten" in out


def test_a_user_with_nothing_but_a_decision_is_known(rlhi, store):
    rlhi("consent", "grant", "shy", "--purpose", "log", "--store", URL)
    assert rlhi("forget", "shy", "--store", URL, "--yes")[0] == 0
    assert not store.decisions


def test_retention(rlhi, store):
    code, out, _ = rlhi("retention", "apply", "--store", URL, "--days", "30")
    assert (code, out) == (0, "1 message(s) deleted")
    rlhi("consent", "withdraw", "u42", "--purpose", "train", "--store", URL)
    code, _, err = rlhi("retention", "apply", "--store", URL, "--days", "30", "--days-without-train", "31")
    assert code == 2
    assert "1 to days=30" in err
    week_old = Message(id="9", role="user", content="x", created_at=datetime.now(UTC) - timedelta(days=7))
    store.append("t2", user_id=pseudonym("u42"), messages=[week_old])
    store.append("t3", user_id=pseudonym("u43"), messages=[week_old])
    _, out, _ = rlhi("retention", "apply", "--store", URL, "--days", "30", "--days-without-train", "5")
    assert out.startswith("1 message(s) deleted")
    assert [len(talk.messages) for talk in store.talks.values()] == [1, 0, 1]


def test_a_store_that_cannot_forget_is_named(rlhi, monkeypatch):
    class Old:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(commands, "open_store", lambda url, *, create: Old())
    code, _, err = rlhi("consent", "show", "u42", "--store", URL)
    assert code == 2
    assert "rlhi db upgrade" in err
