"""ChatGPT's data export: ``conversations.json`` (each conversation a tree), ``message_feedback.json``, ``user.json``.

Branches are kept: an edited prompt and a regenerated answer have the parent of what they replace. An answer that was
generated again is also a feedback event about the first one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from rlhi_plugin.importers.branches import Node, as_tree
from rlhi_plugin.importers.chat_message import Said, role_of
from rlhi_plugin.importers.fields import (
    check_asked,
    mapping_in,
    name_in,
    parent_in,
    required,
    text_in,
    time_of,
    user_in,
)
from rlhi_plugin.importers.row import Format, Imported, Row, Value
from rlhi_plugin.importers.signals import thumb
from rlhi_plugin.records import Conversation, FeedbackEvent, FeedbackKind, Finish, Message

ACCOUNT_FILE = "user.json"
"""The file of an export that says whose it is."""

_CONVERSATIONS = re.compile(r"conversations(-\d+)?\.json")
_FEEDBACK = "message_feedback.json"
_THOUGHTS = {"thoughts", "reasoning_recap"}


def files_to_read(names: Collection[str]) -> set[str]:
    """Of the files in an archive or folder, those that hold rows; of an export not its settings."""
    parts = {name for name in names if _CONVERSATIONS.fullmatch(name)}
    is_export = bool(parts) and bool({ACCOUNT_FILE, _FEEDBACK, "chat.html"} & set(names))
    return parts | ({_FEEDBACK} & set(names)) if is_export else set(names) - {ACCOUNT_FILE}


def account_in(value: Any) -> str | None:
    """The account's id in `ACCOUNT_FILE`."""
    return name_in(value, "id") if isinstance(value, Mapping) else None


def _recognises(row: Value) -> bool:
    return isinstance(row.get("mapping"), Mapping) or ("rating" in row and "conversation_id" in row)


def _read(rows: Sequence[Row]) -> Iterator[Imported]:
    for row in rows:
        if "mapping" in row.value:
            yield from _conversation(row)
        else:
            yield _feedback(row)


def _feedback(row: Row) -> FeedbackEvent:
    value = row.value
    message = name_in(value, "message_id")
    content = mapping_in(value, "content")
    return FeedbackEvent(
        event_id=required(value, "id", "message_id"),
        conversation_id=required(value, "conversation_id"),
        message_id=message,
        user_id=_user(row, name_in(value, "user_id")),
        kind=thumb(text_in(value, "rating")) or FeedbackKind.THUMBS_DOWN,
        value=name_in(content, "text"),
        created_at=time_of(value.get("create_time") or value.get("update_time")),
    )


def _user(row: Row, name: str | None) -> str | None:
    return user_in("chatgpt", row.account or name)


def _conversation(row: Row) -> Iterator[Imported]:
    value = row.value
    name = required(value, "conversation_id", "id")
    tree = as_tree(_nodes(mapping_in(value, "mapping"), name_in(value, "default_model_slug")))
    if tree.detached:
        what = f"{len(tree.detached)} message(s) of conversation {name!r} lead to no beginning"
        yield row.refuse(f"{what}, from {tree.detached[0]!r} on: their parent is missing, or they go round in a circle")
    check_asked(tree.messages)
    conversation = Conversation(
        conversation_id=name,
        user_id=_user(row, name_in(value, "user_id")),
        messages=tree.messages,
        started_at=time_of(value.get("create_time")),
        source="chatgpt",
    )
    yield conversation
    yield from _regenerated(conversation)


def _nodes(mapping: Mapping[str, Any], model: str | None) -> list[Node]:
    nodes = []
    for key, node in mapping.items():
        if not isinstance(node, Mapping):
            raise ValueError(f"the node {key!r} is not an object")  # noqa: TRY004 - one kind of error
        message = node.get("message")
        try:
            said = _said(message, model) if isinstance(message, Mapping) else None
        except ValueError as error:
            raise ValueError(f"the node {key!r}: {error}") from error
        nodes.append(Node(key, parent_in(node, "parent"), said))
    return nodes


def _said(message: Value, model: str | None) -> Said | None:
    """The message of a node; None for one that holds nothing, was hidden from the user, or is a train of thought."""
    author, metadata, content = (mapping_in(message, name) for name in ("author", "metadata", "content"))
    role = role_of(author.get("role"))
    kind = name_in(content, "content_type")
    time = time_of(message.get("create_time"))
    if kind == "user_editable_context":
        # The user's standing wishes, shown to the model with every conversation.
        wishes = [content.get(name) for name in ("user_profile", "user_instructions")]
        text = "\n".join(wish for wish in wishes if isinstance(wish, str) and wish)
        return Said("system", text, created_at=time) if text else None
    if kind in _THOUGHTS or metadata.get("is_visually_hidden_from_conversation"):
        return None
    text = _text(content)
    if not text and role in {"system", "tool"}:
        return None
    if role == "assistant" and name_in(message, "recipient") not in {None, "all"}:
        role = "tool"
    model = name_in(metadata, "model_slug") or model
    return Said(role, text, created_at=time, model=model, finish=_finish(message, metadata))


def _finish(message: Value, metadata: Value) -> Finish | None:
    """Whether the user stopped the answer, or it broke off."""
    if name_in(mapping_in(metadata, "finish_details"), "type") == "interrupted":
        return "incomplete"
    return {"in_progress": "incomplete", "finished_partial_completion": "incomplete", "error": "failed"}.get(
        name_in(message, "status") or ""
    )  # type: ignore[return-value] # the values are `Finish`


def _text(content: Value) -> str:
    parts = content.get("parts")
    if isinstance(parts, list):
        return "\n".join(text for text in map(_part, parts) if text)
    return next((content[name] for name in ("text", "result") if isinstance(content.get(name), str)), "")


def _part(part: object) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        return ""
    if isinstance(part.get("text"), str):
        return str(part["text"])
    kind = str(part.get("content_type") or "part")
    return f"[{kind.removesuffix('_asset_pointer')}]"


def _regenerated(conversation: Conversation) -> Iterator[FeedbackEvent]:
    """An event about each answer to a user's message that was followed by another answer to the same message."""
    by_id = {message.id: message for message in conversation.messages}
    answers: dict[str, Message] = {}
    before = None
    for message in conversation.messages:
        parent, before = message.parent_id or before, message.id
        if message.role != "assistant" or parent is None or by_id[parent].role != "user":
            continue
        earlier, answers[parent] = answers.get(parent), message
        if earlier is not None:
            yield FeedbackEvent(
                event_id=f"regenerate:{earlier.id}"[:256],
                conversation_id=conversation.conversation_id,
                message_id=earlier.id,
                user_id=conversation.user_id,
                kind=FeedbackKind.REGENERATE,
                created_at=message.created_at,
            )


CHATGPT = Format("chatgpt", "mapping, current_node", _recognises, _read, unread=frozenset())
