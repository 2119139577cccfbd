"""What kind of request a text is: code, maths, a translation, ... Read with word lists and patterns (English).

A pattern is looked for only where one of its words or signs occurs, which keeps reading at some tens of microseconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from rlhi_plugin.persona.wishes import LANGUAGES


class RequestKind(StrEnum):
    """What kind of request it is; several may hold."""

    CODE = "code"
    MATHS = "maths"
    TRANSLATION = "translation"
    EDITING = "editing"
    CREATIVE = "creative"
    STRUCTURED = "structured"
    """The answer has to be JSON, CSV or the like."""
    SMALL_TALK = "small_talk"
    SETS_LENGTH = "sets_length"
    ONE_LINE = "one_line"
    SETS_FORMAT = "sets_format"
    SETS_LANGUAGE = "sets_language"


MAX_READ = 600
"""Characters of a request that are read, two thirds from its beginning and one from its end (ours)."""


@dataclass(frozen=True, slots=True)
class _Sign:
    """How a kind is recognised.

    Attributes:
        words: Any of these words is enough.
        signs: So is any of these pieces of text.
        pattern: So is this, looked for where one of `cues` occurs (a word of them, or a character).
        cues: Words without which the pattern cannot match.
    """

    words: frozenset[str] = frozenset()
    signs: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None
    cues: frozenset[str] = frozenset()


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.VERBOSE | re.DOTALL)


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DIGIT, _CALL = "0", "("
"""Cues that are not words: the text has a digit; the text has an opening bracket."""
_TONGUES = frozenset(LANGUAGES.split("|"))

_SIGNS: Mapping[RequestKind, _Sign] = MappingProxyType(
    {
        RequestKind.CODE: _Sign(
            words=_set(
                """python javascript typescript java rust golang kotlin sql html css bash powershell regex regexp
                traceback segfault exception exceptions compile compiler compiled compiles script scripts npm docker
                dockerfile kubernetes git api dataframe dataframes pandas numpy django flask nodejs postgres
                postgresql mysql
                webpack algorithm codebase refactor refactoring debug debugging keyerror valueerror typeerror indexerror
                attributeerror importerror nameerror syntaxerror runtimeerror nullpointerexception"""
            ),
            signs=(
                "```",
                "c++",
                "c#",
                "=>",
                ";\n",
                "stack trace",
                "unit test",
                "pull request",
                "pip install",
                "node.js",
            ),
            pattern=_pattern(
                r"""\b[a-z_]\w*\.[a-z_]\w*\(|\b[a-z_]\w*\(\)
                |\b(?:write|fix|review|implement)\b.{0,30}\b(?:function|class|method|program|bug|query|loop)\b
                |(?<!zip\ )(?<!dress\ )(?<!area\ )(?<!postal\ )\bcode\b(?!\ of\b)"""
            ),
            cues=_set("write fix review implement code") | {_CALL},
        ),
        RequestKind.MATHS: _Sign(
            words=_set(
                """solve equation equations integral integrals integrate derivative derivatives differentiate
                calculate compute prove proof induction sqrt factorise factorize matrix eigenvalue
                eigenvalues polynomial modulo"""
            ),
            signs=("square root", "how much is", "percent of", "sum of the"),
            pattern=_pattern(r"\d\s*[*+/^\u00d7\u00f7=]\s*\(?-?\d|\d\s+-\s+\d|\d\s*%\s*of"),
            cues=frozenset({_DIGIT}),
        ),
        RequestKind.TRANSLATION: _Sign(
            words=_set("translate translates translating translation"),
            signs=("how do you say", "how would you say", "how do i say", "how would i say"),
            pattern=_pattern(
                rf"""\b(?:put|turn|render|convert|say|write)\b.{{0,40}}
                \b(?:this|that|it|following|sentence|text|below|above)\b.{{0,20}}\b(?:in|into|to)\ (?:{LANGUAGES})\b
                |\b(?:in|into)\ (?:{LANGUAGES})\s*[:?]|\bwhat\ (?:is|does)\b.{{1,40}}\bin\ (?:{LANGUAGES})\b"""
            ),
            cues=_TONGUES,
        ),
        RequestKind.EDITING: _Sign(
            words=_set("proofread rephrase paraphrase reword copyedit"),
            signs=("proof-read",),
            pattern=_pattern(
                r"""\b(?:fix|correct|check|improve|polish|edit|tighten|clean\ up)\b.{0,30}
                \b(?:grammar|spelling|punctuation|typos?|wording|sentences?|paragraph|text|letter|e-?mail|essay|draft
                |message)\b
                |\brewrite\b.{0,20}\b(?:sentence|paragraph|text|e-?mail|following|this|letter|message)\b"""
            ),
            cues=_set("fix correct check improve polish edit tighten clean rewrite"),
        ),
        RequestKind.CREATIVE: _Sign(
            pattern=_pattern(
                r"""\b(?:write|compose|make\ up|tell|create|continue|invent|imagine|narrate|come\ up\ with)\b.{0,30}
                \b(?:poem|haiku|sonnet|song|lyrics|verses?|story|tale|fable|limerick|rap|novel|screenplay|scene|dialogue)\b"""
            ),
            cues=_set(
                """poem haiku sonnet song lyrics verse verses story tale fable limerick rap novel screenplay scene
                dialogue"""
            ),
        ),
        RequestKind.STRUCTURED: _Sign(
            pattern=_pattern(
                r"""\b(?:as|in|to|into|return|output|valid|only|a|an|the)\ (?:valid\ )?(?:json|csv|xml|yaml|toml)\b
                |\b(?:json|csv|xml|yaml|toml)\ (?:object|array|format|only|file|with|of)\b"""
            ),
            cues=_set("json csv xml yaml toml"),
        ),
        RequestKind.SMALL_TALK: _Sign(
            pattern=_pattern(
                r"""^\W*(?:(?:hi|hey|hello|hiya|yo|good\ (?:morning|evening|afternoon|night)|thanks?(?:\ you)?|thx|bye
                |how\ are\ you|how'?s\ it\ going|what'?s\ up|there|again|all|so\ much|a\ lot|today|everyone|doing
                |nice\ to\ meet\ you)\b\W*){1,6}$"""
            ),
            cues=_set("hi hey hello hiya yo good thank thanks thx bye how what hows whats nice"),
        ),
        RequestKind.SETS_LENGTH: _Sign(
            words=_set("briefly concisely"),
            signs=(
                "in short",
                "in brief",
                "in detail",
                "in depth",
                "tl;dr",
                "short answer",
                "detailed answer",
                "yes or no",
            ),
            pattern=_pattern(
                r"""\b(?:\d+|one|two|three|four|five|ten|a\ single|a\ few)[-\ ](?:short\ |more\ )?
                (?:words?|sentences?|paragraphs?|lines?|pages?|characters?)\b|\bdetailed\ explanation\b"""
            ),
            cues=_set(
                """word words sentence sentences paragraph paragraphs line lines page pages character characters
                explanation"""
            ),
        ),
        RequestKind.ONE_LINE: _Sign(
            signs=("yes or no",),
            pattern=_pattern(r"\b(?:one|1|a\ single)[-\ ](?:word|sentence|line|number)\b"),
            cues=_set("word sentence line number"),
        ),
        RequestKind.SETS_FORMAT: _Sign(
            pattern=_pattern(
                r"""\b(?:as|in|with|using|into)\ (?:a\ |an\ |the\ )?(?:\w+\ )?(?:bullet(?:s|ed)?(?:\ points?)?|list
                |table|prose|markdown|headings|outline|numbered\ steps|paragraphs?|essay|e-?mail|letter)\b
                |\bmake\ (?:me\ )?a\ (?:list|table)\b"""
            ),
            cues=_set(
                """bullet bullets bulleted list table prose markdown headings outline numbered paragraph paragraphs
                essay email mail letter"""
            ),
        ),
        RequestKind.SETS_LANGUAGE: _Sign(
            pattern=_pattern(
                rf"""\b(?:answer|reply|respond|write|explain|say)\b.{{0,40}}\bin\ (?:{LANGUAGES})\b
                |^\W*in\ (?:{LANGUAGES})\b"""
            ),
            cues=_TONGUES,
        ),
    }
)
_ASKS_IN = re.compile(rf"\W*(?:please,? )?(?:answer|reply|respond)\b.{{0,30}}\bin (?:{LANGUAGES})\b")
_WORDS = re.compile(r"\w+")
_HAS_DIGIT = re.compile(r"\d")


def excerpt(request: str) -> str:
    """What is read of a request, in lower case."""
    if len(request) > MAX_READ:
        request = f"{request[: 2 * MAX_READ // 3]}\n{request[-MAX_READ // 3 :]}"
    return request.lower()


def request_kinds(request: str) -> frozenset[RequestKind]:
    """What kinds of request it is; empty where nothing is recognised. Pure.

    Args:
        request: Of any length; long ones are read at both ends.
    """
    text = excerpt(request)
    cues = set(_WORDS.findall(text))
    if _HAS_DIGIT.search(text):
        cues.add(_DIGIT)
    if "(" in text:
        cues.add(_CALL)
    kinds = frozenset(kind for kind, sign in _SIGNS.items() if _holds(sign, text, cues))
    # "Answer in Spanish: ..." names a language and still is a question of its own.
    if RequestKind.TRANSLATION in kinds and _ASKS_IN.match(text):
        return kinds - {RequestKind.TRANSLATION}
    return kinds


def _holds(sign: _Sign, text: str, cues: set[str]) -> bool:
    if not sign.words.isdisjoint(cues) or any(piece in text for piece in sign.signs):
        return True
    return sign.pattern is not None and not sign.cues.isdisjoint(cues) and sign.pattern.search(text) is not None
