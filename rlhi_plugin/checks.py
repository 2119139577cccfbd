"""Properties of an answer that code can decide: length, lists, figures, a closing question, and the like.

They serve wherever a preference is checkable, so that no model has to judge it: the trainer filters and ranks
candidates with them (after reading from the user's own words *which* properties were asked for), and the evaluation
counts how often a preference is kept. Every check is a pure function of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rlhi_plugin.words import ALONE

SHORT_WORDS = 30
"""An answer of at most this many words is short (ours)."""
DETAILED_WORDS = 80
"""An answer of at least this many words is detailed (ours)."""
MIN_ITEMS = 2
"""Bulleted lines that make a list (ours)."""
MIN_FIGURES = 2
"""Figures that make an answer one with numbers (ours)."""

_BULLET = re.compile(r"^\s*[-*\u2022\u2013]\s+\S", re.MULTILINE)
_NUMBERED = re.compile(r"^\s*\(?\d{1,2}[.):]\s+\S", re.MULTILINE)
_FIGURE = re.compile(r"\d+(?:[.,]\d+)*")
_GREETING = re.compile(
    r"^\W*(?:hi|hello|hey|greetings|good (?:morning|afternoon|evening|day)|welcome)\b", re.IGNORECASE
)
_EXAMPLE = re.compile(r"\b(?:for example|for instance|such as|e\.g\.|an example)\b", re.IGNORECASE)
_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf\U0001f1e6-\U0001f1ff]")


@dataclass(frozen=True, slots=True)
class Check:
    """One property of an answer.

    Attributes:
        name: Key in `CHECKS`.
        description: What a user who wants it would say they like, for tables and reports.
        instruction: The plainest way to ask a model for it.
        holds: Whether a text has the property.
    """

    name: str
    description: str
    instruction: str
    holds: Callable[[str], bool]


def word_count(text: str) -> int:
    """Number of whitespace-separated words; two characters of a script without spaces are one (`rlhi_plugin.words`)."""
    if text.isascii() or not (alone := len(ALONE.findall(text))):
        return len(text.split())
    rest = ALONE.sub(" ", text).split()
    return (alone + 1) // 2 + sum(any(map(str.isalnum, word)) for word in rest)


def repeated_share(text: str, n: int = 4) -> float:
    """Share of word n-grams that have occurred before in the text, in [0, 1]; 0 for texts shorter than `n` words."""
    words = text.lower().split()
    grams = list(zip(*(words[i:] for i in range(n)), strict=False))
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def _has_list(text: str) -> bool:
    return bool(_BULLET.search(text) or _NUMBERED.search(text))


def _figures(text: str) -> int:
    """Figures in running text; the numbers that mark list items do not count."""
    return len(_FIGURE.findall(_NUMBERED.sub(lambda match: match.group()[-1], text)))


def _registry(*checks: Check) -> Mapping[str, Check]:
    return MappingProxyType({check.name: check for check in checks})


CHECKS: Mapping[str, Check] = _registry(
    Check(
        "short",
        f"short answers (at most {SHORT_WORDS} words)",
        "Answer in one short sentence.",
        lambda text: 0 < word_count(text) <= SHORT_WORDS,
    ),
    Check(
        "detailed",
        f"detailed answers (at least {DETAILED_WORDS} words)",
        "Answer in detail, in several paragraphs.",
        lambda text: word_count(text) >= DETAILED_WORDS,
    ),
    Check(
        "bullets",
        "bullet points",
        'Answer as a list of bullet points, each line starting with "- ".',
        lambda text: len(_BULLET.findall(text)) >= MIN_ITEMS,
    ),
    Check(
        "no_lists",
        "running text, no lists",
        "Answer in plain sentences, without any list.",
        lambda text: bool(text.strip()) and not _has_list(text),
    ),
    Check(
        "numbers",
        "numbers (at least two figures)",
        "Include at least two concrete numbers in the answer.",
        lambda text: _figures(text) >= MIN_FIGURES,
    ),
    Check(
        "closing_question",
        "a closing question",
        "End the answer with a question to me.",
        lambda text: text.rstrip().rstrip("\"')*").endswith("?"),
    ),
    Check("greeting", "a greeting first", 'Start the answer with "Hello!".', lambda text: bool(_GREETING.match(text))),
    Check(
        "example",
        "a concrete example",
        'Give an example, starting with "For example,".',
        lambda text: bool(_EXAMPLE.search(text)),
    ),
    Check("emojis", "emojis", "Use emojis in the answer.", lambda text: bool(_EMOJI.search(text))),
    Check(
        "no_emojis",
        "no emojis",
        "Do not use any emojis.",
        lambda text: bool(text.strip()) and not _EMOJI.search(text),
    ),
)
"""Every check by name. Names are stable: they are written into candidates and reports."""
