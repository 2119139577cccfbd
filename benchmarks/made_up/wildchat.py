"""Logs of the shape of WildChat-1M, made up: no row of it is in here, only figures about it.

Lengths are drawn from quantiles of 400 WildChat conversations, turns and languages from the data set's paper (Zhao et
al., arXiv 2405.01470: 2.54 turns on average, about half of the conversations in English), conversations per user from
4,000 of its user ids (3,079 users; the largest has 1 %). Words are syllables, strung together by chance.
"""

from __future__ import annotations

import multiprocessing
import random
from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path

from pydantic_core import to_json

SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
FIRST = (4, 34, 100, 210, 640, 2000, 4000, 12000, 60000)
"""Characters of a conversation's first message at these shares; mean about 1,100."""
FOLLOW_UP = (2, 10, 32, 76, 235, 1080, 1900, 7500, 30000)
REPLY = (20, 48, 383, 925, 2050, 3040, 3480, 4870, 16000)
TURNS = (0.56, 0.74, 0.83, 0.885, 0.92, 0.945, 0.96, 0.972, 0.981, 0.987, 0.991, 0.994, 0.996, 0.998, 0.999, 1.0)
"""Share of conversations with so many turns or fewer; mean 2.3, the quarter of users who go on have 4."""
LANGUAGES = (
    ("English", 0.53, "aeiou", "bcdfghlmnprstvw"),
    ("Chinese", 0.70, "", "".join(map(chr, range(0x4E00, 0x4E00 + 400)))),
    ("Russian", 0.82, "аеиоуы", "бвгдзклмнпрст"),
    ("French", 0.87, "aeéiouè", "bcdflmnprstv"),
    ("Spanish", 0.92, "aeioáó", "bcdlmnprstñ"),
    ("German", 0.96, "aeiouäü", "bdfghklmnrstwz"),
    ("Portuguese", 1.0, "aeioãu", "bcdflmnprstv"),
)
"""Name, cumulative share, vowels, consonants."""
TOXIC, TEMPLATES, NEAR_DUPLICATES, REFUSALS = 0.05, 0.04, 0.03, 0.03
"""Shares of conversations; the last one of answers."""
SAID = (
    "Shorter please.",
    "That is too long, keep it brief please.",
    "Use bullet points please.",
    "Please give me some numbers.",
    "No, that is wrong, the second part does not fit.",
    "You forgot the last point, add it.",
    "Thank you, that helps a lot.",
    "thanks",
    "continue",
    "try again",
)
"""What every third follow-up says; the others say something else."""
_COMPLAINS = 0.3
_PIECE = 24
"""Characters of a piece of text, some four words."""
_PART = 5_000
"""Conversations that are made up apart from others, so that several processes can."""
_MEMORY = 500
"""Earlier messages of which a near-duplicate is made."""
_BEGAN = datetime(2023, 4, 9, tzinfo=UTC)
_DAYS = 390
_USERS_PER_CONVERSATION, _SKEW = 0.35, 2.5


@dataclass(frozen=True)
class Shape:
    """How many, and from which seed."""

    conversations: int
    seed: int = 0


def write_log(path: Path, shape: Shape, processes: int = 1) -> None:
    """Write a log of WildChat rows as JSONL: the same one, whatever the number of processes."""
    with path.open("wb") as lines, ExitStack() as stack:
        pool = None
        if processes > 1:
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(ProcessPoolExecutor(processes, mp_context=context))
        # A few parts at a time, so that no more than these wait in memory.
        parts, some = _parts(shape), 4 * processes
        for start in range(0, len(parts), some):
            for body in (pool.map if pool else map)(partial(_part, shape), parts[start : start + some]):
                lines.write(body)


def _parts(shape: Shape) -> range:
    return range(-(-shape.conversations // _PART))


def _part(shape: Shape, number: int) -> bytes:
    """Some lines of a log."""
    return b"".join(to_json(row) + b"\n" for row in _rows(shape, number))


def rows(shape: Shape) -> Iterator[dict[str, object]]:
    """The rows, one after the other; the first of a longer log are those of a shorter one but for their users."""
    for number in _parts(shape):
        yield from _rows(shape, number)


def _rows(shape: Shape, part: int) -> Iterator[dict[str, object]]:
    """The rows of one part: near-duplicates are of earlier messages of the part, users and templates are the log's."""
    texts, template = _texts(shape.seed)
    draw = random.Random(f"{shape.seed} {part}")
    said: list[str] = []
    users = max(1, round(shape.conversations * _USERS_PER_CONVERSATION))
    shares = [share for _, share, _, _ in LANGUAGES]
    for number in range(part * _PART, min(shape.conversations, (part + 1) * _PART)):
        language = LANGUAGES[bisect_right(shares, draw.random())][0]
        first = _cut(texts[language], _length(FIRST, draw), draw)
        kind = draw.random()
        if kind < TEMPLATES:
            language, first = "English", f"{template} {_cut(texts['English'], 40, draw)}"
        elif kind < TEMPLATES + NEAR_DUPLICATES and said:
            first = f"{draw.choice(said)} {draw.choice(SAID)}"
        elif len(said) < _MEMORY:
            said.append(first)
        else:
            said[draw.randrange(_MEMORY)] = first
        user = int(users * draw.random() ** _SKEW)
        yield _row((number, user, language), first, texts[language], draw)


@lru_cache(maxsize=1)
def _texts(seed: int) -> tuple[dict[str, list[str]], str]:
    """Pieces of text by language, and the template that many send."""
    draw = random.Random(seed)
    texts = {name: _babble(vowels, consonants, draw) for name, _, vowels, consonants in LANGUAGES}
    return texts, _cut(texts["English"], 900, draw)


def _row(who: tuple[int, int, str], first: str, text: list[str], draw: random.Random) -> dict[str, object]:
    number, user, language = who
    at = _BEGAN + timedelta(seconds=draw.randrange(_DAYS * 86_400))
    turns = []
    for turn in range(bisect_right(TURNS, draw.random()) + 1):
        asked = first if turn == 0 else draw.choice(SAID) if draw.random() < _COMPLAINS else None
        at += timedelta(seconds=draw.randrange(20, 400))
        time = at.isoformat()
        asked = asked or _cut(text, _length(FOLLOW_UP, draw), draw)
        answer = _cut(text, _length(REPLY, draw), draw)
        if draw.random() < REFUSALS:
            answer = f"I'm sorry, but I can't help with that. {answer}"
        turns.append({"role": "user", "content": asked, "timestamp": time, "language": language})
        turns.append({"role": "assistant", "content": answer, "timestamp": time, "language": language})
    address = f"{user:064x}"
    header = {"accept-language": "en-US,en;q=0.9", "user-agent": f"Mozilla/5.0 (made up; {user % 97})"}
    return {
        "conversation_hash": f"{draw.getrandbits(96):024x}{number:08x}",
        "model": "gpt-3.5-turbo-0301",
        "timestamp": turns[0]["timestamp"],
        "conversation": turns,
        "turn": len(turns) // 2,
        "language": language,
        "toxic": draw.random() < TOXIC,
        "redacted": False,
        "hashed_ip": address,
        "header": header,
    }


def _length(quantiles: tuple[int, ...], draw: random.Random) -> int:
    """Between two quantiles the logarithm of the length is even."""
    share = draw.random()
    place = min(bisect_right(SHARES, share), len(SHARES) - 1)
    low, high = quantiles[place - 1], quantiles[place]
    part = (share - SHARES[place - 1]) / (SHARES[place] - SHARES[place - 1])
    return int(low * (high / low) ** part)


def _cut(pieces: list[str], length: int, draw: random.Random) -> str:
    """A text of about so many characters. Pieces are short, so that no run of eight words comes up again."""
    text = "".join(draw.choices(pieces, k=1 + length // _PIECE))
    return text[:length].strip() or "So?"


def _babble(vowels: str, consonants: str, draw: random.Random) -> list[str]:
    """Pieces of text: words come up as often as words do (Zipf), with full stops, lines and now and then a list."""
    count = 8000 if vowels else 4000
    words = [_word(vowels, consonants, draw) for _ in range(count)]
    weights = list(accumulate(1 / (rank + 3) for rank in range(count)))
    between = " " if vowels else ""
    ends = (
        (*[between] * 8, ", ", ". ", ". ", "? ", ".\n", ".\n- ")
        if vowels
        else (*[""] * 8, "\uff0c", "\u3002", "\u3002\n")
    )
    pieces = []
    for _ in range(20_000):
        piece = ""
        while len(piece) < _PIECE - 3:
            piece += draw.choices(words, cum_weights=weights)[0] + between
        pieces.append(piece.strip() + draw.choice(ends))
    return pieces


def _word(vowels: str, consonants: str, draw: random.Random) -> str:
    if not vowels:
        return "".join(draw.choices(consonants, k=draw.choice((1, 2, 2, 3))))
    syllables = (draw.choice(consonants) + draw.choice(vowels) for _ in range(draw.choice((1, 1, 2, 2, 3, 4))))
    return "".join(syllables)
