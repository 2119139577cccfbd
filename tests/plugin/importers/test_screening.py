"""What an import takes out, and whom it leaves out."""

import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from rlhi_plugin import cli, open_store
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.importers.import_job import ImportOptions, import_log
from rlhi_plugin.logs import write_conversations
from rlhi_plugin.records import ConsentDecision, Conversation, FeedbackEvent, Message, Purpose

MAIL, ADDRESS = "jane.roe@example.com", "93.184.216.34"
OLD, NEW = datetime(2026, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as opened:
        yield opened


@pytest.fixture
def private(tmp_path):
    """A foreign log with an address of either kind."""
    turns = [{"role": "user", "content": f"I am {MAIL} at {ADDRESS}"}, {"role": "assistant", "content": f"Hi {MAIL}"}]
    file = tmp_path / "log.jsonl"
    file.write_text(json.dumps({"conversation_id": "c", "conversation": turns}))
    return file


def texts(store):
    return [m.content for c in store.conversations() for m in c.messages]


def test_private_things_are_taken_out_and_counted(private, store, tmp_path):
    counts = import_log(private, store)
    assert counts.redacted == {"email": 2, "ip": 1}
    assert list(counts.lines())[-1] == "3 thing(s) redacted: email 2, ip 1"
    asked, answered = texts(store)
    assert answered == f"Hi {asked.split()[2]}"
    assert import_log(private, store).known == 2
    store.close()
    assert MAIL.encode() not in (tmp_path / "a.db").read_bytes()


def rlhi_import(file, store_url, *more):
    return CliRunner().invoke(cli.app, ["import", str(file), "--store", store_url, *more], env={"COLUMNS": "200"})


def test_the_command_takes_what_the_middleware_takes(private, tmp_path):
    for name, option, kept in (
        ("default", (), ()),
        ("off", ("--redact", "off"), (MAIL, ADDRESS)),
        ("kinds", ("--redact", "ip, phone"), (MAIL,)),
    ):
        url = f"sqlite:///{tmp_path}/{name}.db"
        done = rlhi_import(private, url, *option)
        assert done.exit_code == 0, done.output
        assert ("nothing was redacted" in done.output) == (name == "off")
        with open_store(url) as store:
            found = " ".join(texts(store))
        assert [value for value in (MAIL, ADDRESS) if value in found] == list(kept)


def test_a_kind_that_is_none_is_refused_before_anything_is_stored(private, tmp_path):
    failed = rlhi_import(private, f"sqlite:///{tmp_path}/b.db", "--redact", "everything")
    assert isinstance(failed.exception, ConfigError)
    assert "email" in str(failed.exception)
    assert not (tmp_path / "b.db").exists()


def log(tmp_path, *, said_at):
    file = tmp_path / "export.jsonl"
    said = Message(id="m", role="user", content="hello", created_at=said_at)
    records = [
        record
        for user in ("u_1", "u_2")
        for record in (
            Conversation(conversation_id=f"c{user}", user_id=user, messages=(said,), started_at=said_at),
            FeedbackEvent(
                event_id=f"e{user}", conversation_id=f"c{user}", user_id=user, kind="edit", value=MAIL,
                created_at=said_at,
            ),
        )
    ]  # fmt: skip
    write_conversations(file, records)
    return file


def test_who_allows_no_log_is_left_out(tmp_path, store):
    store.put_consent(ConsentDecision(user_id="u_1", purpose=Purpose.LOG, granted=False, decided_at=OLD))
    counts = import_log(log(tmp_path, said_at=NEW), store, ImportOptions(keep_feedback=store.record_feedback))
    assert (counts.withdrawn, counts.feedback) == (2, 1)
    assert [c.user_id for c in store.conversations()] == ["u_2"]
    (event,) = store.feedback()
    assert event.user_id == "u_2"
    assert MAIL not in event.value


@pytest.mark.parametrize(("said_at", "left_out"), [(OLD, 2), (NEW, 0)])
def test_who_was_forgotten_is_left_out_and_not_called_known(tmp_path, store, said_at, left_out):
    store.forget("u_1")
    counts = import_log(log(tmp_path, said_at=said_at), store, ImportOptions(keep_feedback=store.record_feedback))
    assert (counts.forgotten, counts.known, counts.messages) == (left_out, 0, 2 if not left_out else 1)
    assert len(list(store.feedback())) == (2 if not left_out else 1)
