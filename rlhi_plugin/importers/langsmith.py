"""LangSmith's runs, as JSONL or CSV: threads from the metadata, messages from inputs and outputs.

A trace is one turn: its root run is read where it holds messages, else the runs of models below it, which repeat each
other. Thumbs come from ``feedback_stats``, where the name of a score says that a user gave it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from rlhi_plugin.importers.fields import check_asked, count_in, mapping_in, name_in, thread_id, time_of, user_in
from rlhi_plugin.importers.row import Format, Imported, Place, Row, Value
from rlhi_plugin.importers.signals import is_from_user, thumb
from rlhi_plugin.importers.traced_calls import Call, Measures, answered_in, asked_in, is_text, joined, timed
from rlhi_plugin.records import Conversation, FeedbackEvent

_THREAD_NAMES = ("thread_id", "session_id", "conversation_id")
_USER_NAMES = ("user_id", "user", "langgraph_auth_user_id", "ls_user_id")


def _recognises(row: Value) -> bool:
    return "run_type" in row and "inputs" in row


def _metadata(row: Value) -> Value:
    return {**mapping_in(mapping_in(row, "extra"), "metadata"), **mapping_in(row, "metadata")}


def _place(row: Row) -> Place | None:
    trace = name_in(row.value, "trace_id", "parent_run_id", "id")
    if trace is None:
        raise ValueError("trace_id or id is missing")
    thread = name_in(_metadata(row.value), *_THREAD_NAMES)
    user = name_in(_metadata(row.value), *_USER_NAMES)
    # Two users of one thread name are two conversations.
    return Place(trace, None if thread is None else f"{thread}\0{user or ''}")


def _read(rows: Sequence[Row]) -> Iterator[Imported]:
    traces: dict[str, list[Row]] = {}
    for row in rows:
        traces.setdefault(name_in(row.value, "trace_id", "parent_run_id", "id") or "", []).append(row)
    calls: list[tuple[Row, Call]] = []
    for runs in traces.values():
        for row, found in _calls(runs):
            if isinstance(found, Call):
                calls.append((row, found))
            else:
                yield row.refuse(str(found))
    if not calls:
        return
    messages, answers = joined([call for _, call in calls])
    check_asked(messages)
    metadata = [_metadata(row.value) for row in rows]
    name = next((name for one in metadata if (name := name_in(one, *_THREAD_NAMES))), None)
    user = next((user for one in metadata if (user := name_in(one, *_USER_NAMES))), None)
    owner = user_in("langsmith", user)
    conversation = Conversation(
        conversation_id=thread_id("langsmith", name or next(iter(traces)), owner),
        user_id=owner,
        messages=messages,
        started_at=min((call.started_at for _, call in calls if call.started_at is not None), default=None),
        source="langsmith",
    )
    yield conversation
    for row in rows:
        yield from _feedback(row, conversation, answers)


def _calls(runs: Sequence[Row]) -> Iterator[tuple[Row, Call | ValueError]]:
    """The call that a trace is; of a root without messages, those of the models below it."""
    roots = [row for row in runs if name_in(row.value, "parent_run_id") is None]
    models = [row for row in runs if row.value.get("run_type") == "llm"]
    answer = next((_measures(row.value) for row in reversed(models)), Measures())
    refused: list[tuple[Row, ValueError]] = []
    for chosen in (roots, [row for row in models if row not in roots]):
        calls: list[tuple[Row, Call]] = []
        for row in chosen:
            try:
                call = _call(row.value, answer if chosen is roots else None)
            except ValueError as error:
                refused.append((row, error))
                continue
            if call is not None:
                calls.append((row, call))
        if calls:
            yield from calls
            break
    else:
        if not refused and runs:
            refused.append((runs[0], ValueError("no run of this trace holds messages")))
    yield from refused


def _call(run: Value, answer: Measures | None) -> Call | None:
    asked, answered = asked_in(run.get("inputs")), answered_in(run.get("outputs"))
    if not asked:
        return None
    own = _measures(run)
    measures = own if answer is None or own.model is not None else answer
    measures = replace(
        own, model=measures.model, input_tokens=measures.input_tokens, output_tokens=measures.output_tokens
    )
    name = name_in(run, "id") or ""
    return timed(Call(name, asked, answered, time_of(run.get("start_time")), is_text(run.get("inputs"))), measures)


def _measures(run: Value) -> Measures:
    started, ended = time_of(run.get("start_time")), time_of(run.get("end_time"))
    seconds = (ended - started).total_seconds() if started and ended else None
    return Measures(
        ended_at=ended,
        model=name_in(_metadata(run), "ls_model_name"),
        latency_s=seconds if seconds is not None and seconds >= 0 else None,
        input_tokens=count_in(run, "prompt_tokens"),
        output_tokens=count_in(run, "completion_tokens"),
        # What an errored run holds is what had been streamed.
        finish="failed" if run.get("error") else None,
    )


def _feedback(row: Row, conversation: Conversation, answers: Mapping[str, str]) -> Iterator[Imported]:
    run = name_in(row.value, "id")
    for key, statistics in mapping_in(row.value, "feedback_stats").items():
        if not is_from_user(key) or not isinstance(statistics, Mapping) or statistics.get("avg") is None:
            continue
        try:
            kind = thumb(statistics["avg"])
        except ValueError as error:
            yield row.refuse(f"feedback {key!r}: {error}")
            continue
        comments = statistics.get("comments")
        comment = next((c for c in comments if isinstance(c, str) and c), None) if isinstance(comments, list) else None
        if kind is not None:
            yield FeedbackEvent(
                event_id=f"{run}:{key}",
                conversation_id=conversation.conversation_id,
                message_id=answers.get(run or ""),
                user_id=conversation.user_id,
                kind=kind,
                value=comment,
                created_at=time_of(row.value.get("end_time")),
            )


LANGSMITH = Format("langsmith", "run_type, inputs, outputs", _recognises, _read, place=_place)
