"""What is logged of a LangChain message: its role, its text, and a name for what is not text."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from rlhi_plugin.records import Role
from rlhi_plugin.shown import shown

MAX_ID = 256
"""Characters of `Message.id`."""

_NOT_SAID = ("reasoning", "thinking", "tool_use", "tool_call", "tool_call_chunk", "function_call")
"""Blocks of an answer that nobody reads as its text; tool calls are logged from `AIMessage.tool_calls`."""
_SHA256 = hashlib.sha256()
"""To begin with: OpenSSL looks a function up each time that it is asked for by its name."""
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)[;,]")


def is_injected(message: BaseMessage) -> bool:
    """Whether a program wrote this message in somebody's name, as LangChain's summarization does in the user's."""
    return "lc_source" in message.additional_kwargs


def role_and_text(message: BaseMessage) -> tuple[Role, str]:
    """Role and text under which a LangChain message is logged; tool traffic, calls and results alike, is ``tool``."""
    content = message.content
    text = clean(content) if isinstance(content, str) else _text(content)
    match message:
        case AIMessage(tool_calls=[_, *_] as calls):
            return "tool", _calls(calls, text)
        case AIMessage():
            return "assistant", text
        case HumanMessage():
            return "user", text
        case SystemMessage():
            return "system", text
        case ToolMessage():
            return "tool", text
    # A role of the app's own invention is not something that the user said.
    return "tool", text


def structured_answer(message: BaseMessage) -> str | None:
    """The answer as JSON, where a structured one came as the call of a tool that stands for its schema."""
    if not isinstance(message, AIMessage) or len(message.tool_calls) != 1:
        return None
    return _json(message.tool_calls[0]["args"])


def clean(text: str) -> str:
    """The text as every store and every JSON reader takes it.

    Lone surrogates become ``?``. NUL becomes U+FFFD: SQLite would keep it and PostgreSQL refuse the whole message, and
    a log must not depend on where it is kept.
    """
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def own_id(message: BaseMessage) -> str | None:
    """LangChain's id of the message, unless it is too long for a record."""
    return clean(message.id) if message.id and len(message.id) <= MAX_ID else None


def digest_id(role: Role, content: str, number: int | str) -> str:
    """An id for a message that has none of its own: the n-th time that this role says this text in this thread.

    Unlike its position, that does not change when an app sends only the last messages of a long thread.
    """
    hashed = _SHA256.copy()
    hashed.update(f"{role}\0{number}\0{content}".encode())
    return f"{role}-{hashed.hexdigest()[:24]}"


def edited_id(message_id: str, role: Role, content: str) -> str:
    """An id for other content under a known id: what a person made of a message in the thread's saved state."""
    return f"{message_id[: MAX_ID - 32]}~{digest_id(role, content, message_id)[-16:]}"


def _calls(calls: Iterable[Mapping[str, Any]], text: str) -> str:
    body = {"calls": [{"name": call["name"], "args": call["args"]} for call in calls], "text": text}
    return _json(body)


def _json(body: object) -> str:
    try:
        return clean(json.dumps(body, ensure_ascii=False, sort_keys=True, default=str))
    except Exception as error:  # noqa: BLE001 - arguments are the app's objects, whose methods may raise anything
        try:
            # Keys of several types, a cycle, or a __str__ that fails: repr gets through all but the last.
            shown = repr(body)
        except Exception:  # noqa: BLE001 - as above
            shown = f"{type(error).__name__} while writing"
        return clean(json.dumps({"unserialisable": shown}, ensure_ascii=False))


def _text(content: Iterable[str | dict[str, Any]]) -> str:
    """The text of a message's content; blocks that are not text are named, as ``[image image/png]``."""
    parts = []
    for block in content:
        if isinstance(block, str):
            parts.append(block)
        elif not isinstance(block, Mapping):
            parts.append(f"[{type(block).__name__}]")
        elif block.get("type") == "text":
            parts.append(shown(block.get("text", "")))
        elif block.get("type") not in _NOT_SAID:
            parts.append(_name(block))
    return clean("\n".join(part for part in parts if part))


def _name(block: Mapping[str, Any]) -> str:
    """Type and MIME type of a block, never its bytes: they would fill the log, and may show more than a text does."""
    kind, value = shown(block.get("type", "block")), block.get("value")
    if kind == "non_standard" and isinstance(value, Mapping) and value.get("type"):
        kind = f"non_standard {shown(value['type'])}"
    mime = block.get("mime_type")
    source: Any = block.get(kind, block.get("source"))
    if mime is None and isinstance(source, Mapping):
        mime = source.get("media_type") or _mime_of(source.get("url") or source.get("file_data"))
    return f"[{kind} {mime}]" if mime else f"[{kind}]"


def _mime_of(url: object) -> str | None:
    found = _DATA_URL.match(url[:200]) if isinstance(url, str) else None
    return found[1] if found else None
