"""From a store that schema 2 wrote to this one: whether an answer is whole."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from test_store_upgrades import take_steps
from typer.testing import CliRunner

from rlhi_plugin import cli
from rlhi_plugin.logs import read_conversations
from rlhi_plugin.parquet_logs import read_parquet
from rlhi_plugin.records import Message, Purpose
from rlhi_plugin.stores import open_store, upgrading
from rlhi_plugin.stores.schema import STORE_SCHEMA

DUMP = Path(__file__).with_name("store_of_schema_2.sql")
PART = Message(id="m3", role="assistant", content="Hel", finish="incomplete")


@pytest.fixture
def old_file(tmp_path):
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.executescript(DUMP.read_text("utf-8"))
    return tmp_path / "old.db"


@pytest.fixture
def old_url(old_file):
    return f"sqlite:///{old_file}"


def check(store):
    """What was there is there, and what is new can be stored."""
    (conversation,) = store.conversations()
    assert [(m.id, m.parent_id, m.latency_s, m.finish) for m in conversation.messages] == [
        ("m0", None, None, None), ("m1", None, 0.5, None), ("m2", "m0", None, None),
    ]  # fmt: skip
    assert store.append("c", user_id="u_1", messages=[PART]) == 1
    (conversation,) = store.conversations()
    assert conversation.messages[-1] == PART
    assert [event.message_id for event in store.feedback()] == ["m1"]
    assert store.consents("u_1")[Purpose.TRAIN].granted is False


def test_an_old_file_goes_on_when_it_is_opened(old_url):
    assert upgrading.current_schema(old_url) == 2
    with open_store(old_url) as store:
        check(store)
    assert upgrading.current_schema(old_url) == STORE_SCHEMA


def test_the_command_copies_an_old_file_first(old_url, old_file):
    done = CliRunner().invoke(cli.app, ["db", "upgrade", "--store", old_url], env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    assert f"upgraded from schema 2 to {STORE_SCHEMA}" in done.output
    (copy,) = old_file.parent.glob("old.db.bak-2-*")
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT value FROM rlhi_meta").fetchall() == [("2",)]
        assert connection.execute("SELECT count(*) FROM rlhi_messages").fetchall() == [(3,)]
    with open_store(old_url) as store:
        check(store)


def test_a_program_of_schema_2_that_still_runs_goes_on_writing(old_url, old_file):
    with closing(sqlite3.connect(old_file)) as running:
        open_store(old_url).close()
        running.execute(
            "INSERT INTO rlhi_messages (conversation, sequence, message_id, role, content, created_at, model, adapter, "
            "persona_digest, parent_id, latency_s, input_tokens, output_tokens) "
            "VALUES (1, 3, 'm3', 'user', 'More.', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"
        )
        running.commit()
    with open_store(old_url) as store:
        assert next(store.conversations()).messages[-1].content == "More."


@pytest.mark.postgres
def test_an_old_server_goes_on_too(postgres_server, postgres_url):
    take_steps(postgres_url, "2")
    inserts = [line for line in DUMP.read_text("utf-8").splitlines() if line.startswith('INSERT INTO "rlhi_')]
    with postgres_server.connect(postgres_url.rpartition("/")[2]) as connection:
        for line in sorted(inserts, key=lambda line: "rlhi_messages" in line):
            if "rlhi_meta" not in line:
                # SQLite writes a boolean as a number.
                connection.execute(line.replace("'train',0,", "'train',false,"))
    assert upgrading.current_schema(postgres_url) == 2
    with open_store(postgres_url) as store:
        check(store)
    assert upgrading.current_schema(postgres_url) == STORE_SCHEMA


@pytest.mark.parametrize("name", ["logs.jsonl", "logs.parquet"])
@pytest.mark.parametrize("purpose", [(), ("--purpose", "log")])
def test_a_part_of_an_answer_is_one_in_an_export_and_after_its_import(old_url, tmp_path, name, purpose):
    with open_store(old_url) as store:
        store.append("c", user_id="u_1", messages=[PART])
        (stored,) = store.conversations()
    out, copy = tmp_path / name, f"sqlite:///{tmp_path}/copy.db"
    done = CliRunner().invoke(cli.app, ["export", "--store", old_url, "--out", str(out), *purpose])
    assert done.exit_code == 0, done.output
    (read,) = read_parquet(out) if name.endswith("parquet") else read_conversations(out)
    assert read == stored
    done = CliRunner().invoke(cli.app, ["import", str(out), "--store", copy])
    assert done.exit_code == 0, done.output
    with open_store(copy) as store:
        (again,) = store.conversations()
    assert again == stored
