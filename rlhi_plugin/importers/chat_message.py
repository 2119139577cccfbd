"""One message of a chat, in the spellings that programs have for it.

OpenAI's (``role``, ``content``, ``tool_calls``), LangChain's (``type``, also wrapped in ``data`` or ``kwargs``, also a
pair of role and text), and content as a text or as a list of parts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeGuard

from rlhi_plugin.importers.fields import count_in, name_in, unpacked
from rlhi_plugin.importers.row import Value
from rlhi_plugin.records import Finish, Role

_ROLES: dict[str, Role] = {
    "user": "user", "human": "user", "prompter": "user", "humanmessage": "user", "humanmessagechunk": "user",
    "assistant": "assistant", "ai": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bard": "assistant",
    "bing": "assistant", "claude": "assistant", "gemini": "assistant", "model": "assistant", "bot": "assistant",
    "aimessage": "assistant", "aimessagechunk": "assistant",
    "system": "system", "developer": "system", "systemmessage": "system",
    "tool": "tool", "function": "tool", "function_call": "tool", "function_response": "tool", "observation": "tool",
    "tool_call": "tool", "tool_response": "tool", "toolmessage": "tool", "functionmessage": "tool",
}  # fmt: skip

_PAIR = 2
_THOUGHTS = {"reasoning", "thinking", "redacted_thinking"}
_CALLS = {"tool_use", "tool_call", "function_call"}


@dataclass(frozen=True, slots=True)
class Said:
    """A message that has not found its place in a conversation yet.

    Attributes:
        role: Who said it; tool calls and tool results alike are ``tool``.
        text: What was said; content that is no text is named, as ``[image_url]``.
        id: The foreign id.
        created_at: When.
        model: What wrote it.
        latency_s: Seconds that it took.
        input_tokens: Tokens of the prompt.
        output_tokens: Tokens of the answer.
        finish: Why it is only a part of an answer.
    """

    role: Role
    text: str
    id: str | None = None
    created_at: datetime | None = None
    model: str | None = None
    latency_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish: Finish | None = None

    def __post_init__(self) -> None:
        # Half a character (a lone surrogate) spoils its own row, not all the rows that it belongs with.
        self.text.encode()


def role_of(value: object) -> Role:
    """Our name of a foreign role.

    Raises:
        ValueError: nobody knows it.
    """
    role = _ROLES.get(value.lower()) if isinstance(value, str) else None
    if role is None:
        raise ValueError(f"the role {value!r} is not known")
    return role


def messages_of(value: object) -> list[Said]:
    """All messages in a list of them, or in a list of such lists that has one element.

    Raises:
        ValueError: one of them is not a message.
    """
    if isinstance(value, Mapping) or is_pair(value):
        value = [value]
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError("messages is not a list")  # noqa: TRY004 - one kind of error for what a row can hold
    if len(value) == 1 and isinstance(value[0], list) and not is_pair(value[0]):
        value = value[0]
    found = []
    for number, item in enumerate(value):
        try:
            said = message_of(item)
        except ValueError as error:
            raise ValueError(f"message {number}: {error}") from error
        if said is not None:
            found.append(said)
    return found


def message_of(value: object) -> Said | None:
    """One message; None for one that a program put into the history in somebody's name (LangChain's summaries).

    Raises:
        ValueError: it is none, or its role is unknown.
    """
    if is_pair(value):
        return Said(role_of(value[0]), text_of(value[1]))
    if not isinstance(value, Mapping):
        raise ValueError("not a message")  # noqa: TRY004 - one kind of error for what a row can hold
    body, role = _unwrapped(value)
    extra = body.get("additional_kwargs")
    extra = extra if isinstance(extra, Mapping) else {}
    if "lc_source" in extra:
        return None
    content = body.get("content")
    said = Said(role_of(role), text_of(content), id=name_in(body, "id"), **_usage(body))
    calls = _calls(body, extra, content)
    if calls and said.role == "assistant":
        spelled = json.dumps({"calls": calls, "text": said.text}, ensure_ascii=False, sort_keys=True, default=str)
        return replace(said, role="tool", text=spelled)
    if content is None and said.role == "assistant" and isinstance(body.get("refusal"), str):
        return replace(said, text=body["refusal"])
    return said


def text_of(content: object) -> str:
    """The text of a message's content.

    Raises:
        ValueError: it is neither a text, nor parts, nor absent.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = [content] if isinstance(content, Mapping) else content
    if not isinstance(parts, Sequence):
        raise ValueError("content is neither a text nor a list of parts")  # noqa: TRY004 - one kind of error
    return "\n".join(text for text in (_part(part) for part in parts) if text)


def _part(part: object) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        return "" if part is None else "[part]"
    kind = name_in(part, "type")
    text = part.get("text")
    if isinstance(text, Mapping):
        text = text.get("value")
    if isinstance(text, str) and kind in {None, "text", "input_text", "output_text"}:
        return text
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return str(part["refusal"])
    return "" if kind in _THOUGHTS | _CALLS else f"[{kind or 'part'}]"


def is_pair(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether this is a role and a text."""
    return (
        isinstance(value, list | tuple)
        and len(value) == _PAIR
        and isinstance(value[0], str)
        and value[0].lower() in _ROLES
    )


def _unwrapped(value: Value) -> tuple[Value, object]:
    """The fields of a message, and its role as it is spelled."""
    inner = value.get("kwargs")
    if value.get("lc") is not None and isinstance(inner, Mapping):
        path = value.get("id")
        name = path[-1] if isinstance(path, list) and path else None
        return inner, inner.get("type") or name
    inner = value.get("data")
    if isinstance(inner, Mapping) and "content" in inner:
        return inner, value.get("type") or inner.get("type")
    inner = value.get("message")
    if isinstance(inner, Mapping) and "role" not in value:
        return _unwrapped(inner)
    role = value.get("role")
    # A part of the Responses API is {"type": "message", "role": ...}; LangChain's messages have a type and no role.
    return value, role if role is not None else value.get("type")


def _usage(body: Value) -> dict[str, Any]:
    usage = body.get("usage_metadata")
    response = body.get("response_metadata")
    found: dict[str, Any] = {}
    if isinstance(usage, Mapping):
        found = {"input_tokens": count_in(usage, "input_tokens"), "output_tokens": count_in(usage, "output_tokens")}
    if isinstance(response, Mapping):
        found["model"] = name_in(response, "model_name", "model")
    return found


def _calls(body: Value, extra: Value, content: object) -> list[dict[str, Any]]:
    """Calls of tools as the recorder writes them: name and arguments."""
    found = [item for source in (body, extra) for item in _list(source.get("tool_calls")) if isinstance(item, Mapping)]
    # LangChain keeps the provider's spelling beside its own.
    found = [item for item in found if "args" in item] or found
    found += [item for source in (body, extra) if isinstance(item := source.get("function_call"), Mapping)]
    if not found and isinstance(content, list):
        found = [part for part in content if isinstance(part, Mapping) and name_in(part, "type") in _CALLS]
    return [_call(item) for item in found]


def _call(item: Value) -> dict[str, Any]:
    inner = item.get("function")
    body = inner if isinstance(inner, Mapping) else item
    arguments = next((body[name] for name in ("args", "arguments", "input") if name in body), None)
    if isinstance(arguments, str):
        # A model may write arguments that are no JSON: they are kept as it wrote them.
        arguments = unpacked(arguments)
    return {"name": body.get("name"), "args": arguments}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
