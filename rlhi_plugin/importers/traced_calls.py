"""What traces have in common: inputs and outputs of chains and models, in the shapes in which programs leave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from rlhi_plugin.importers.calls import Thread
from rlhi_plugin.importers.chat_message import Said, is_pair, message_of, messages_of
from rlhi_plugin.importers.fields import unpacked
from rlhi_plugin.records import Finish, Message

_LISTS = ("messages", "chat_history", "history")
_ASKED = ("input", "question", "query", "prompt", "human_input", "user_input", "text", "content", "prompts")
_ANSWERED = ("output", "answer", "response", "result", "text", "completion", "content", "output_text")


@dataclass(frozen=True, slots=True)
class Call:
    """One request and its answer.

    Attributes:
        id: The foreign id, by which feedback names it.
        asked: What went in.
        answered: What came out; its messages carry `ended_at`, model and so on.
        started_at: When it began.
        only_new: Whether `asked` holds nothing of the history.
    """

    id: str
    asked: Sequence[Said]
    answered: Sequence[Said]
    started_at: datetime | None
    only_new: bool = False


@dataclass(frozen=True, slots=True)
class Measures:
    """What is known of the answer beside its text.

    Attributes:
        ended_at: When it was there.
        model: What wrote it.
        latency_s: Seconds that it took.
        input_tokens: Tokens of the prompt.
        output_tokens: Tokens of the answer.
        finish: Why the answer is only a part of one.
    """

    ended_at: datetime | None = None
    model: str | None = None
    latency_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish: Finish | None = None


def asked_in(value: Any) -> list[Said]:
    """The messages that went into a call; a bare text is the user's. Empty where there is none.

    Raises:
        ValueError: there is a list of messages, and it cannot be read.
    """
    return _said(unpacked(value), _ASKED, "user")


def is_text(value: Any) -> bool:
    """Whether the input of a call is a text, in an object or not, without any list that could be a history."""
    value = unpacked(value)
    if isinstance(value, Mapping):
        return all(is_text(inner) for inner in value.values())
    return not isinstance(value, list)


def answered_in(value: Any) -> list[Said]:
    """The messages that came out of a call; a bare text is the assistant's. Empty where there is none.

    Raises:
        ValueError: there is a list of messages, and it cannot be read.
    """
    value = unpacked(value)
    generations = value.get("generations") if isinstance(value, Mapping) else None
    if isinstance(generations, list):
        return _generated(generations)
    choices = value.get("choices") if isinstance(value, Mapping) else None
    if isinstance(choices, list):
        # Other choices were not shown.
        return messages_of(choices[:1])
    return _said(value, _ANSWERED, "assistant")


def _said(value: Any, names: Sequence[str], role: str) -> list[Said]:
    if isinstance(value, list) and value and isinstance(value[0], str) and not is_pair(value):
        # Prompts of a model that completes texts: the first of a batch.
        value = value[0]
    if isinstance(value, str):
        return messages_of([{"role": role, "content": value}]) if value else []
    if isinstance(value, list) or (isinstance(value, Mapping) and _is_message(value)):
        return messages_of(value)
    return _said_in(value, names, role) if isinstance(value, Mapping) else []


def _said_in(value: Mapping[str, Any], names: Sequence[str], role: str) -> list[Said]:
    """The messages of an object: a list of them, or a history and one more."""
    history: list[Said] = []
    for name in _LISTS:
        inner = unpacked(value.get(name))
        if isinstance(inner, list) and inner:
            history = messages_of(inner)
            break
    if history and name == "messages":
        return history
    for name in names:
        found = _said(unpacked(value.get(name)), names, role)
        if found:
            return [*history, *found]
    return history


def _is_message(value: Mapping[str, Any]) -> bool:
    if "lc" in value and "kwargs" in value:
        return True
    named = isinstance(value.get("role"), str) or isinstance(value.get("type"), str)
    return named and ("content" in value or "data" in value or "tool_calls" in value)


def _generated(generations: list[Any]) -> list[Said]:
    first = generations[0] if generations else None
    first = first[0] if isinstance(first, list) and first else first
    if not isinstance(first, Mapping):
        return []
    if first.get("message") is not None:
        said = message_of(first["message"])
        return [] if said is None else [said]
    text = first.get("text")
    return messages_of([{"role": "assistant", "content": text}]) if isinstance(text, str) else []


def timed(call: Call, measures: Measures) -> Call:
    """The call with what is known put on its last question and its last answer; the others have their own times."""
    asked, answered = list(call.asked), list(call.answered)
    if asked and asked[-1].created_at is None:
        asked[-1] = replace(asked[-1], created_at=call.started_at)
    if answered and answered[-1].role == "assistant":
        last = answered[-1]
        answered[-1] = replace(
            last,
            created_at=last.created_at or measures.ended_at,
            model=last.model or measures.model,
            latency_s=measures.latency_s,
            input_tokens=measures.input_tokens if last.input_tokens is None else last.input_tokens,
            output_tokens=measures.output_tokens if last.output_tokens is None else last.output_tokens,
            finish=last.finish or measures.finish,
        )
    return replace(call, asked=asked, answered=answered)


def joined(calls: Sequence[Call]) -> tuple[tuple[Message, ...], dict[str, str]]:
    """The conversation that these calls make up, in the order in which they began.

    Returns:
        Its messages, and for each call the id of its last answer.
    """
    thread = Thread()
    answers: dict[str, str] = {}
    # Calls without a time stay where they are.
    latest = min((call.started_at for call in calls if call.started_at is not None), default=None)
    keyed = []
    for number, call in enumerate(calls):
        latest = call.started_at or latest
        keyed.append((latest.timestamp() if latest else 0.0, number, call))
    for _, _, call in sorted(keyed, key=lambda item: item[:2]):
        found = thread.add(call.asked, call.answered, only_new=call.only_new)
        if found:
            answers[call.id] = str(found[-1])
    return thread.messages, answers
