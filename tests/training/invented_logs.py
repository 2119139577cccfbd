"""Logs of people who do not exist: each wants answers in a form of their own, and says so."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from provider_script import SENTENCES

from rlhi_plugin.records import Conversation, Message

START = datetime(2026, 1, 5, 9, tzinfo=UTC)
WISHES = (
    ("Shorter please.", "Keep it brief please.", "That is too long, make it short please."),
    ("Use bullet points please.", "Bullet points please!", "As a bulleted list please."),
    ("Please give me some numbers.", "Add exact figures please.", "More figures please."),
)
REQUESTS = (
    "How do I keep {} alive indoors?",
    "Why is {} good for me?",
    "How can I learn about {} on my own?",
    "What should I know about {} before I begin?",
    "Who could help me with {}?",
)
THINGS = ("basil", "walking", "sleep", "chess", "bread", "pottery", "Latin", "bees", "tea", "sailing", "rope", "moss")
OTHERS = ("Thank you, that is it.", "Say that again.", "And what about {} in winter?", "Now tell me about {}.")


def invented(users: int, days: int, *, turns: int = 3, sentences: int = 4, seed: int = 0) -> list[Conversation]:
    """One conversation for each user and day, with `turns` user messages and answers of about so many sentences."""
    draw = random.Random(seed)
    found = []
    for user in range(users):
        for day in range(days):
            start = START + timedelta(days=day, minutes=user)
            texts = []
            for turn in range(turns):
                if turn == 0:
                    said = draw.choice(REQUESTS).format(draw.choice(THINGS))
                elif draw.random() < 0.7:
                    said = draw.choice(WISHES[user % len(WISHES)])
                else:
                    said = draw.choice(OTHERS).format(draw.choice(THINGS))
                texts += [said, " ".join(draw.choices(SENTENCES, k=draw.randint(max(1, sentences - 2), sentences + 2)))]
            messages = tuple(
                Message(
                    id=f"u{user}d{day}m{i}",
                    role="assistant" if i % 2 else "user",
                    content=text,
                    created_at=start + timedelta(seconds=30 * i),
                )
                for i, text in enumerate(texts)
            )
            found.append(
                Conversation(
                    conversation_id=f"u{user}d{day}", user_id=f"user{user}", messages=messages, started_at=start
                )
            )
    return found
