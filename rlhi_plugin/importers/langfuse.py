"""Langfuse's traces, observations and scores, as JSONL, JSON or CSV, in one file or in several of a folder.

A session is a conversation, and a trace without a session is one of its own. A trace is read where it holds messages,
else the generations below it. Thumbs come from scores that users gave.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from rlhi_plugin.importers.fields import (
    check_asked,
    count_in,
    mapping_in,
    name_in,
    required,
    thread_id,
    time_of,
    unpacked,
    user_in,
)
from rlhi_plugin.importers.row import Format, Imported, Place, Row, Value
from rlhi_plugin.importers.signals import is_from_user, thumb
from rlhi_plugin.importers.traced_calls import Call, Measures, answered_in, asked_in, is_text, joined, timed
from rlhi_plugin.records import Conversation, FeedbackEvent


def _named(row: Value) -> Value:
    """The row with the names of the web service: exports to storage write ``trace_id`` for ``traceId``."""
    return {re.sub(r"_([a-z])", lambda match: match.group(1).upper(), name): value for name, value in row.items()}


def _recognises(row: Value) -> bool:
    names = _named(row).keys()
    if "runType" in names or "messages" in names:
        return False
    of_trace = "traceId" in names
    is_score = of_trace and "name" in names and bool({"value", "stringValue"} & names)
    is_observation = of_trace and "type" in names and "startTime" in names
    is_trace = (
        "id" in names and bool({"input", "output"} & names) and bool({"sessionId", "userId", "projectId"} & names)
    )
    return is_score or is_observation or is_trace


def _place(row: Row) -> Place | None:
    value = _named(row.value)
    trace = required(value, "traceId", "id")
    session = name_in(value, "sessionId")
    user = name_in(value, "userId")
    # Two users of one session name are two conversations.
    return Place(trace, None if session is None or "traceId" in value else f"{session}\0{user or ''}")


class _Trace:
    """A trace and what belongs to it."""

    def __init__(self) -> None:
        self.row: Row | None = None
        self.value: Value = {}
        self.generations: list[tuple[Row, Value]] = []
        self.scores: list[tuple[Row, Value]] = []

    def take(self, row: Row, value: Value) -> None:
        if "traceId" not in value:
            self.row, self.value = row, value
            for name in ("observations", "scores"):
                inner = unpacked(value.get(name))
                for part in inner if isinstance(inner, list) else ():
                    if isinstance(part, Mapping):
                        self.take(row, {"traceId": value.get("id"), **_named(part)})
        elif "value" in value or "stringValue" in value:
            self.scores.append((row, value))
        elif str(value.get("type")).upper() == "GENERATION":
            self.generations.append((row, value))

    def calls(self) -> Iterator[tuple[Row, Call]]:
        """The call that the trace is, else those of its generations."""
        generations = sorted(self.generations, key=lambda one: str(one[1].get("startTime")))
        if self.row is not None:
            call = _call(self.value, generations[-1][1] if generations else self.value)
            if call is not None:
                yield self.row, call
                return
        for row, value in generations:
            call = _call(value, value)
            if call is not None:
                yield row, call


def _read(rows: Sequence[Row]) -> Iterator[Imported]:
    traces: dict[str, _Trace] = {}
    for row in rows:
        value = _named(row.value)
        traces.setdefault(required(value, "traceId", "id"), _Trace()).take(row, value)
    calls: list[Call] = []
    for trace in traces.values():
        try:
            found = [call for _, call in trace.calls()]
        except ValueError as error:
            yield (trace.row or rows[0]).refuse(str(error))
            continue
        calls += found
        if not found:
            holder = trace.row or next((row for row, _ in (*trace.generations, *trace.scores)), rows[0])
            yield holder.refuse("no trace or generation of this trace holds messages")
    if not calls:
        return
    messages, answers = joined(calls)
    check_asked(messages)
    values = [trace.value for trace in traces.values()]
    session = next((name for value in values if (name := name_in(value, "sessionId"))), None)
    user = next((name for value in values if (name := name_in(value, "userId"))), None)
    owner = user_in("langfuse", user)
    conversation = Conversation(
        conversation_id=thread_id("langfuse", session or next(iter(traces)), owner),
        user_id=owner,
        messages=messages,
        started_at=min((call.started_at for call in calls if call.started_at is not None), default=None),
        source="langfuse",
    )
    yield conversation
    for name, trace in traces.items():
        # The last answer of a trace is the one that its user saw.
        seen = [answers[call.id] for _, call in trace.calls() if call.id in answers]
        for row, score in trace.scores:
            yield from _feedback(row, {"trace": name, **score}, conversation, answers, seen)


def _call(value: Value, answer: Value) -> Call | None:
    asked, answered = asked_in(value.get("input")), answered_in(value.get("output"))
    if not asked:
        return None
    usage = {**mapping_in(answer, "usage"), **mapping_in(answer, "usageDetails")}
    started, ended = time_of(answer.get("startTime")), time_of(answer.get("endTime"))
    seconds = (ended - started).total_seconds() if started and ended else None
    measures = Measures(
        ended_at=ended,
        model=name_in(answer, "model", "providedModelName"),
        latency_s=seconds if seconds is not None and seconds >= 0 else None,
        input_tokens=count_in(usage, "input", "promptTokens", "prompt_tokens"),
        output_tokens=count_in(usage, "output", "completionTokens", "completion_tokens"),
        finish="failed" if str(answer.get("level")).upper() == "ERROR" else None,
    )
    began = time_of(value.get("timestamp") or value.get("startTime") or value.get("createdAt"))
    return timed(Call(required(value, "id"), asked, answered, began, is_text(value.get("input"))), measures)


def _feedback(
    row: Row, score: Value, conversation: Conversation, answers: Mapping[str, str], seen: Sequence[str]
) -> Iterator[Imported]:
    name = name_in(score, "name") or ""
    if str(score.get("source")).upper() == "EVAL" or not is_from_user(name):
        return
    value = score.get("stringValue") if score.get("value") is None else score["value"]
    try:
        kind = thumb(value)
        time = time_of(score.get("timestamp") or score.get("createdAt"))
    except ValueError as error:
        yield row.refuse(f"score {name!r}: {error}")
        return
    if kind is not None:
        yield FeedbackEvent(
            event_id=name_in(score, "id") or f"{score['trace']}:{name}",
            conversation_id=conversation.conversation_id,
            message_id=answers.get(name_in(score, "observationId") or "") or (seen[-1] if seen else None),
            user_id=conversation.user_id,
            kind=kind,
            value=name_in(score, "comment"),
            created_at=time,
        )


LANGFUSE = Format(
    "langfuse", "id, input, output, sessionId or userId; or traceId, type; or traceId, name, value", _recognises, _read,
    place=_place,
)  # fmt: skip
