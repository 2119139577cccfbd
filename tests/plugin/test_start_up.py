"""An assistant whose store is down when it starts: it answers, the journal keeps, and the store gets it all later."""

import logging
import sqlite3
import time
from contextlib import closing, contextmanager

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from moody_store import contents, until
from typer.testing import CliRunner

from rlhi_plugin import RLHIMiddleware, cli, open_store
from rlhi_plugin.durability import journal_folder, journal_folders
from rlhi_plugin.durability.folders import read_folder
from rlhi_plugin.durability.start_up import start_store
from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.records import Purpose


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("RLHI_KEY", "0123456789abcdef")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@contextmanager
def assistant(url, **options):
    middleware = RLHIMiddleware(store=url, **options)
    model = GenericFakeChatModel(messages=iter(lambda: AIMessage("ok"), None))
    agent = create_agent(model, middleware=[middleware])

    def talk(text, thread="t"):
        config = {"configurable": {"thread_id": thread, "user_id": "u"}}
        return agent.invoke({"messages": [("user", text)]}, config=config)["messages"][-1].content

    try:
        yield talk, middleware
    finally:
        middleware.close()
        middleware.store.close()


def test_a_folder_that_is_mounted_later(tmp_path, caplog):
    folder = tmp_path / "mount" / "app"
    url = f"sqlite:///{folder}/rlhi.db"
    with assistant(url) as (talk, middleware):
        assert "is down" in caplog.text
        assert "Mount its disk" in caplog.text
        assert talk("one") == "ok"
        assert middleware.record_feedback("thumbs_up", thread_id="t", user_id="u") is True
        assert middleware.status().waiting == 2
        # Nothing was made in the place of the disk.
        assert not folder.exists()
        folder.mkdir(parents=True)
        until(lambda: not middleware.status().waiting, 40)
        assert talk("two", "t2") == "ok"
        assert middleware.dropped == 0
        assert contents(middleware.store) == {"t": ["one", "ok"], "t2": ["two", "ok"]}
        assert [event.kind for event in middleware.store.feedback()] == ["thumbs_up"]


def test_what_a_dead_process_left_elsewhere_is_taken_over_and_seen(tmp_path):
    folder = tmp_path / "mount"
    url = f"sqlite:///{folder}/rlhi.db"
    beside, elsewhere = journal_folders(url)
    with assistant(url) as (talk, _):
        talk("one")
    assert journal_folder(url) == elsewhere
    assert read_folder(elsewhere).waiting == 1
    folder.mkdir()
    assert journal_folder(url) == beside
    open_store(url).close()
    shown = CliRunner().invoke(cli.app, ["status", "--store", url], env={"COLUMNS": "200"}).output
    assert f"1 turn(s) wait in {elsewhere}" in shown
    with assistant(url) as (talk, middleware):
        until(lambda: not middleware.status().waiting, 20)
        assert contents(middleware.store) == {"t": ["one", "ok"]}
    assert read_folder(elsewhere).waiting == 0


def test_the_command_replays_both_folders(tmp_path):
    folder = tmp_path / "mount"
    url = f"sqlite:///{folder}/rlhi.db"
    with assistant(url) as (talk, _):
        talk("one")
    folder.mkdir()
    done = CliRunner().invoke(cli.app, ["journal", "replay", "--store", url], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    with open_store(url) as store:
        assert contents(store) == {"t": ["one", "ok"]}


def test_a_file_that_is_locked_at_the_start(tmp_path):
    url = f"sqlite:///{tmp_path}/rlhi.db"
    open_store(url).close()
    with closing(sqlite3.connect(tmp_path / "rlhi.db", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("CREATE TABLE other (x)")
        began = time.monotonic()
        with assistant(url, store_timeout_s=0.2) as (talk, middleware):
            assert talk("one") == "ok"
            # The start waits once, and so do consent, persona and turn.
            assert time.monotonic() - began < 8
            assert middleware.status().waiting == 1
            other.execute("ROLLBACK")
            other.close()
            until(lambda: not middleware.status().waiting, 60)
            assert contents(middleware.store) == {"t": ["one", "ok"]}


def test_a_damaged_file_that_is_restored(tmp_path):
    url, file = f"sqlite:///{tmp_path}/rlhi.db", tmp_path / "rlhi.db"
    file.write_bytes(b"this is no database" * 500)
    with assistant(url) as (talk, middleware):
        assert talk("one") == "ok"
        assert "not a database" in middleware.status().last_error
        file.unlink()
        until(lambda: not middleware.status().waiting, 40)
        assert contents(middleware.store) == {"t": ["one", "ok"]}


@pytest.mark.slow
@pytest.mark.postgres
def test_a_server_that_starts_later(tmp_path):
    from postgres_server import PostgresServer

    with PostgresServer() as server:
        url = server.new_database()
        server.stop()
        with assistant(url) as (talk, middleware):
            for number in range(3):
                assert talk(f"{number}") == "ok"
            assert middleware.status().waiting == 3
            assert server.password not in str(middleware.status().last_error)
            server.start()
            until(lambda: not middleware.status().waiting, 60)
            # Without a checkpointer each call carries only what the user says now.
            assert [text for text in contents(middleware.store)["t"] if text != "ok"] == ["0", "1", "2"]
            middleware.consent.withdraw(pseudonym("u"), Purpose.LOG)
            talk("not this")
            assert "not this" not in contents(middleware.store)["t"]


@pytest.mark.slow
@pytest.mark.postgres
def test_what_no_wait_can_mend_is_raised(postgres_server, postgres_url):
    with pytest.raises(StoreError, match="Check the user and the password"):
        start_store(postgres_url.replace(postgres_server.password, "guess-99"))
    with pytest.raises(StoreError, match="Create the database"):
        start_store(postgres_server.url("absent"))


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("rlhi.db", "sqlite:///rlhi.db"),
        ("mysql://h/db", "only SQLite and PostgreSQL"),
        ("postgresql://h:port/db", "Write it as"),
        ("postgresql://h", "names no database"),
        ("sqlite://", "names no file"),
        ("sqlite:///absent/rlhi.db", "Create it, or correct the URL"),
    ],
)
def test_a_wrong_url_is_refused_at_once(url, remedy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=remedy):
        RLHIMiddleware(store=url)


def test_a_newer_schema_is_refused_at_once(tmp_path):
    url = f"sqlite:///{tmp_path}/rlhi.db"
    open_store(url).close()
    with closing(sqlite3.connect(tmp_path / "rlhi.db")) as connection, connection:
        connection.execute("UPDATE rlhi_meta SET value = '99'")
    with pytest.raises(StoreError, match="newer RLHI"):
        RLHIMiddleware(store=url)


def test_commands_still_say_what_is_wrong(tmp_path):
    failed = CliRunner().invoke(cli.app, ["status", "--store", f"sqlite:///{tmp_path}/absent/rlhi.db"])
    assert isinstance(failed.exception, ConfigError)
    assert "Create it, or correct the URL" in str(failed.exception)


def test_a_store_that_is_up_is_silent(tmp_path, caplog):
    with caplog.at_level(logging.WARNING), assistant(f"sqlite:///{tmp_path}/rlhi.db") as (talk, middleware):
        talk("one")
        assert contents(middleware.store) == {"t": ["one", "ok"]}
        assert middleware.status().store_ok
    assert caplog.text == ""
