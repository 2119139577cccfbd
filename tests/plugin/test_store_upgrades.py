"""From the first schema to this one: at opening, by command, with a copy, and refused where it would not be safe."""

import re
import sqlite3
import sys
from contextlib import closing

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import inspect
from typer.testing import CliRunner

from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.records import FeedbackEvent, Message
from rlhi_plugin.stores import open_store, upgrading
from rlhi_plugin.stores.db_cli import db_app
from rlhi_plugin.stores.dialects import writing
from rlhi_plugin.stores.engine import connect
from rlhi_plugin.stores.schema import STORE_SCHEMA, metadata
from rlhi_plugin.terminal import run

# As the first release created it: `sqlite3 a.db .schema` of a store that it had written.
FIRST_RELEASE = """
CREATE TABLE rlhi_meta (key VARCHAR(64) NOT NULL, value TEXT NOT NULL, PRIMARY KEY ("key"));
CREATE TABLE rlhi_conversations (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, conversation_id VARCHAR(256) NOT NULL, user_id VARCHAR(128),
    started_at VARCHAR(32), language VARCHAR(64), toxic BOOLEAN, source VARCHAR(64) NOT NULL, UNIQUE (conversation_id)
);
CREATE INDEX ix_rlhi_conversations_user_id ON rlhi_conversations (user_id);
CREATE TABLE rlhi_personas (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, user_id VARCHAR(128) NOT NULL, digest VARCHAR(64) NOT NULL,
    created_at VARCHAR(32) NOT NULL, body TEXT NOT NULL
);
CREATE INDEX rlhi_personas_by_user ON rlhi_personas (user_id, number);
CREATE TABLE rlhi_messages (
    conversation INTEGER NOT NULL, sequence INTEGER NOT NULL, message_id VARCHAR(256) NOT NULL,
    role VARCHAR(16) NOT NULL, content TEXT NOT NULL, created_at VARCHAR(32), model TEXT, adapter TEXT,
    persona_digest VARCHAR(64), PRIMARY KEY (conversation, sequence), UNIQUE (conversation, message_id),
    FOREIGN KEY(conversation) REFERENCES rlhi_conversations (number)
);
INSERT INTO rlhi_meta VALUES ('schema', '1');
INSERT INTO rlhi_conversations VALUES (1, 'c', 'u_1', '2026-01-01T00:00:00.000000+00:00', NULL, NULL, 'live');
INSERT INTO rlhi_messages VALUES (1, 0, 'm0', 'user', 'Hello?', '2026-01-01T00:00:00.000000+00:00', NULL, NULL, NULL);
INSERT INTO rlhi_personas VALUES (
    1, 'u_1', 'd', '2026-01-01T00:00:00.000000+00:00', '{"user_id":"u_1","statements":[],"builder":"b"}'
);
"""


@pytest.fixture
def old_file(tmp_path):
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.executescript(FIRST_RELEASE)
    return tmp_path / "old.db"


@pytest.fixture
def old_url(old_file):
    return f"sqlite:///{old_file}"


@pytest.fixture
def old_postgres_url(postgres_url):
    """The first schema on PostgreSQL, by the first step alone."""
    take_steps(postgres_url, "1")
    return postgres_url


def take_steps(url, revision):
    engine = connect(url, create=True)
    with writing(engine).begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(upgrading._SCRIPTS))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def tables(url):
    """Columns, keys and indexes of every table of ours, without Alembic's own."""
    engine = connect(url, create=False)
    look = inspect(engine)
    found = {}
    for name in sorted(set(look.get_table_names()) - {"rlhi_migrations"}):
        columns = {c["name"]: (str(c["type"]), c["nullable"]) for c in look.get_columns(name)}
        unique = sorted(u["column_names"] for u in look.get_unique_constraints(name))
        indexes = sorted((i["name"], i["column_names"]) for i in look.get_indexes(name))
        found[name] = (columns, look.get_pk_constraint(name)["constrained_columns"], unique, indexes)
    engine.dispose()
    return found


def test_an_old_store_goes_on_when_it_is_opened(old_url):
    with open_store(old_url) as store:
        (conversation,) = store.conversations(user_id="u_1")
        assert [(m.id, m.content, m.parent_id, m.latency_s) for m in conversation.messages] == [
            ("m0", "Hello?", None, None)
        ]
        new = [Message(id="m0", role="user", content="Hello?"), Message(id="m1", role="assistant", content="Hi.")]
        assert store.append("c", user_id="u_1", messages=new) == 1
        assert store.get_persona("u_1").builder == "b"
        event = FeedbackEvent(event_id="e", conversation_id="c", kind="copy", created_at="2026-01-02T00:00:00Z")
        assert store.record_feedback(event)
        assert store.forget("u_1").messages == 2
    assert upgrading.current_schema(old_url) == STORE_SCHEMA


def test_a_program_of_the_first_release_that_still_runs_goes_on_writing(old_file, old_url):
    with closing(sqlite3.connect(old_file)) as running:
        open_store(old_url).close()
        running.execute(
            "INSERT INTO rlhi_messages (conversation, sequence, message_id, role, content, created_at, model, adapter, "
            "persona_digest) VALUES (1, 1, 'm1', 'assistant', 'Hi.', NULL, NULL, NULL, NULL)"
        )
        running.commit()
    with open_store(old_url) as store:
        assert [m.id for m in next(store.conversations()).messages] == ["m0", "m1"]


def test_upgraded_and_new_tables_are_the_same(old_url, tmp_path):
    open_store(old_url).close()
    open_store(f"sqlite:///{tmp_path}/new.db").close()
    assert tables(old_url) == tables(f"sqlite:///{tmp_path}/new.db")
    take_steps(f"sqlite:///{tmp_path}/steps.db", "head")
    assert tables(f"sqlite:///{tmp_path}/steps.db") == tables(old_url)


@pytest.mark.postgres
def test_upgraded_postgresql_has_what_the_program_needs(old_postgres_url):
    open_store(old_postgres_url).close()
    engine = connect(old_postgres_url, create=False)
    with engine.connect() as connection:
        options = {"compare_type": False, "include_name": lambda name, kind, _: name != "rlhi_migrations"}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
    engine.dispose()


def test_the_steps_lead_to_this_schema():
    script = upgrading.ScriptDirectory(str(upgrading._SCRIPTS))
    assert script.get_heads() == [str(STORE_SCHEMA)]


def test_a_step_that_does_more_than_add_waits_for_the_command(old_url, old_file, monkeypatch):
    before = old_file.read_bytes()
    rewriting = type("Module", (), {"only_adds": False})
    monkeypatch.setattr(
        upgrading.ScriptDirectory, "iterate_revisions", lambda *_: [type("Step", (), {"module": rewriting})]
    )
    with pytest.raises(StoreError, match=re.escape(f"rlhi db upgrade --store {old_url}")):
        open_store(old_url)
    with closing(sqlite3.connect(old_file)) as connection:
        assert connection.execute("SELECT value FROM rlhi_meta").fetchall() == [("1",)]
    assert len(before) == old_file.stat().st_size


def test_a_failed_upgrade_leaves_the_store_as_it_was(old_url, old_file):
    with closing(sqlite3.connect(old_file)) as connection:
        # The app's own table is in the way of the last step.
        connection.execute("CREATE TABLE rlhi_tombstones (x)")
    with pytest.raises(StoreError, match="already exists"):
        upgrading.upgrade_store(old_url)
    with closing(sqlite3.connect(old_file)) as connection:
        assert connection.execute("SELECT value FROM rlhi_meta").fetchall() == [("1",)]
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert not names & {"rlhi_feedback", "rlhi_consent"}


def test_the_command_copies_first(old_url, old_file, rlhi_db):
    assert rlhi_db("current", "--store", old_url) == (0, f"{old_url} has schema 1; this program needs {STORE_SCHEMA}")
    code, out = rlhi_db("upgrade", "--store", old_url)
    assert code == 0
    assert f"upgraded from schema 1 to {STORE_SCHEMA}" in out
    (copy,) = old_file.parent.glob("old.db.bak-1-*")
    assert str(copy) in out
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT content FROM rlhi_messages").fetchall() == [("Hello?",)]
        assert connection.execute("SELECT value FROM rlhi_meta").fetchall() == [("1",)]
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert rlhi_db("upgrade", "--store", old_url)[1].endswith("nothing to do")
    assert len(list(old_file.parent.glob("*.bak-*"))) == 1


def test_the_copy_holds_what_is_only_in_the_log_yet(old_url, old_file):
    with closing(sqlite3.connect(old_file)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("PRAGMA wal_autocheckpoint=0")
        writer.execute("UPDATE rlhi_messages SET content = 'in the log'")
        writer.commit()
        copy = upgrading.upgrade_store(old_url).backup
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT content FROM rlhi_messages").fetchall() == [("in the log",)]


@pytest.mark.postgres
def test_a_server_is_upgraded_only_with_yes(old_postgres_url, rlhi_db):
    code, out = rlhi_db("upgrade", "--store", old_postgres_url)
    assert code == 2
    assert "pg_dump" in out
    assert upgrading.current_schema(old_postgres_url) == 1
    code, out = rlhi_db("upgrade", "--yes", "--store", old_postgres_url)
    assert code == 0
    assert f"upgraded from schema 1 to {STORE_SCHEMA}" in out
    assert psycopg.conninfo.conninfo_to_dict(old_postgres_url)["password"] not in out


@pytest.mark.postgres
def test_a_role_that_may_not_change_tables_is_told_who_can(postgres_server, old_postgres_url):
    name = old_postgres_url.rpartition("/")[2]
    with postgres_server.connect(name) as connection:
        connection.execute("DROP ROLE IF EXISTS writer")
        connection.execute("CREATE ROLE writer LOGIN PASSWORD 'w'")
        connection.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO writer")
    with pytest.raises(StoreError, match=r"rlhi db upgrade"):
        open_store(f"postgresql://writer:w@127.0.0.1:{postgres_server.port}/{name}")
    assert upgrading.current_schema(old_postgres_url) == 1


def test_no_store_is_a_mistake(tmp_path):
    with pytest.raises(ConfigError, match="there is no store"):
        upgrading.current_schema(f"sqlite:///{tmp_path}/typo.db")
    sqlite3.connect(tmp_path / "empty.db").close()
    (tmp_path / "empty.db").touch()
    with pytest.raises(ConfigError, match="there is no store"):
        upgrading.upgrade_store(f"sqlite:///{tmp_path}/empty.db")


@pytest.mark.parametrize("name", ["current", "upgrade"])
def test_every_help_has_an_example(name):
    result = CliRunner().invoke(db_app, [name, "--help"])
    assert result.exit_code == 0
    assert f"rlhi db {name}" in " ".join(result.output.split())


@pytest.fixture
def rlhi_db(monkeypatch, capsys):
    """As the shell would: exit code and all that is printed."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["rlhi db", *arguments])
        with pytest.raises(SystemExit) as end:
            run(db_app, "rlhi db")
        return end.value.code or 0, " ".join("".join(capsys.readouterr()).split())

    return call
