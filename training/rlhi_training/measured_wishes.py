"""Wishes with a measure or a name in them, read from feedback: "in 50 words", "auf Deutsch", "as a table".

Only commands count. "364 words were written", "the French revolution" and "improve the table below" ask for nothing.
"""

from __future__ import annotations

import re

from rlhi_plugin.checkable import CODE_LANGUAGES, is_check
from rlhi_plugin.checks import SHORT_WORDS
from rlhi_plugin.text_language import TEXT_LANGUAGES

_NUMBERS = {
    word: number
    for number, word in enumerate(
        ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"), start=1
    )
}
_NUMBER = rf"\d{{1,4}}|{'|'.join(_NUMBERS)}"
_PLEASE = r"(?:\s(?:please|pls|plz|only|too|now|instead|thanks|this time|language))*\W*$"
_ASKS_HOW = re.compile(r"\b(?:how|what)\b.{0,25}\b(?:say|said|spell|call(?:ed)?|ask|write|written|mean|word)\b")
"""A question about a language is no wish to be answered in it."""
_START = (
    r"^\W*(?:(?:please|pls|now|and|but|no|ok(?:ay)?|same|again|i (?:want|need|said|meant)|it|that|this|answer)\W+)*"
)
_WRITE = (
    r"(?:answer|repl(?:y|ies)|respon[ds]|writ|rewrit|sa[yi]|tell|explain|translat|continu|sp[eo]ak|put|give|talk|mak"
    r"|convert|summari[sz]|describ|cut|shorten|keep|limit|reduc|show|list|us|do|trim|generat|chang)\w*"
)

_SPOKEN = (
    rf"({'|'.join(sorted(TEXT_LANGUAGES))})\b"
    r"(?! (?:people|food|culture|history|audience|class|teacher|student|lesson))"
)
_LANGUAGE = (
    re.compile(rf"\b{_WRITE}\b[^.!?\n]{{0,40}}?\b(?:in|into|to|using)\s{_SPOKEN}"),
    re.compile(rf"{_START}(?:in|into|to|use)\s{_SPOKEN}{_PLEASE}"),
    re.compile(rf"\bin\s{_SPOKEN},?\s(?:please|pls)\b"),
)
_NATIVE = {
    "german": r"auf deutsch", "spanish": r"en espa[nñ]ol", "french": r"en fran[cç]ais", "italian": r"in italiano",
    "portuguese": r"em portugu[eê]s", "russian": r"на русском|по-русски", "chinese": r"用中文|用汉语",
    "japanese": r"日本語で", "korean": r"한국어로", "polish": r"po polsku", "dutch": r"in het nederlands",
    "turkish": r"türkçe(?: olarak| yaz)", "ukrainian": r"українською", "arabic": r"بالعربية|باللغة العربية",
    "english": r"auf englisch|en ingl[eé]s|en anglais",
}  # fmt: skip
_NATIVE_PATTERNS = {name: re.compile(rf"(?<![a-zà-ÿа-яё])(?:{pattern})") for name, pattern in _NATIVE.items()}

# Longest first; "in c", "in r" and "in go" are too often something else.
_CODE_NAMES = sorted(CODE_LANGUAGES - {"c", "r", "go"}, key=len, reverse=True)
_CODE = rf"({'|'.join(map(re.escape, _CODE_NAMES))})(?![\w+#])"
_CODE_IN = (
    re.compile(rf"\b{_WRITE}\b[^.!?\n]{{0,30}}?\b(?:in|into|to|using)\s{_CODE}(?: code)?{_PLEASE}"),
    re.compile(rf"{_START}(?:in|into|to|use|using)\s{_CODE}(?: code)?(?:{_PLEASE}|,?\s(?:not|instead)\b)"),
)

_MOST = (
    r"(?:under|below|within|at most|no more than|not more than|less than|fewer than|max(?:imum)?(?: of)?"
    r"|up to|only|just)"
)
_LEAST = r"(?:at least|no less than|more than|over|minimum(?: of)?|min)"
_WORDS = (
    ("max_words", re.compile(rf"\b{_MOST}\s({_NUMBER})\s?words?\b")),
    ("max_words", re.compile(rf"\b({_NUMBER})\s?words?\s(?:or (?:less|fewer)|max\w*|at most|tops|limit)\b")),
    ("min_words", re.compile(rf"\b{_LEAST}\s({_NUMBER})\s?words?\b")),
    ("min_words", re.compile(rf"\b({_NUMBER})\s?words?\s(?:or more|min\w*|at least)\b")),
    ("min_words", re.compile(rf"\b(?:expand|extend|lengthen|elaborate)\w*\s(?:\w+\s)?to\s({_NUMBER})\s?words\b")),
    ("max_words", re.compile(rf"\bin\s(?:about |around |exactly )?({_NUMBER})\s?words?\b")),
)
_SENTENCES = re.compile(
    rf"\b(?:in|{_MOST}|use|to|into|with|give me)\s(?:about |around |exactly |just |only )*"
    rf"(?:(?:{_NUMBER})\s?(?:or|to|-)\s?)?({_NUMBER})\s(?:short |simple )?sentences\b"
)
_ITEMS = re.compile(
    rf"\b(?:give|list|name|show|as|in|into|use|make|write|exactly|only|just)"
    r"\s(?:me\s|it\s|this\s|a\slist\sof\s)*(?:exactly |only |just )?"
    rf"({_NUMBER})\s(?:short |main |key |bullet ?)*(?:points?|items?|bullets?|bullet points?)\b"
)
_TABLE = re.compile(
    r"\b(?:as|in|into|in the form of|use|make|want|need|give me|put (?:it|this|that|them) in(?:to)?|with"
    r"|add|create|draw|show)\s(?:it |this |that |them )?(?:as |in |into )?(?:an? |the )?(?:\w+ )?table"
    r"(?:\s(?:please|pls|instead|format|form|view))*"
    r"(?=\W*$|,| with| that| for| and| comparing)|\b(?:tabulate|tabular (?:form|format))\b"
)
_THEIR_OWN = re.compile(
    r"\b(?:this|the|that|my|your|above|below|previous|same) (?!in |as |into )(?:\w+ )?table\b|\btable (?:above|below)\b"
)


def measured_wishes(sentence: str) -> list[tuple[str, int]]:
    """Names of checks (`rlhi_plugin.checkable`) that one lower-case sentence asks for, and where in it each is asked.

    A limit of at most `SHORT_WORDS` words is the wish ``short``: one wish has one name.
    """
    found = [
        *([] if _ASKS_HOW.search(sentence) else _named("language", _LANGUAGE, sentence)),
        *((f"language:{name}", m.start()) for name, p in _NATIVE_PATTERNS.items() if (m := p.search(sentence))),
        *_named("code_in", _CODE_IN, sentence),
        *_lengths(sentence),
    ]
    for family, pattern in (("max_sentences", _SENTENCES), ("items", _ITEMS)):
        match = pattern.search(sentence)
        if match and (count := _count(match.group(1))) > 1:
            found.append((f"{family}:{count}", match.start()))
    table = _TABLE.search(sentence)
    if table and not _THEIR_OWN.search(sentence):
        found.append(("table:yes", table.start()))
    return [(name, place) for name, place in dict.fromkeys(found) if name == "short" or is_check(name)]


def _named(family: str, patterns: tuple[re.Pattern[str], ...], sentence: str) -> list[tuple[str, int]]:
    match = next((m for pattern in patterns if (m := pattern.search(sentence))), None)
    return [(f"{family}:{match.group(1)}", match.start(1))] if match else []


def _lengths(sentence: str) -> list[tuple[str, int]]:
    for family, pattern in _WORDS:
        match = pattern.search(sentence)
        if match:
            count = _count(match.group(1))
            short = family == "max_words" and count <= SHORT_WORDS
            return [("short" if short else f"{family}:{count}", match.start())]
    return []


def _count(word: str) -> int:
    return int(word) if word.isdecimal() else _NUMBERS[word]
