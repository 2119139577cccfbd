"""Checks with a measure in their name: at most 50 words, in Spanish, as a table, in Python.

`rlhi_plugin.checks.CHECKS` holds what has one form; here are the families, each with a value: ``max_words:50``,
``language:spanish``. `check` finds both, so that code which follows a wish does not care which kind it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from rlhi_plugin.checks import CHECKS, Check, word_count
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.text_language import TEXT_LANGUAGES, text_language

_TABLE = re.compile(r"^\s*\|?(?:\s*:?-{3,}:?\s*\|)+\s*:?-*:?\s*\|?\s*$", re.MULTILINE)
"""The line below the head of a Markdown table."""
_ITEM = re.compile(r"^\s*(?:[-*\u2022\u2013]|\(?\d{1,2}[.):])\s+\S", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?\u3002\uff01\uff1f]+(?=\s|$|[\"')\]])|\n\s*\n")
_FENCE = re.compile(r"```[ \t]*([\w+#.-]*)[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_SLACK = 1.1
"""An answer may be a tenth longer or shorter than the number of words asked for (ours)."""

_CODE_NAMES = {
    "python": ("python", "py", "python3"), "javascript": ("javascript", "js", "jsx", "node"),
    "typescript": ("typescript", "ts", "tsx"), "java": ("java",), "c++": ("c++", "cpp", "cc"), "c": ("c",),
    "c#": ("c#", "csharp", "cs"), "go": ("go", "golang"), "rust": ("rust", "rs"), "php": ("php",),
    "ruby": ("ruby", "rb"),
    "sql": ("sql", "mysql"), "bash": ("bash", "sh", "shell", "zsh"), "html": ("html",), "r": ("r",),
    "kotlin": ("kotlin", "kt"), "swift": ("swift",),
}  # fmt: skip
CODE_LANGUAGES = frozenset(_CODE_NAMES)
_SIGNS = {
    "python": r"^\s*(?:def \w+\(.*\).*:|from [\w.]+ import |import \w+(?: as \w+)?$|class \w+.*:$|print\()",
    "javascript": r"\b(?:const|let|var) \w+ ?=|=>|\bfunction \w*\(|console\.log\(",
    "typescript": r"\b(?:const|let) \w+ ?:|\binterface \w+ \{|\w+: (?:string|number|boolean)\b",
    "java": r"\bpublic (?:static |final )*(?:class|void|int|String)\b|System\.out\.print",
    "c++": r"#include ?<(?:iostream|vector|string|algorithm|map|bits/)|\bstd::|\bcout ?<<",
    "c": r"#include ?<(?:stdio|stdlib|string)\.h>|\bprintf\(",
    "c#": r"\busing System\b|Console\.Write|\bnamespace \w+",
    "go": r"^package \w+|\bfunc \w*\(?.*\) ?.*\{|\bfmt\.Print",
    "rust": r"\bfn \w+(?:<.*>)?\(|\blet mut \b|println!\(",
    "php": r"<\?php|\$\w+ ?=.*;",
    "ruby": r"^\s*(?:def \w+[^:]*$|puts |end$)",
    "sql": r"(?i)\b(?:select\b.+\bfrom|insert into|create table|update \w+ set)\b",
    "bash": r"^#!.*sh\b|^\s*(?:sudo|apt|echo|export|chmod|mkdir|cd) ",
    "html": r"(?i)<(?:!doctype|html|div|body|head|p|span)\b",
    "r": r"<- |\blibrary\(\w+\)",
    "kotlin": r"\bfun \w+\(|\bval \w+ ?=",
    "swift": r"\bfunc \w+\(.*\) ?->|\bimport (?:SwiftUI|UIKit|Foundation)\b",
}
"""How a language shows in a block that is not named after it."""


def _is_count(value: str) -> bool:
    return value.isdecimal() and 0 < int(value) < 10**6


class _Family(NamedTuple):
    """Checks that differ by a value."""

    allows: Callable[[str], bool]
    description: Callable[[str], str]
    instruction: Callable[[str], str]
    holds: Callable[[str, str], bool]
    """Whether a text (first) has the property for this value (second)."""


def sentence_count(text: str) -> int:
    """Number of sentences: their ends, and what is left after the last."""
    pieces = _SENTENCE_END.split(text.strip())
    return sum(any(c.isalnum() for c in piece) for piece in pieces)


def list_items(text: str) -> int:
    """Lines that are items of a list, bulleted or numbered."""
    return len(_ITEM.findall(text))


def has_table(text: str) -> bool:
    """Whether a Markdown table is in the text."""
    return any("|" in line for line in _TABLE.findall(text))


def in_code_language(text: str, language: str) -> bool:
    """Whether the text has code in a programming language: a block named after it, or an unnamed one that shows it."""
    for name, body in _FENCE.findall(text):
        if name.lower() in _CODE_NAMES[language]:
            return True
        if not name and re.search(_SIGNS[language], body, re.MULTILINE):
            return True
    return False


_FAMILIES: dict[str, _Family] = {
    "max_words": _Family(
        _is_count,
        lambda n: f"at most {n} words",
        lambda n: f"Answer in at most {n} words.",
        lambda text, n: 0 < word_count(text) <= int(n) * _SLACK,
    ),
    "min_words": _Family(
        _is_count,
        lambda n: f"at least {n} words",
        lambda n: f"Answer in at least {n} words.",
        lambda text, n: word_count(text) >= int(n) / _SLACK,
    ),
    "max_sentences": _Family(
        _is_count,
        lambda n: f"at most {n} sentences",
        lambda n: f"Answer in at most {n} sentences.",
        lambda text, n: 0 < sentence_count(text) <= int(n),
    ),
    "items": _Family(
        _is_count,
        lambda n: f"a list of {n} items",
        lambda n: f"Answer as a list of exactly {n} items.",
        lambda text, n: list_items(text) == int(n),
    ),
    "table": _Family(
        lambda value: value == "yes",
        lambda _: "a table",
        lambda _: "Answer with a Markdown table.",
        lambda text, _: has_table(text),
    ),
    "language": _Family(
        TEXT_LANGUAGES.__contains__,
        lambda name: f"answers in {name.capitalize()}",
        lambda name: f"Answer in {name.capitalize()}.",
        lambda text, name: text_language(text) == name,
    ),
    "code_in": _Family(
        CODE_LANGUAGES.__contains__,
        lambda name: f"code in {name}",
        lambda name: f"Write the code in {name}, in a code block named after it.",
        in_code_language,
    ),
}


def is_check(name: str) -> bool:
    """Whether `check` knows the name."""
    if name in CHECKS:
        return True
    family, _, value = name.partition(":")
    return family in _FAMILIES and _FAMILIES[family].allows(value)


@lru_cache(maxsize=4096)
def check(name: str) -> Check:
    """A check by its name: one of `CHECKS`, or a family with a value.

    Args:
        name: ``short``, ``max_words:50``, ``min_words:300``, ``max_sentences:3``, ``items:5``, ``table:yes``,
            ``language:spanish`` (`rlhi_plugin.text_language.TEXT_LANGUAGES`), ``code_in:python`` (`CODE_LANGUAGES`).

    Raises:
        ConfigError: no such check.
    """
    if name in CHECKS:
        return CHECKS[name]
    if not is_check(name):
        raise ConfigError(f"there is no check {name!r}. See rlhi_plugin.checks.CHECKS and rlhi_plugin.checkable.")
    kind, _, value = name.partition(":")
    family = _FAMILIES[kind]
    return Check(name, family.description(value), family.instruction(value), lambda text: family.holds(text, value))


def rivals(name: str) -> frozenset[str]:
    """Families and names that cannot be granted together with this one; a later wish replaces them."""
    family = name.partition(":")[0]
    return _RIVALS.get(family, frozenset({family}) if family in _FAMILIES else frozenset())


_RIVALS = {
    "short": frozenset({"detailed", "min_words"}),
    "detailed": frozenset({"short", "max_words", "max_sentences"}),
    "max_words": frozenset({"max_words", "min_words", "detailed"}),
    "min_words": frozenset({"min_words", "max_words", "max_sentences", "short"}),
    "max_sentences": frozenset({"max_sentences", "min_words", "detailed"}),
    "items": frozenset({"items", "no_lists"}),
    "no_lists": frozenset({"bullets", "items"}),
    "bullets": frozenset({"no_lists"}),
    "emojis": frozenset({"no_emojis"}),
    "no_emojis": frozenset({"emojis"}),
}
