"""Personas on LangGraph stores: in memory and on SQLite, from threads and from coroutines."""

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from langgraph.store.memory import InMemoryStore
from langgraph.store.sqlite import SqliteStore
from langgraph.store.sqlite.aio import AsyncSqliteStore

from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.persona.edits import lock_statement, remove_statement
from rlhi_plugin.persona.langgraph_store import LangGraphPersonaStore
from rlhi_plugin.records import Evidence, Persona, PersonaStatement
from rlhi_plugin.stores import PersonaStore
from rlhi_plugin.stores.conformance import PERSONA_CHECKS

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def persona(*texts, user="u_1"):
    statements = tuple(
        PersonaStatement(
            text=text,
            evidence=(Evidence(conversation_id="c", message_id="m", quote=text, said_at=NOW),),
            confidence=0.123456789,
            first_seen=NOW,
        )
        for text in texts
    )
    return Persona(user_id=user, statements=statements, covers_until=NOW, builder="test", edge=("c/m",), turns_read=3)


@pytest.fixture(params=["memory", "sqlite"])
def base(request, tmp_path):
    if request.param == "memory":
        yield InMemoryStore()
        return
    connection = sqlite3.connect(tmp_path / "store.db", check_same_thread=False, isolation_level=None)
    store = SqliteStore(connection)
    store.setup()
    yield store
    connection.close()


@pytest.mark.parametrize("check", PERSONA_CHECKS, ids=lambda check: check.__name__)
def test_it_conforms(check, base):
    check(lambda: LangGraphPersonaStore(base))


def test_it_is_a_persona_store(base):
    assert isinstance(LangGraphPersonaStore(base), PersonaStore)


def test_every_field_comes_back(base):
    store = LangGraphPersonaStore(base)
    whole = remove_statement(lock_statement(persona("Shorter.", "No emojis."), 1), 2, NOW)
    store.put_persona(whole)
    assert LangGraphPersonaStore(base).get_persona("u_1") == whole


def test_versions_are_kept_and_repetition_adds_none(base):
    store = LangGraphPersonaStore(base)
    told = [persona("a"), persona("a", "b"), persona("b")]
    for one in told:
        store.put_persona(one)
        store.put_persona(one)
    assert store.versions("u_1") == told
    assert store.versions("u_2") == []


def test_forgetting_leaves_nothing_of_one_user_alone(base):
    store = LangGraphPersonaStore(base)
    for one in (persona("a"), persona("b"), persona("c", user="u_2")):
        store.put_persona(one)
    store.forget("u_1")
    store.forget("u_3")
    assert store.get_persona("u_1") is None
    assert [item.key for item in base.search(("rlhi",), limit=100)] == ["u_2"]


def test_apps_of_different_namespaces_do_not_meet(base):
    one, other = LangGraphPersonaStore(base), LangGraphPersonaStore(base, ("another", "place"))
    one.put_persona(persona("a"))
    assert other.get_persona("u_1") is None


def test_threads_lose_no_version(base):
    store = LangGraphPersonaStore(base)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: store.put_persona(persona(f"wish {i}")), range(20)))
    assert len({one.statements[0].text for one in store.versions("u_1")}) == 20


def test_a_store_with_an_index_embeds_nothing():
    embedded = []

    def embed(texts):
        embedded.extend(texts)
        return [[0.0] for _ in texts]

    store = LangGraphPersonaStore(InMemoryStore(index={"dims": 1, "embed": embed}))
    store.put_persona(persona("secret wish"))
    store.put_persona(persona("another"))
    assert embedded == []


async def test_from_coroutines(tmp_path):
    async with AsyncSqliteStore.from_conn_string(str(tmp_path / "async.db")) as base:
        await base.setup()
        store = LangGraphPersonaStore(base)
        assert await store.aget_persona("u_1") is None
        await store.aput_persona(persona("a"))
        await store.aput_persona(persona("a"))
        await store.aput_persona(persona("b"))
        assert await store.aget_persona("u_1") == persona("b")
        # As the middleware does it: the synchronous call, in a thread.
        assert await asyncio.to_thread(store.get_persona, "u_1") == persona("b")
        assert await asyncio.to_thread(store.versions, "u_1") == [persona("a"), persona("b")]
        with pytest.raises(StoreError, match="asynchronous interface"):
            store.get_persona("u_1")


def test_damage_is_named(base):
    base.put(("rlhi", "personas"), "u_1", {"persona": {"user_id": 7}})
    with pytest.raises(StoreError, match="persona of u_1 is damaged"):
        LangGraphPersonaStore(base).get_persona("u_1")


def test_a_store_that_is_not_set_up_is_named(tmp_path):
    connection = sqlite3.connect(tmp_path / "empty.db", check_same_thread=False)
    with pytest.raises(StoreError, match=r"store\.setup"):
        LangGraphPersonaStore(SqliteStore(connection)).get_persona("u_1")
    connection.close()


@pytest.mark.parametrize("namespace", [(), ("a.b",), ("",), ("langgraph",)])
def test_wrong_namespaces_are_refused(namespace):
    with pytest.raises(ConfigError, match="without a full stop"):
        LangGraphPersonaStore(InMemoryStore(), namespace)


def test_something_else_is_refused():
    with pytest.raises(ConfigError, match="is no LangGraph store"):
        LangGraphPersonaStore({})
