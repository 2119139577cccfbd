"""HALIE (Lee et al., arXiv 2212.09746): sessions of dialogue and of question answering, and what workers rated.

A session is a conversation; its overall rating of 1 to 5 is a thumb: up from 4, down to 2, none at 3. The ratings of
single turns have no thumb's meaning and are not read.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from rlhi_plugin.importers.branches import in_line
from rlhi_plugin.importers.chat_message import Said
from rlhi_plugin.importers.fields import check_asked, name_in, required, text_in, user_in
from rlhi_plugin.importers.row import Format, Imported, Place, Row, Value
from rlhi_plugin.records import Conversation, FeedbackEvent, FeedbackKind

_GOOD, _BAD = 4.0, 2.0
_RATINGS = ("quality", "helpfulness")


def _recognises(row: Value) -> bool:
    if not {"session_id", "worker_id"} <= row.keys():
        return False
    return any(name in row for name in ("model_completion", "user_queries", *_RATINGS))


def _place(row: Row) -> Place | None:
    return Place(required(row.value, "session_id"))


def _read(rows: Sequence[Row]) -> Iterator[Imported]:
    first = rows[0].value
    name, user = required(first, "session_id"), user_in("halie", name_in(first, "worker_id"))
    said: list[Said] = []
    events: list[FeedbackEvent] = []
    spoken = 0
    for row in rows:
        try:
            if name_in(row.value, "worker_id") != name_in(first, "worker_id"):
                raise ValueError("another worker's row in the session of one")  # noqa: TRY301 - as all others
            if any(rating in row.value for rating in _RATINGS):
                events += _rating(row.value, name, user)
            else:
                spoken += 1
                said += _turns(row.value)
        except ValueError as error:
            yield row.refuse(str(error))
    if spoken:
        messages = in_line(said)
        check_asked(messages)
        yield Conversation(conversation_id=name, user_id=user, messages=messages, source="halie")
    yield from events


def _turns(row: Value) -> Iterator[Said]:
    model = name_in(row, "model")
    if "model_completion" in row:
        asked, answered = [text_in(row, "user_input")], [text_in(row, "model_completion")]
    else:
        asked, answered = _texts(row, "user_queries"), _texts(row, "lm_responses")
        if len(asked) != len(answered):
            raise ValueError(f"{len(asked)} user_queries, but {len(answered)} lm_responses")
    for question, answer in zip(asked, answered, strict=True):
        yield Said("user", question)
        yield Said("assistant", answer, model=model)


def _texts(row: Value, name: str) -> list[str]:
    """A list of texts as Python prints it."""
    try:
        value = ast.literal_eval(text_in(row, name))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{name} is not a list: {error}") from error
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{name} is not a list of texts")
    return value


def _rating(row: Value, name: str, user: str | None) -> Iterator[FeedbackEvent]:
    rating = next(rating for rating in _RATINGS if rating in row)
    value = text_in(row, rating)
    if value == "":
        return
    points = float(value)
    if not 1 <= points <= 5:  # noqa: PLR2004 - their scale
        raise ValueError(f"{rating} is {value!r}, not 1 to 5")
    if points >= _GOOD or points <= _BAD:
        yield FeedbackEvent(
            event_id=rating,
            conversation_id=name,
            user_id=user,
            kind=FeedbackKind.THUMBS_UP if points >= _GOOD else FeedbackKind.THUMBS_DOWN,
            value=f"{rating} {points:g} of 5",
        )


HALIE = Format(
    "halie", "session_id, worker_id, and model_completion or user_queries or a rating", _recognises, _read, place=_place
)
