"""OpenAI's messages, as chat completions and responses write them: to LangChain's, and with a persona.

Other providers are reached in the same format through LiteLLM.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, SystemMessage, convert_to_messages

from rlhi_plugin.persona.command_messages import is_command_traffic
from rlhi_plugin.persona.render import FRAME_HEAD, FRAME_TAIL, with_persona
from rlhi_plugin.recorder import role_and_text

Json = dict[str, Any]

_SYSTEM_ROLES = ("system", "developer")
_RENDERED = re.compile(rf"(?:\n\n|\A){re.escape(FRAME_HEAD)}(?:\n\d+\. \"[^\n]*\")+\n{re.escape(FRAME_TAIL)}\Z")
_TEXT_PARTS = ("text", "input_text", "output_text", "summary_text")


def plain(value: Any) -> Any:
    """A pydantic object as a dict; anything else as it is."""
    # Parsed answers hold objects that their own types do not announce.
    return value.model_dump(exclude_none=True, warnings=False) if hasattr(value, "model_dump") else value


def chat_to_langchain(messages: Iterable[Any]) -> list[BaseMessage]:
    """Chat messages, as dicts or as the client's own objects, by LangChain's converter."""
    return [_convert(message if isinstance(message, BaseMessage) else plain(message)) for message in messages]


def _convert(message: Any) -> Any:
    if isinstance(message, Mapping):
        message = dict(message)
        message.pop("id", None)  # a provider's id of the whole answer would not stay the same when it is sent again
        if message.get("tool_calls"):
            message["tool_calls"] = [_tool_call(plain(call)) for call in message["tool_calls"]]
        if not message.get("content"):
            message["content"] = message.pop("refusal", None) or ""
    try:
        return convert_to_messages([message])[0]
    except Exception:  # noqa: BLE001 - a message of a kind that LangChain does not know is logged all the same
        content = message.get("content") if isinstance(message, Mapping) else message
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)
        return ChatMessage(
            role=str(message.get("role", "unknown")) if isinstance(message, Mapping) else "unknown", content=text
        )


def _tool_call(call: Json) -> Json:
    function = plain(call.get("function") or call.get("custom") or {})
    arguments = function.get("arguments", function.get("input", ""))
    try:
        parsed = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        parsed = None
    # Models write arguments that are no JSON object; what they wrote is kept.
    args = parsed if isinstance(parsed, dict) else {"__raw__": arguments}
    return {"name": function.get("name") or "", "args": args, "id": call.get("id"), "type": "tool_call"}


def chat_reply(response: Any) -> list[BaseMessage]:
    """The answer of a chat completion: one message a choice, with the usage on the first."""
    said = [plain(choice.message) for choice in (getattr(response, "choices", None) or []) if choice.message]
    messages = chat_to_langchain(message for message in said if _says_something(message))
    usage = getattr(response, "usage", None)
    return _described(messages, response, _tokens(usage, "prompt_tokens", "completion_tokens"))


def _says_something(message: Json) -> bool:
    return bool(message.get("content") or message.get("refusal") or message.get("tool_calls"))


def responses_to_chat(items: Any) -> list[Json]:
    """Items of a responses request or answer as chat messages; calls that follow one another are one message."""
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    messages: list[Json] = []
    for item in map(plain, items or []):
        match item.get("type", "message"):
            case "message":
                messages.append({"role": item.get("role", "user"), "content": _parts(item.get("content"))})
            case "function_call" | "custom_tool_call":
                call = {"id": item.get("call_id"), "function": {k: item.get(k) for k in ("name", "arguments", "input")}}
                call["function"] = {k: v for k, v in call["function"].items() if v is not None}
                if messages and messages[-1].get("tool_calls"):
                    messages[-1]["tool_calls"].append(call)
                else:
                    messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
            case "function_call_output" | "custom_tool_call_output":
                output = _parts(item.get("output"))
                messages.append({"role": "tool", "tool_call_id": item.get("call_id") or "", "content": output})
            case "reasoning" | "item_reference":
                continue  # neither is something that anybody said
            case kind:
                # Searches, computer use and whatever comes next: that it happened is logged, under its name.
                messages.append({"role": "tool", "tool_call_id": item.get("id") or "", "content": f"[{kind}]"})
    return messages


def _parts(content: Any) -> Any:
    if content is None or isinstance(content, str):
        return content or ""
    blocks = []
    for part in map(plain, content):
        kind = part.get("type", "text")
        if kind in _TEXT_PARTS:
            blocks.append({"type": "text", "text": part.get("text") or ""})
        elif kind == "refusal":
            blocks.append({"type": "text", "text": part.get("refusal") or ""})
        else:
            blocks.append({"type": str(kind).removeprefix("input_")})
    return "\n".join(block["text"] for block in blocks) if all(b["type"] == "text" for b in blocks) else blocks


def responses_reply(response: Any) -> list[BaseMessage]:
    """The answer of a response: its messages and calls in order, with the usage on the first."""
    said = [message for message in responses_to_chat(getattr(response, "output", None)) if _says_something(message)]
    usage = getattr(response, "usage", None)
    return _described(chat_to_langchain(said), response, _tokens(usage, "input_tokens", "output_tokens"))


def _tokens(usage: Any, prompt: str, completion: str) -> Json | None:
    counts = [getattr(usage, name, None) for name in (prompt, completion)]
    if not all(isinstance(count, int) for count in counts):
        return None
    return {"input_tokens": counts[0], "output_tokens": counts[1], "total_tokens": sum(counts)}


def _described(messages: Sequence[BaseMessage], response: Any, usage: Json | None) -> list[BaseMessage]:
    described: list[BaseMessage] = []
    # By the provider's id an app knows the answer, and may report what its user did with it.
    metadata = {"model_name": getattr(response, "model", None), "id": getattr(response, "id", None)}
    for number, message in enumerate(messages):
        if isinstance(message, AIMessage):
            more = {"response_metadata": metadata, "usage_metadata": None if number else usage}
            described.append(message.model_copy(update=more))
        else:
            described.append(message)
    return described


def identified(messages: Sequence[BaseMessage], prefix: str) -> list[BaseMessage]:
    """The messages with ids that say after what they came: for requests that carry only what is new in a thread.

    The same text in the same place has the same id; another text there, which an edit makes, has another.
    """
    named = []
    for number, message in enumerate(messages):
        body = "\0".join(role_and_text(message)).encode()
        named.append(message.model_copy(update={"id": f"{prefix}-{number}-{hashlib.sha256(body).hexdigest()[:12]}"}))
    return named


@dataclass(frozen=True, slots=True)
class ResponsesCall:
    """What a responses request and its answer say about the thread.

    Attributes:
        input: Of the request.
        response: The answer, or None.
        continues: The response or conversation that the provider adds the input to; None where the input is all.
        key: Of this call alone: what its messages are named after where the provider's id does not do.
    """

    input: Any
    response: Any
    continues: str | None
    key: str

    @property
    def history(self) -> list[BaseMessage]:
        """What was said in the request."""
        said = chat_to_langchain(responses_to_chat(self.input))
        return said if self.continues is None else identified(said, self.key)

    @property
    def reply(self) -> list[BaseMessage]:
        """What was answered."""
        said = responses_reply(self.response)
        return said if self.continues is None else identified(said, str(getattr(self.response, "id", None) or self.key))


def with_persona_message(messages: Sequence[Any], persona_text: str) -> list[Any]:
    """Chat messages with the persona at the end of the last of the leading system messages, or in one of its own."""
    leading = 0
    while leading < len(messages) and plain(messages[leading]).get("role") in _SYSTEM_ROLES:
        leading += 1
    if not leading:
        return [{"role": "system", "content": persona_text}, *messages]
    last = dict(plain(messages[leading - 1]))
    content = last.get("content")
    if content is None or isinstance(content, str):
        last["content"] = with_persona(content, persona_text)
    else:
        # A part of its own at the end leaves the app's parts, and their prompt-cache marks, as they are.
        last["content"] = [*content, {"type": "text", "text": f"\n\n{persona_text}"}]
    return [*messages[: leading - 1], last, *messages[leading:]]


def without_command_messages(messages: Sequence[Any]) -> list[Any]:
    """A provider's messages without commands and our replies to them."""
    return [message for message in messages if not any(map(is_command_traffic, chat_to_langchain([message])))]


def without_persona(message: BaseMessage) -> BaseMessage | None:
    """The message without a rendered persona at its end; None where nothing else was in it.

    Whoever put it there, our own text is never logged as something that the app or a user said.
    """
    if not isinstance(message, SystemMessage):
        return message
    content: Any = message.content
    if isinstance(content, str):
        kept: Any = _RENDERED.sub("", content)
    else:
        kept = [block for block in content if not _is_persona(block)]
    if kept == content:
        return message
    return message.model_copy(update={"content": kept}) if kept else None


def _is_persona(block: Any) -> bool:
    text = block.get("text") if isinstance(block, Mapping) else block
    return isinstance(text, str) and bool(text) and not _RENDERED.sub("", text)
