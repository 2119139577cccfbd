"""OpenAssistant (Köpf et al., arXiv 2304.07327): trees of ``prompt`` and ``replies``, and their flat message form.

Thumbs are what volunteers gave: emoji, and the first and last rank among answers to one prompt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rlhi_plugin.importers.branches import Node, as_tree
from rlhi_plugin.importers.chat_message import Said, role_of
from rlhi_plugin.importers.fields import (
    check_asked,
    count_in,
    mapping_in,
    name_in,
    parent_in,
    required,
    text_in,
    time_of,
    user_in,
)
from rlhi_plugin.importers.languages import language_name
from rlhi_plugin.importers.row import Format, Imported, Place, Row, Value
from rlhi_plugin.records import Conversation, FeedbackEvent, FeedbackKind, Message

_TOXIC_FROM = 0.5
"""Mean toxicity that the labellers gave (0 to 1) from which a message is toxic (ours)."""

_EMOJI = {"+1": FeedbackKind.THUMBS_UP, "-1": FeedbackKind.THUMBS_DOWN}


def _recognises(row: Value) -> bool:
    return _is_tree(row) or {"message_id", "parent_id", "text", "role"} <= row.keys()


def _is_tree(row: Value) -> bool:
    prompt = row.get("prompt")
    return "message_tree_id" in row and isinstance(prompt, Mapping) and "message_id" in prompt


def _place(row: Row) -> Place | None:
    if _is_tree(row.value):
        return None
    return Place(required(row.value, "message_tree_id", "message_id"))


def _read(rows: Sequence[Row]) -> Iterator[Imported]:
    first = rows[0]
    if _is_tree(first.value):
        messages = [(first, message) for message in _flat(first.value["prompt"])]
        name = required(first.value, "message_tree_id")
    else:
        messages = [(row, row.value) for row in rows]
        name = required(first.value, "message_tree_id", "message_id")
    kept: dict[str, tuple[Row, Value]] = {}
    nodes: list[Node] = []
    for row, message in messages:
        try:
            node = _node(message)
            if node.id in kept:
                raise ValueError(f"a second message has the id {node.id!r}")  # noqa: TRY301 - reported as all others
        except ValueError as error:
            yield row.refuse(str(error))
            continue
        kept[node.id] = row, message
        nodes.append(node)
    tree = as_tree(nodes)
    for lost in tree.detached:
        yield kept[lost][0].refuse(f"message {lost!r} leads to no beginning: what it answers is not there")
    if tree.messages:
        check_asked(tree.messages)
        said = [kept[message.id][1] for message in tree.messages if message.id in kept]
        conversation = _conversation(name, said, tree.messages)
        yield conversation
        yield from _feedback(conversation.conversation_id, said)


def _flat(prompt: Value) -> Iterator[Value]:
    """All messages of a tree, without recursion: a thread of answers may be deep."""
    waiting = [prompt]
    while waiting:
        message = waiting.pop()
        yield message
        replies = message.get("replies") or []
        if not isinstance(replies, list) or not all(isinstance(reply, Mapping) for reply in replies):
            raise ValueError("replies is not a list of messages")
        waiting += reversed(replies)


def _node(message: Value) -> Node:
    name = required(message, "message_id")
    if message.get("deleted") is True:
        raise ValueError(f"message {name!r} was deleted by the moderators")
    said = Said(
        role_of(message.get("role")),
        text_in(message, "text"),
        created_at=time_of(message.get("created_date")),
        model=name_in(message, "model_name"),
    )
    return Node(name, parent_in(message, "parent_id"), said)


def _conversation(name: str, said: Sequence[Value], messages: tuple[Message, ...]) -> Conversation:
    people = {name_in(message, "user_id") for message in said if role_of(message.get("role")) == "user"}
    toxicity = [
        value["toxicity"] for message in said if (value := _table(message, "labels", "value")) and "toxicity" in value
    ]
    return Conversation(
        conversation_id=name,
        # Different people go on with a tree; nobody may be taken for another.
        user_id=user_in("openassistant", people.pop()) if len(people) == 1 else None,
        messages=messages,
        started_at=time_of(said[0].get("created_date")),
        language=language_name(said[0].get("lang")),
        toxic=max(toxicity) >= _TOXIC_FROM if toxicity else None,
        source="openassistant",
    )


def _table(message: Value, field: str, of: str) -> dict[str, float]:
    """Numbers by name: ``{name: number}``, ``{name: {of: number}}``, or parallel lists, as the flat form has them."""
    table = mapping_in(message, field)
    names, numbers = table.get("name"), table.get(of)
    pairs = (
        zip(names, numbers, strict=False) if isinstance(names, list) and isinstance(numbers, list) else table.items()
    )
    found = {name: value.get(of) if isinstance(value, Mapping) else value for name, value in pairs}
    return {name: number for name, number in found.items() if isinstance(number, int | float)}


def _feedback(conversation: str, said: Sequence[Value]) -> Iterator[FeedbackEvent]:
    answers = [message for message in said if role_of(message.get("role")) == "assistant"]
    ranked = Counter(parent_in(message, "parent_id") for message in answers if count_in(message, "rank") is not None)
    for message in answers:
        name = required(message, "message_id")

        def event(what: str, kind: FeedbackKind, value: str | None = None, name: str = name) -> FeedbackEvent:
            return FeedbackEvent(
                event_id=f"{name}:{what}", conversation_id=conversation, message_id=name, kind=kind, value=value
            )

        for emoji, count in _table(message, "emojis", "count").items():
            if emoji in _EMOJI and count > 0:
                yield event(emoji, _EMOJI[emoji], f"from {count:g} volunteer(s)")
        rank, of = count_in(message, "rank"), ranked[parent_in(message, "parent_id")]
        if rank is not None and of > 1 and rank in {0, of - 1}:
            kind = FeedbackKind.THUMBS_UP if rank == 0 else FeedbackKind.THUMBS_DOWN
            yield event("rank", kind, f"rank {rank + 1} of {of}")


OPENASSISTANT = Format(
    "openassistant",
    "message_tree_id, prompt; or message_id, parent_id, text, role",
    _recognises,
    _read,
    place=_place,
)
