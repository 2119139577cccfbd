"""Pairs of whole conversations, as token ids, from the length statistics of real ones."""

from __future__ import annotations

import random
from collections.abc import Sequence

Pair = dict[str, list[int]]
"""``prompt_ids``, ``chosen_ids`` and ``rejected_ids``."""

WORKLOADS = ("turns_1", "turns_2", "turns_4", "turns_8", "natural")

_USER_TOKENS = (6, 7, 11, 15, 21, 27, 37, 55, 97, 394)
_ANSWER_TOKENS = (2, 55, 114, 184, 277, 371, 489, 594, 709, 953)
_TURNS = (1, 2, 2, 2, 3, 3, 4, 4, 5, 8)
"""Lower ends of the ten tenths of 400 WildChat conversations of 3 to 50 messages (allenai/WildChat-1M, ODC-BY), tokens
by SmolLM2's tokenizer: later user messages, answers, and user messages a conversation."""
_PERSONA, _USER, _ANSWER = 150, 50, 250
"""Tokens in conversations of a fixed number of turns (ours)."""


def workload(name: str, *, pairs: int, shrink: int, vocabulary: int, seed: int = 0) -> list[list[Pair]]:
    """Conversations: persona, then turns whose rejected originals are the next turns' past.

    Args:
        name: One of `WORKLOADS`.
        pairs: How many at least; the last conversation is whole.
        shrink: Divides every length.
        vocabulary: Number of token ids.
        seed: The same conversations for the same seed.
    """
    draw = random.Random(seed)
    conversations: list[list[Pair]] = []
    while sum(map(len, conversations)) < pairs:
        turns = draw.choice(_TURNS) if name == "natural" else int(name.removeprefix("turns_"))
        context = _tokens(draw, _PERSONA // shrink, vocabulary)
        rows: list[Pair] = []
        for _ in range(turns):
            user = _length(draw, name, _USER, _USER_TOKENS) // shrink
            context = context + _tokens(draw, max(2, user), vocabulary)
            original, rewrite = (
                _tokens(draw, max(2, _length(draw, name, _ANSWER, _ANSWER_TOKENS) // shrink), vocabulary)
                for _ in range(2)
            )
            rows.append({"prompt_ids": context, "chosen_ids": rewrite, "rejected_ids": original})
            context = context + original
        conversations.append(rows)
    return conversations


def _length(draw: random.Random, name: str, fixed: int, tenths: Sequence[int]) -> int:
    """Tokens of one message."""
    if name != "natural":
        return int(fixed * draw.uniform(0.8, 1.2))
    tenth = draw.randrange(len(tenths))
    # The longest tenth ends where it begins: a few texts of tens of thousands of tokens would be all that is measured.
    return draw.randint(tenths[tenth], tenths[min(tenth + 1, len(tenths) - 1)])


def _tokens(draw: random.Random, n: int, vocabulary: int) -> list[int]:
    return [draw.randrange(3, vocabulary) for _ in range(n)]
