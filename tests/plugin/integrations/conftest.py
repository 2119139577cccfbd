"""A store, a persona in it, and what is in the store afterwards."""

import pytest

from rlhi_plugin import open_store
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.records import Evidence, Persona, PersonaStatement


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("RLHI_KEY", "0123456789abcdef")


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/rlhi.db") as opened:
        yield opened


@pytest.fixture
def logged(store):
    """Role and text of every message, by conversation."""
    return lambda: {c.conversation_id: [(m.role, m.content) for m in c.messages] for c in store.conversations()}


@pytest.fixture
def put_persona(store):
    def put(user="u42", text="Shorter, please."):
        evidence = (Evidence(conversation_id="c", message_id="m", quote=text),)
        statement = PersonaStatement(text=text, evidence=evidence)
        persona = Persona(user_id=pseudonym(user), statements=(statement,), builder="test")
        store.put_persona(persona)
        return persona

    return put


class BrokenStore:
    """Every operation fails."""

    def _fail(self, *arguments, **named):
        raise OSError("the disk is gone")

    append = conversations = get_persona = put_persona = _fail

    def close(self):
        pass


@pytest.fixture
def broken_store():
    return BrokenStore()
