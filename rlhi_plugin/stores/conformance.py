"""What every store must do, as functions that anyone can run on theirs.

    from rlhi_plugin.stores.conformance import CONVERSATION_CHECKS

    @pytest.mark.parametrize("check", CONVERSATION_CHECKS, ids=lambda check: check.__name__)
    def test_my_store(check, tmp_path):
        check(lambda: MyStore(tmp_path / "store"))

Each check gets a function that opens one and the same storage, empty at the first call. A check that does not hold
raises `ConformanceError`, an `AssertionError`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

from rlhi_plugin.errors import OwnerMismatchError
from rlhi_plugin.records import Conversation, Evidence, Message, Persona, PersonaStatement
from rlhi_plugin.stores.protocols import ConversationStore, PersonaStore

OpenConversations = Callable[[], ConversationStore]
OpenPersonas = Callable[[], PersonaStore]


class ConformanceError(AssertionError):
    """A store does not do what its protocol says."""


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ConformanceError(otherwise)


def _talk(*contents: str, prefix: str = "m") -> list[Message]:
    roles = ("user", "assistant")
    return [Message(id=f"{prefix}{i}", role=roles[i % 2], content=text) for i, text in enumerate(contents)]


def _only(store: ConversationStore) -> Conversation:
    found = list(store.conversations())
    _expect(len(found) == 1, f"one conversation was logged, {len(found)} came back")
    return found[0]


def keeps_messages_as_they_are(open_store: OpenConversations) -> None:
    """Every field comes back equal, in order: empty, long, multi-line and non-Latin text, times in any zone."""
    store = open_store()
    texts = ("", "x" * 100_000, "two\nlines\ttab", "\u00e9\u4f60\U0001f600 '\";--", " spaced ")
    said = [
        Message(
            id=f"id-{i}",
            role="assistant",
            content=text,
            created_at=datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=i - 2))),
            model="m",
            adapter="a",
            persona_digest="0" * 64,
        )
        for i, text in enumerate(texts)
    ]
    store.append("c", user_id="u_1", messages=said)
    found = _only(store)
    _expect(found.messages == tuple(said), "messages came back changed")
    _expect(found.conversation_id == "c" and found.user_id == "u_1", "the conversation's name or user changed")
    store.close()


def stores_each_message_once(open_store: OpenConversations) -> None:
    """Appending a longer history again adds only what is new, and says how much that was."""
    store = open_store()
    history = _talk("a", "b", "c", "d")
    counts = [store.append("c", user_id=None, messages=history[:n]) for n in (1, 2, 2, 4, 3, 4)]
    _expect(counts == [1, 1, 0, 2, 0, 0], f"the counts of new messages are wrong: {counts}")
    twice = store.append("c", user_id=None, messages=[*_talk("e", prefix="n"), *_talk("e", prefix="n")])
    _expect(twice == 1, "a message that occurs twice in one call was stored twice")
    _expect([m.content for m in _only(store).messages] == ["a", "b", "c", "d", "e"], "order or content is wrong")
    store.close()


def keeps_the_first_version(open_store: OpenConversations) -> None:
    """A known id with other content changes nothing."""
    store = open_store()
    store.append("c", user_id=None, messages=_talk("first"))
    store.append("c", user_id=None, messages=_talk("second"))
    _expect([m.content for m in _only(store).messages] == ["first"], "a stored message was overwritten")
    store.close()


def ids_are_per_conversation(open_store: OpenConversations) -> None:
    """The same message id in two conversations is two messages."""
    store = open_store()
    store.append("c1", user_id=None, messages=_talk("one"))
    store.append("c2", user_id=None, messages=_talk("two"))
    found = [(c.conversation_id, c.messages[0].content) for c in store.conversations()]
    _expect(found == [("c1", "one"), ("c2", "two")], f"expected c1 then c2, got {found}")
    store.close()


def empty_append_does_nothing(open_store: OpenConversations) -> None:
    """No messages, no conversation."""
    store = open_store()
    _expect(store.append("c", user_id=None, messages=[]) == 0, "an empty append counted something")
    _expect(not list(store.conversations()), "an empty append created a conversation")
    store.close()


def owners_never_change(open_store: OpenConversations) -> None:
    """Another user, or none, cannot add to a conversation; what was stored stays as it was."""
    store = open_store()
    store.append("mine", user_id="u_1", messages=_talk("a"))
    store.append("anonymous", user_id=None, messages=_talk("a"))
    for conversation, user in (("mine", "u_2"), ("mine", None), ("anonymous", "u_1")):
        try:
            store.append(conversation, user_id=user, messages=_talk("b", prefix="n"))
        except OwnerMismatchError:
            continue
        raise ConformanceError(f"{user} could add to the conversation {conversation!r}")
    _expect([len(c.messages) for c in store.conversations()] == [1, 1], "a refused append left something behind")
    store.close()


def selects_by_user(open_store: OpenConversations) -> None:
    """`user_id` selects that user's conversations; without it everybody's come, anonymous ones too."""
    store = open_store()
    for name, user in (("a", "u_1"), ("b", None), ("c", "u_2"), ("d", "u_1")):
        store.append(name, user_id=user, messages=_talk("x"))
    for wanted, names in (("u_1", ["a", "d"]), ("u_2", ["c"]), ("u_3", []), (None, ["a", "b", "c", "d"])):
        found = [c.conversation_id for c in store.conversations(user_id=wanted)]
        _expect(found == names, f"for user {wanted}: expected {names}, got {found}")
    store.close()


def survives_reopening(open_store: OpenConversations) -> None:
    """What one opening wrote, the next reads and continues."""
    store = open_store()
    store.append("c", user_id="u_1", messages=_talk("a", "b"))
    store.close()
    store.close()
    again = open_store()
    _expect(again.append("c", user_id="u_1", messages=_talk("a", "b", "c")) == 1, "reopening forgot what was stored")
    _expect([m.content for m in _only(again).messages] == ["a", "b", "c"], "order is lost over reopening")
    again.close()


def threads_lose_nothing(open_store: OpenConversations) -> None:
    """Four threads write to shared and private conversations: all is there, once, in each writer's own order."""
    store, failures = open_store(), []
    per_thread = 10

    def write(name: str) -> None:
        try:
            for i in range(per_thread):
                said = [Message(id=f"{name}-{i}", role="user", content=f"{i}")]
                store.append("shared", user_id=None, messages=[Message(id="root", role="user", content=""), *said])
                store.append(name, user_id=None, messages=said)
        except Exception as error:  # noqa: BLE001 - whatever it is, the check reports it from the main thread
            failures.append(error)

    names = ("t0", "t1", "t2", "t3")
    threads = [threading.Thread(target=write, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _expect(not failures, f"a thread failed: {failures[:1]}")
    found = {c.conversation_id: [m.id for m in c.messages] for c in store.conversations()}
    _expect(len(found["shared"]) == len(names) * per_thread + 1, f"shared holds {len(found['shared'])} messages")
    for name in names:
        expected = [f"{name}-{i}" for i in range(per_thread)]
        _expect(found[name] == expected, f"{name} is incomplete or out of order")
        _expect([i for i in found["shared"] if i.startswith(name)] == expected, f"{name} is out of order in shared")
    store.close()


def _persona(user_id: str, *texts: str) -> Persona:
    statements = tuple(
        PersonaStatement(
            text=text,
            evidence=(Evidence(conversation_id="c", message_id="m", quote=text, said_at=datetime.now(UTC)),),
            confidence=0.25,
        )
        for text in texts
    )
    return Persona(user_id=user_id, statements=statements, covers_until=datetime.now(UTC), builder="conformance")


def keeps_the_newest_persona(open_store: OpenPersonas) -> None:
    """The persona that was put last comes back equal; one user's never answers for another."""
    store = open_store()
    _expect(store.get_persona("u_1") is None, "an unknown user has a persona")
    old, new, other = _persona("u_1", "Shorter."), _persona("u_1", "Longer, please."), _persona("u_2")
    for persona in (old, other, new, new):
        store.put_persona(persona)
    _expect(store.get_persona("u_1") == new, "the newest persona does not come back equal")
    _expect(store.get_persona("u_2") == other, "a persona without statements does not come back equal")
    store.put_persona(old)
    _expect(store.get_persona("u_1") == old, "going back to an earlier persona does not work")


CONVERSATION_CHECKS: tuple[Callable[[OpenConversations], None], ...] = (
    keeps_messages_as_they_are,
    stores_each_message_once,
    keeps_the_first_version,
    ids_are_per_conversation,
    empty_append_does_nothing,
    owners_never_change,
    selects_by_user,
    survives_reopening,
    threads_lose_nothing,
)
"""Run each of them on a storage of its own."""

PERSONA_CHECKS: tuple[Callable[[OpenPersonas], None], ...] = (keeps_the_newest_persona,)
"""Run each of them on a storage of its own."""
