"""RealHumanEval (Mozannar et al., arXiv 2404.02806): programmers who chat with a model, and what they copied.

Each row repeats the history. Its times count from the beginning of the study: they order the rows, and are no dates.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlhi_plugin.importers.calls import Thread
from rlhi_plugin.importers.chat_message import Said, messages_of
from rlhi_plugin.importers.fields import check_asked, name_in, required, text_in, user_in
from rlhi_plugin.importers.row import Format, Imported, Place, Row, Value
from rlhi_plugin.records import Conversation, FeedbackEvent, FeedbackKind


def _recognises(row: Value) -> bool:
    return {"request", "response", "copy_events", "programmer_id"} <= row.keys()


def _place(row: Row) -> Place | None:
    return Place(required(row.value, "programmer_id"))


def _read(rows: Sequence[Row]) -> Iterator[Imported]:
    programmer = required(rows[0].value, "programmer_id")
    timed: list[tuple[float, Row, list[Said], Said, list[str]]] = []
    for row in rows:
        try:
            timed.append((float(text_in(row.value, "timestamp")), row, *_call(row.value)))
        except ValueError as error:
            yield row.refuse(str(error))
    thread, number = Thread(), 0
    events: list[FeedbackEvent] = []
    for _, _, asked, answer, copies in sorted(timed, key=lambda item: item[0]):
        if not thread.continues(asked):
            yield from _conversation(programmer, number, thread, events)
            thread, number, events = Thread(), number + 1, []
        found = thread.add(asked, [answer])
        events += _copies(programmer, number, copies, str(found[-1]), len(events))
    yield from _conversation(programmer, number, thread, events)


def _call(row: Value) -> tuple[list[Said], Said, list[str]]:
    asked = messages_of(_literal(row, "request"))
    if not asked:
        raise ValueError("request is empty")
    copies = _literal(row, "copy_events")
    if not isinstance(copies, list) or not all(
        isinstance(c, Mapping) and isinstance(c.get("copied"), str) for c in copies
    ):
        raise ValueError("copy_events is not a list of copies")
    answer = Said("assistant", text_in(row, "response"), model=name_in(row, "model"))
    return asked, answer, [copy["copied"] for copy in copies]


def _literal(row: Value, name: str) -> Any:
    """What a field holds, as Python prints it."""
    try:
        return ast.literal_eval(text_in(row, name))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{name} cannot be read: {error}") from error


def _name(programmer: str, number: int) -> str:
    return f"realhumaneval:{programmer}:{number}"


def _copies(programmer: str, number: int, copies: Sequence[str], answer: str, before: int) -> Iterator[FeedbackEvent]:
    for i, copied in enumerate(copies, start=before):
        yield FeedbackEvent(
            event_id=f"copy:{i}",
            conversation_id=_name(programmer, number),
            message_id=answer,
            user_id=user_in("realhumaneval", programmer),
            kind=FeedbackKind.COPY,
            value=copied,
        )


def _conversation(programmer: str, number: int, thread: Thread, events: Sequence[FeedbackEvent]) -> Iterator[Imported]:
    messages = thread.messages
    if not messages:
        return
    check_asked(messages)
    yield Conversation(
        conversation_id=_name(programmer, number),
        user_id=user_in("realhumaneval", programmer),
        messages=messages,
        source="realhumaneval",
    )
    yield from events


REALHUMANEVAL = Format(
    "realhumaneval", "request, response, copy_events, programmer_id", _recognises, _read, place=_place
)
