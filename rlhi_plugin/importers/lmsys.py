"""LMSYS: Chat-1M rows (one conversation) and Chatbot Arena rows (two, and which of them a judge preferred)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from rlhi_plugin.importers.branches import in_line
from rlhi_plugin.importers.chat_message import Said, messages_of
from rlhi_plugin.importers.fields import check_asked, name_in, required, rows_in, time_of, user_in
from rlhi_plugin.importers.languages import language_name
from rlhi_plugin.importers.row import Format, Row, Value
from rlhi_plugin.records import Conversation, FeedbackEvent, FeedbackKind

_SIDES = ("a", "b")
_OUTCOMES: dict[str, dict[str, FeedbackKind]] = {
    "model_a": {"a": FeedbackKind.THUMBS_UP, "b": FeedbackKind.THUMBS_DOWN},
    "model_b": {"a": FeedbackKind.THUMBS_DOWN, "b": FeedbackKind.THUMBS_UP},
    "tie": {},
    "tie (bothbad)": {"a": FeedbackKind.THUMBS_DOWN, "b": FeedbackKind.THUMBS_DOWN},
    "both_bad": {"a": FeedbackKind.THUMBS_DOWN, "b": FeedbackKind.THUMBS_DOWN},
}


def _recognises(row: Value) -> bool:
    if "conversation_a" in row and "conversation_b" in row:
        return True
    turns = row.get("conversation")
    named = "conversation_hash" not in row and ("conversation_id" in row or "id" in row)
    return named and isinstance(turns, list) and all(isinstance(turn, Mapping) and "role" in turn for turn in turns)


def _read(rows: Sequence[Row]) -> Iterator[Conversation | FeedbackEvent]:
    for row in rows:
        yield from _arena(row.value) if "conversation_a" in row.value else [_single(row.value)]


def _single(row: Value) -> Conversation:
    return _conversation(row, "conversation", required(row, "conversation_id", "id"), name_in(row, "model"))


def _arena(row: Value) -> Iterator[Conversation | FeedbackEvent]:
    name = required(row, "question_id", "id", "conversation_id")
    outcome = name_in(row, "winner")
    if outcome is not None and outcome not in _OUTCOMES:
        raise ValueError(f"the winner {outcome!r} is none of {', '.join(_OUTCOMES)}")
    models = {side: name_in(row, f"model_{side}") for side in _SIDES}
    sides = {
        side: _conversation(row, f"conversation_{side}", f"{name}:{side}", models[side], votes=True) for side in _SIDES
    }
    yield from sides.values()
    for side, kind in _OUTCOMES.get(outcome or "tie", {}).items():
        conversation = sides[side]
        answer = next((m for m in reversed(conversation.messages) if m.role == "assistant"), None)
        other = models["b" if side == "a" else "a"]
        yield FeedbackEvent(
            event_id="vote",
            conversation_id=conversation.conversation_id,
            message_id=answer.id if answer else None,
            user_id=conversation.user_id,
            kind=kind,
            value=f"{outcome} against {other}" if other else outcome,
            created_at=_time(row),
        )


def _conversation(row: Value, field: str, name: str, model: str | None, *, votes: bool = False) -> Conversation:
    said = messages_of(rows_in(row, field))
    messages = in_line([Said(one.role, one.text, model=model) for one in said])
    check_asked(messages)
    judge = name_in(row, "judge", "evaluation_session_id")
    return Conversation(
        conversation_id=name,
        # Their own judges of other models' answers are not the people who asked.
        user_id=user_in("lmsys", judge) if votes else None,
        messages=messages,
        started_at=_time(row),
        language=language_name(row.get("language")),
        toxic=_toxic(row),
        source="lmsys",
    )


def _time(row: Value) -> datetime | None:
    return time_of(row.get("tstamp") or row.get("timestamp"))


def _toxic(row: Value) -> bool | None:
    """Whether any of OpenAI's verdicts, which stand beside the conversation, flags something."""
    verdicts = row.get("openai_moderation")
    verdicts = [verdicts] if isinstance(verdicts, Mapping) else verdicts
    if not isinstance(verdicts, list):
        return None
    flags = [verdict["flagged"] for verdict in verdicts if isinstance(verdict, Mapping) and "flagged" in verdict]
    return any(flag is True for flag in flags) if flags else None


LMSYS = Format("lmsys", "conversation_id or id, conversation; or conversation_a, conversation_b", _recognises, _read)
