"""What only PostgreSQL does: passwords that stay secret, a server that goes and comes, locks, text without NUL."""

import threading
import time

import pytest
from postgres_server import PostgresServer

from rlhi_plugin.errors import ConfigError, MissingExtraError, StoreError
from rlhi_plugin.records import Message
from rlhi_plugin.stores import address, dialects, display_url, open_store

pytestmark = pytest.mark.postgres


def say(name, text="x"):
    return [Message(id=name, role="user", content=text)]


def test_a_wrong_password_is_refused_and_never_printed(postgres_server, postgres_url):
    url = postgres_url.replace(postgres_server.password, "guess-99")
    with pytest.raises(StoreError, match="Check the user and the password") as caught:
        open_store(url)
    assert "guess-99" not in str(caught.value)
    assert f"postgresql://rlhi@127.0.0.1:{postgres_server.port}/test_" in str(caught.value)


def test_an_absent_database_is_named(postgres_server):
    with pytest.raises(StoreError, match="Create the database") as caught:
        open_store(postgres_server.url("absent"))
    assert postgres_server.password not in str(caught.value)


def test_nothing_is_created_where_that_would_hide_a_typo(postgres_url):
    with pytest.raises(ConfigError, match="there is no store in postgresql://"):
        open_store(postgres_url, create=False)
    open_store(postgres_url).close()
    open_store(postgres_url, create=False).close()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_the_usual_schemes_are_understood(postgres_url, scheme):
    with open_store(postgres_url.replace("postgresql", scheme)) as store:
        assert store.append("c", user_id=None, messages=say("m")) == 1


@pytest.mark.slow
def test_a_server_that_restarts_is_found_again():
    with PostgresServer() as server, open_store(server.new_database()) as store:
        store.append("c", user_id=None, messages=say("before"))
        server.stop(hard=True)
        began = time.monotonic()
        with pytest.raises(StoreError, match="Check that the server runs") as caught:
            store.append("c", user_id=None, messages=say("while it is down"))
        assert time.monotonic() - began < dialects.CONNECT_TIMEOUT_S + 5
        assert server.password not in str(caught.value)
        server.start()
        assert store.append("c", user_id=None, messages=say("after")) == 1
        assert [m.id for m in next(store.conversations()).messages] == ["before", "after"]


def test_commits_are_durable_where_the_database_says_otherwise(postgres_server, postgres_url):
    name = postgres_url.rpartition("/")[2]
    with postgres_server.connect(name) as connection:
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    with open_store(postgres_url) as store, store._writer.begin() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
        assert connection.exec_driver_sql("SHOW transaction_isolation").scalar() == "read committed"


def test_a_deadlock_is_run_again(postgres_server, postgres_url):
    """Somebody else's transaction locks our rows in the opposite order; PostgreSQL ends one of the two."""
    name = postgres_url.rpartition("/")[2]
    with open_store(postgres_url) as store:
        store.append("a", user_id=None, messages=say("m"))
        store.append("b", user_id=None, messages=say("m"))
        lock = "SELECT 1 FROM rlhi_conversations WHERE conversation_id = '{}' FOR UPDATE"
        with postgres_server.connect(name) as other:
            # The server notices after a second and ends whoever noticed: that must be us.
            other.execute("SET deadlock_timeout = '60s'")
            other.execute("BEGIN")
            other.execute(lock.format("b"))
            counts = []
            thread = threading.Thread(target=lambda: counts.append(append_both(store)))
            thread.start()
            with postgres_server.connect(name) as watcher:
                waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"
                while watcher.execute(waiting, [name]).fetchone()[0] == 0:
                    time.sleep(0.01)
            other.execute(lock.format("a"))
            other.execute("COMMIT")
            thread.join()
        assert counts == [[1, 1]]
        assert store.counts().messages == 4


def append_both(store):
    from rlhi_plugin.records import Conversation
    from rlhi_plugin.stores.appending import Part

    heads = [Conversation(conversation_id=name, messages=()) for name in "ab"]
    return list(store._append_group([Part(head, say("n")) for head in heads]))


def test_ids_are_not_used_up_by_appending(postgres_url):
    with open_store(postgres_url) as store:
        for number in range(20):
            store.append("first", user_id=None, messages=say(f"m{number}"))
        store.append("second", user_id=None, messages=say("m"))
        with store._engine.connect() as connection:
            numbers = connection.exec_driver_sql("SELECT number FROM rlhi_conversations ORDER BY 1").scalars().all()
    assert numbers == [1, 2]


@pytest.mark.parametrize("text", ["\x00", "\x1a", "\x1a0", "\x1a1\x00", "a\x00\x1a\x1a0\x001"])
def test_nul_is_kept(postgres_url, text):
    with open_store(postgres_url) as store:
        store.append(f"c{text}", user_id=None, messages=[Message(id=f"m{text}", role="user", content=text)])
        assert store.append(f"c{text}", user_id=None, messages=say(f"m{text}")) == 0
        (found,) = store.conversations()
    assert (found.conversation_id, found.messages[0].id, found.messages[0].content) == (f"c{text}", f"m{text}", text)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://rlhi:s3cret@host/db",
        "postgresql://rlhi:s3cret@host:5432/db?sslmode=require&password=s3cret",
        "postgresql://rlhi:s3cret@host:port/db",
        "postgresql://rlhi:s3cret@host",
        "rlhi:s3cret@host/db",
        "mysql://rlhi:s3cret@host/db",
        "sqlite://rlhi:s3cret@host/db",
        "postgresql://host/db?password=s3cret",
    ],
)
def test_no_password_is_ever_shown(url):
    assert "s3cret" not in display_url(url)
    refusal = None
    try:
        address.parse_url(url)
    except ConfigError as error:
        refusal = str(error)
    assert "s3cret" not in str(refusal)


def test_the_url_is_shown_without_the_password():
    shown = display_url("postgresql://rlhi:s3cret@host:5433/db?sslmode=require")
    assert shown == "postgresql://rlhi@host:5433/db"
    assert display_url("sqlite:///a.db") == "sqlite:///a.db"


def test_a_missing_driver_names_its_extra(monkeypatch):
    def absent(*_args, **_options):
        raise ModuleNotFoundError("No module named 'psycopg'")

    monkeypatch.setattr(dialects, "create_engine", absent)
    with pytest.raises(MissingExtraError, match=r"rlhi\[postgres\]"):
        open_store("postgresql://host/db")
