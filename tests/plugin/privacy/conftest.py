"""A key, a redactor, and a store in memory with the methods that the SQL store has."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from rlhi_plugin.privacy.patterns import PatternFinder
from rlhi_plugin.privacy.redaction import SpanRedactor
from rlhi_plugin.records import Conversation, Tombstone


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("RLHI_KEY", "0123456789abcdef")


@pytest.fixture(scope="session")
def redactor():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHI_KEY", "0123456789abcdef")
        return SpanRedactor(PatternFinder())


@dataclass(frozen=True)
class Deleted:
    tombstone: Tombstone
    conversations: int
    personas: int
    consents: int
    feedback: int
    erased: bool = True


class MemoryStore:
    """Conversations, personas, feedback, consent and tombstones in dictionaries."""

    def __init__(self):
        self.talks: dict[str, Conversation] = {}
        self.personas = {}
        self.events = []
        self.decisions = []
        self.stones = {}
        self.reads = Counter()
        self.lock = threading.Lock()
        self.down = False

    def _reading(self, what):
        self.reads[what] += 1
        if self.down:
            raise OSError("the store is down")

    def append(self, conversation_id, *, user_id, messages):
        talk = self.talks.get(conversation_id) or Conversation(
            conversation_id=conversation_id, user_id=user_id, messages=()
        )
        self.talks[conversation_id] = talk.model_copy(update={"messages": (*talk.messages, *messages)})
        return len(messages)

    def conversations(self, *, user_id=None):
        self._reading("conversations")
        return iter([talk for talk in self.talks.values() if user_id in (None, talk.user_id)])

    def user_ids(self):
        return sorted({talk.user_id for talk in self.talks.values() if talk.user_id})

    def get_persona(self, user_id):
        self._reading("persona")
        return self.personas.get(user_id)

    def put_persona(self, persona):
        self.personas[persona.user_id] = persona

    def record_feedback(self, event):
        self.events.append(event)
        return True

    def feedback(self, *, user_id=None):
        return iter([event for event in self.events if user_id in (None, event.user_id)])

    def put_consent(self, decision):
        if self.down:
            raise OSError("the store is down")
        self.decisions.append(decision)

    def consents(self, user_id):
        self._reading("consents")
        mine = [decision for decision in self.decisions if decision.user_id == user_id]
        return {decision.purpose: decision for decision in sorted(mine, key=lambda d: d.decided_at)}

    def forget(self, user_id):
        stone = Tombstone(user_id=user_id, forgotten_at=datetime.now(UTC))
        gone = [name for name, talk in self.talks.items() if talk.user_id == user_id]
        for name in gone:
            del self.talks[name]
        counts = Deleted(
            stone,
            len(gone),
            int(self.personas.pop(user_id, None) is not None),
            sum(decision.user_id == user_id for decision in self.decisions),
            sum(event.user_id == user_id for event in self.events),
        )
        self.decisions = [decision for decision in self.decisions if decision.user_id != user_id]
        self.events = [event for event in self.events if event.user_id != user_id]
        self.stones[user_id] = stone
        return replace(counts)

    def tombstones(self):
        self._reading("tombstones")
        return list(self.stones.values())

    def purge(self, *, before, user_id=None):
        deleted = 0
        for name, talk in list(self.talks.items()):
            if user_id not in (None, talk.user_id):
                continue
            kept = tuple(m for m in talk.messages if m.created_at is None or m.created_at >= before)
            deleted += len(talk.messages) - len(kept)
            self.talks[name] = talk.model_copy(update={"messages": kept})
        return deleted

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@pytest.fixture
def store():
    return MemoryStore()
