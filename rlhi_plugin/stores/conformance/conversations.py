"""Every `ConversationStore`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from rlhi_plugin.errors import OwnerMismatchError
from rlhi_plugin.records import Conversation, Message, Role
from rlhi_plugin.stores.conformance.expecting import ConformanceError, expect, talk
from rlhi_plugin.stores.protocols import ConversationStore

OpenConversations = Callable[[], ConversationStore]

_ROLES: tuple[Role, ...] = ("assistant", "user", "tool", "system")


def _only(store: ConversationStore) -> Conversation:
    found = list(store.conversations())
    expect(len(found) == 1, f"one conversation was logged, {len(found)} came back")
    return found[0]


def keeps_messages_as_they_are(open_store: OpenConversations) -> None:
    """Every field comes back equal, in order: empty, long, multi-line, non-Latin and NUL text, times in any zone."""
    store = open_store()
    texts = (
        "",
        "x" * 100_000,
        "two\nlines\ttab",
        "NUL \x00 and SUB \x1a0",
        "\u00e9\u4f60\U0001f600 '\";--",
        " spaced ",
    )
    said = [
        Message(
            id=f"id-{i}",
            role=_ROLES[i % len(_ROLES)],
            content=text,
            created_at=datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=i - 2))),
            model="m",
            adapter="a",
            persona_digest="0" * 64,
            parent_id="p",
            latency_s=0.125,
            input_tokens=3_000_000_000,
            output_tokens=0,
            finish=(None, "incomplete", "failed")[i % 3],
        )
        for i, text in enumerate(texts)
    ]
    store.append("c", user_id="u_1", messages=said)
    found = _only(store)
    expect(found.messages == tuple(said), "messages came back changed")
    expect(found.conversation_id == "c" and found.user_id == "u_1", "the conversation's name or user changed")
    store.close()


def stores_each_message_once(open_store: OpenConversations) -> None:
    """Appending a longer history again adds only what is new, and says how much that was."""
    store = open_store()
    history = talk("a", "b", "c", "d")
    counts = [store.append("c", user_id=None, messages=history[:n]) for n in (1, 2, 2, 4, 3, 4)]
    expect(counts == [1, 1, 0, 2, 0, 0], f"the counts of new messages are wrong: {counts}")
    twice = store.append("c", user_id=None, messages=[*talk("e", prefix="n"), *talk("e", prefix="n")])
    expect(twice == 1, "a message that occurs twice in one call was stored twice")
    expect([m.content for m in _only(store).messages] == ["a", "b", "c", "d", "e"], "order or content is wrong")
    store.close()


def keeps_the_first_version(open_store: OpenConversations) -> None:
    """A known id with other content changes nothing."""
    store = open_store()
    store.append("c", user_id=None, messages=talk("first"))
    store.append("c", user_id=None, messages=talk("second"))
    expect([m.content for m in _only(store).messages] == ["first"], "a stored message was overwritten")
    store.close()


def ids_are_per_conversation(open_store: OpenConversations) -> None:
    """The same message id in two conversations is two messages."""
    store = open_store()
    store.append("c1", user_id=None, messages=talk("one"))
    store.append("c2", user_id=None, messages=talk("two"))
    found = [(c.conversation_id, c.messages[0].content) for c in store.conversations()]
    expect(found == [("c1", "one"), ("c2", "two")], f"expected c1 then c2, got {found}")
    store.close()


def empty_append_does_nothing(open_store: OpenConversations) -> None:
    """No messages, no conversation."""
    store = open_store()
    expect(store.append("c", user_id=None, messages=[]) == 0, "an empty append counted something")
    expect(not list(store.conversations()), "an empty append created a conversation")
    store.close()


def owners_never_change(open_store: OpenConversations) -> None:
    """Another user, or none, cannot add to a conversation; what was stored stays as it was."""
    store = open_store()
    store.append("mine", user_id="u_1", messages=talk("a"))
    store.append("anonymous", user_id=None, messages=talk("a"))
    for conversation, user in (("mine", "u_2"), ("mine", None), ("anonymous", "u_1")):
        try:
            store.append(conversation, user_id=user, messages=talk("b", prefix="n"))
        except OwnerMismatchError:
            continue
        raise ConformanceError(f"{user} could add to the conversation {conversation!r}")
    expect([len(c.messages) for c in store.conversations()] == [1, 1], "a refused append left something behind")
    store.close()


def selects_by_user(open_store: OpenConversations) -> None:
    """`user_id` selects that user's conversations; without it everybody's come, anonymous ones too."""
    store = open_store()
    for name, user in (("a", "u_1"), ("b", None), ("c", "u_2"), ("d", "u_1")):
        store.append(name, user_id=user, messages=talk("x"))
    for wanted, names in (("u_1", ["a", "d"]), ("u_2", ["c"]), ("u_3", []), (None, ["a", "b", "c", "d"])):
        found = [c.conversation_id for c in store.conversations(user_id=wanted)]
        expect(found == names, f"for user {wanted}: expected {names}, got {found}")
    store.close()


def survives_reopening(open_store: OpenConversations) -> None:
    """What one opening wrote, the next reads and continues."""
    store = open_store()
    store.append("c", user_id="u_1", messages=talk("a", "b"))
    store.close()
    store.close()
    again = open_store()
    expect(again.append("c", user_id="u_1", messages=talk("a", "b", "c")) == 1, "reopening forgot what was stored")
    expect([m.content for m in _only(again).messages] == ["a", "b", "c"], "order is lost over reopening")
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
    expect(not failures, f"a thread failed: {failures[:1]}")
    found = {c.conversation_id: [m.id for m in c.messages] for c in store.conversations()}
    expect(len(found["shared"]) == len(names) * per_thread + 1, f"shared holds {len(found['shared'])} messages")
    for name in names:
        expected = [f"{name}-{i}" for i in range(per_thread)]
        expect(found[name] == expected, f"{name} is incomplete or out of order")
        expect([i for i in found["shared"] if i.startswith(name)] == expected, f"{name} is out of order in shared")
    store.close()


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
