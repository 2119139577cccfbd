"""Records that are made without being checked are those that are made with it."""

from __future__ import annotations

import pytest

from rlhi_plugin.records import ChatMessage, Conversation, Message
from rlhi_training.records import Candidate, Dropped, ProposedPair, ScoredCandidate

CANDIDATE = {"conversation_id": "c", "turn": 0, "text": "Yes.", "origin": "sample", "model": "m"}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (ChatMessage, {"role": "user", "content": "ü"}),
        (Message, {"content": "x", "id": "m", "role": "user"}),
        (Conversation, {"messages": (), "conversation_id": "c", "language": "French"}),
        (Dropped, {"stage": "reward", "key": "c#0", "reason": "no_persona"}),
        (Candidate, CANDIDATE | {"guidance": "short"}),
        (
            ScoredCandidate,
            {"candidate": Candidate(**CANDIDATE), "user_id": None, "score": 0.5, "reward_model": "checked/1"},
        ),
        (
            ProposedPair,
            {
                "source": "rewrite",
                "conversation_id": "c",
                "turn": 0,
                "chosen": Candidate(**CANDIDATE),
                "rejected": Candidate(**CANDIDATE | {"text": "No."}),
                "margin": 1.0,
            },
        ),
    ],
)
def test_trusted_records_are_the_checked_ones(kind, fields):
    checked, trusted = kind(**fields), kind.trusted(**fields)
    assert trusted == checked
    assert hash(trusted) == hash(checked)
    assert trusted.to_line() == checked.to_line()
    assert kind.model_validate_json(trusted.to_line()) == checked
    assert trusted.model_copy() == checked
    with pytest.raises(ValueError, match="frozen"):
        trusted.role = "x"
