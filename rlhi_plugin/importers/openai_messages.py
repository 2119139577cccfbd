"""OpenAI's messages: fine-tuning files (``{"messages": [...]}``) and logs of chat completions.

A log row has the messages that were sent and, beside them or under ``response``, what came back. Rows that name a
conversation in their metadata are joined; each of them repeats the history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from rlhi_plugin.importers.branches import in_line
from rlhi_plugin.importers.calls import Thread
from rlhi_plugin.importers.chat_message import Said, messages_of
from rlhi_plugin.importers.fields import (
    check_asked,
    content_id,
    count_in,
    mapping_in,
    name_in,
    thread_id,
    time_of,
    user_in,
)
from rlhi_plugin.importers.row import Format, Imported, Place, Row, Value
from rlhi_plugin.records import Conversation, Message

_THREAD_NAMES = ("conversation_id", "thread_id", "session_id")


def _request(row: Value) -> Value:
    """Where the messages that were sent are."""
    for name in ("request", "body", "input"):
        inner = row.get(name)
        if isinstance(inner, Mapping) and "messages" in inner:
            return inner
    return row


def _response(row: Value) -> Value:
    """Where the choices that came back are."""
    for name in ("response", "completion", "output"):
        inner = row.get(name)
        if isinstance(inner, Mapping):
            body = inner.get("body")
            return body if isinstance(body, Mapping) else inner
    return row


def _recognises(row: Value) -> bool:
    return isinstance(_request(row).get("messages"), list) and not {"run_type", "mapping"} & row.keys()


def _metadata(row: Value, name: str) -> str | None:
    for source in (row, _request(row)):
        found = name_in(mapping_in(source, "metadata"), name)
        if found is not None:
            return found
    return None


def _user(row: Value) -> str | None:
    return (
        name_in(row, "user", "user_id")
        or name_in(_request(row), "user", "safety_identifier")
        or _metadata(row, "user_id")
        or _metadata(row, "user")
    )


def _place(row: Row) -> Place | None:
    for name in _THREAD_NAMES:
        thread = name_in(row.value, name) or _metadata(row.value, name)
        if thread is not None:
            # Two users of one thread name are two conversations.
            return Place(f"{thread}\0{_user(row.value) or ''}")
    return None


def _answers(row: Value) -> list[Said]:
    response = _response(row)
    choices = response.get("choices")
    if choices is None:
        return []
    if not isinstance(choices, list):
        raise ValueError("choices is not a list")  # noqa: TRY004 - one kind of error for what a row can hold
    usage = mapping_in(response, "usage")
    time = time_of(response.get("created"))
    return [
        replace(
            said,
            created_at=time,
            model=name_in(response, "model") or name_in(_request(row), "model"),
            input_tokens=count_in(usage, "prompt_tokens"),
            output_tokens=count_in(usage, "completion_tokens"),
        )
        for said in messages_of(choices)
    ]


def _asked(row: Value) -> list[Said]:
    return messages_of(_request(row)["messages"])


def _read(rows: Sequence[Row]) -> Iterator[Imported]:
    place = _place(rows[0])
    if place is None:
        yield _single(rows[0].value)
        return
    thread = Thread()
    first: Value | None = None
    for row in rows:
        try:
            asked, answers = _asked(row.value), _answers(row.value)
        except ValueError as error:
            yield row.refuse(str(error))
            continue
        first = first or row.value
        for answered in _shown_last(answers) or [[]]:
            thread.add(asked, answered)
    if first is not None:
        yield _conversation(first, thread.messages, place.key.partition("\0")[0])


def _shown_last(answers: Sequence[Said]) -> list[list[Said]]:
    """Several choices of one call are answers to the same request; the conversation goes on from the first."""
    return [[answer] for answer in (*answers[1:], *answers[:1])]


def _single(row: Value) -> Conversation:
    thread = Thread()
    asked, answers = _asked(row), _answers(row)
    if not answers:
        # Fine-tuning rows are conversations as they are.
        return _conversation(row, in_line(asked), None)
    for answered in _shown_last(answers):
        thread.add(asked, answered)
    return _conversation(row, thread.messages, None)


def _conversation(row: Value, messages: tuple[Message, ...], name: str | None) -> Conversation:
    check_asked(messages)
    user, owner = _user(row), user_in("openai", _user(row))
    times = [message.created_at for message in messages if message.created_at is not None]
    return Conversation(
        conversation_id=thread_id("openai", name, owner) if name else content_id("openai", None, user, messages),
        user_id=owner,
        messages=messages,
        started_at=time_of(row.get("created_at")) or min(times, default=None),
        source="openai",
    )


OPENAI = Format("openai", "messages of {role, content}", _recognises, _read, place=_place)
