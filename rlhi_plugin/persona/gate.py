"""Which statements of a persona matter to a request: a table of statement topics and kinds of requests, no model.

"Say hello first" has nothing to say to a traceback, "use bullet points" would spoil a translation. The gate reads the
first request of a thread once, with patterns (English), and drops what the table says; where it recognises nothing it
keeps everything but facts that share no word with the request. What asks to leave something out ("no emojis") stays:
it costs little and can always be broken. Deterministic, and some tens of microseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache

from rlhi_plugin.persona.request_kinds import RequestKind, excerpt, request_kinds
from rlhi_plugin.persona.wishes import read_wishes, statement_type
from rlhi_plugin.records import Persona, PersonaStatement, StatementType


class GateMode(StrEnum):
    """What the gate may leave out."""

    OFF = "off"
    """Nothing."""
    STATEMENTS = "statements"
    """Each statement that does not matter."""
    ALL = "all"
    """The whole persona, when none of its statements matters; else all of it stays."""


_VERBATIM = frozenset({RequestKind.TRANSLATION, RequestKind.EDITING, RequestKind.STRUCTURED})
"""The answer is a text of given content and form."""
_SHAPED = _VERBATIM | {RequestKind.CREATIVE, RequestKind.SMALL_TALK, RequestKind.SETS_FORMAT, RequestKind.ONE_LINE}
_SUBJECT = _VERBATIM | {RequestKind.CREATIVE, RequestKind.SMALL_TALK}
_EXACT = _VERBATIM | {RequestKind.CODE, RequestKind.MATHS}

_DROPPED_IN: dict[str, frozenset[RequestKind]] = {
    "length": _VERBATIM | {RequestKind.SETS_LENGTH, RequestKind.ONE_LINE},
    "lists": _SHAPED,
    "headings": _SHAPED,
    "steps": _SHAPED,
    "markdown": _VERBATIM,
    "tables": _SHAPED | {RequestKind.CODE, RequestKind.MATHS},
    "numbers": _SUBJECT | {RequestKind.CODE, RequestKind.MATHS},
    "sources": _SUBJECT | {RequestKind.CODE, RequestKind.MATHS},
    "examples": _SUBJECT,
    "summary": _SHAPED,
    "emojis": _EXACT,
    "greeting": _EXACT | {RequestKind.CREATIVE},
    "question": _EXACT,
    "humour": _EXACT,
    "formality": frozenset({RequestKind.STRUCTURED}),
    "simplicity": frozenset({RequestKind.TRANSLATION, RequestKind.STRUCTURED}),
    "language": _VERBATIM | {RequestKind.SETS_LANGUAGE},
}
"""By topic: the kinds of requests in which a wish for it is left out. Topics that are not here stay."""

_ONLY_IN: dict[str, RequestKind] = {"code": RequestKind.CODE, "comments": RequestKind.CODE}
"""By topic: the kind of request without which a wish for it is left out."""

_LIKE = {
    StatementType.LENGTH: "length",
    StatementType.FORMAT: "lists",
    StatementType.CONTENT: "examples",
    StatementType.STYLE: "formality",
    StatementType.LANGUAGE: "language",
    StatementType.EXPERTISE: "simplicity",
}
"""The topic that stands for a type where the statement's own topic cannot be read."""

_MANNER = re.compile(
    r"\b(?:answer|repl(?:y|ies)|respon[ds]|explain|explanation|writ(?:e|ing)|tone|style|format|prefers?|always|never|"
    r"likes?|every time|from now on)\w*",
    re.IGNORECASE,
)
_CONTENT_WORD = re.compile(r"\w{3,}")
_EMPTY = frozenset(
    """about after all and any are ask asked been before but can could did does for from get give had has have her here
    him his how into its just like make more most not now off one only our out please should some than that the their
    them then there these they this those too use very want was way were what when where which who why will with
    would wrong you your""".split()  # noqa: SIM905 - a list of ninety words in quotes is not easier to read
)


def gate(persona: Persona, request: str, mode: GateMode = GateMode.STATEMENTS) -> Persona:
    """The persona as far as it matters to the first request of a thread.

    Args:
        persona: Whole.
        request: What the user asks.
        mode: What may be left out.

    Returns:
        `persona` itself when nothing is left out; its digest is always that of what is left.
    """
    if mode is GateMode.OFF or not persona.statements:
        return persona
    kinds, words = _read(request)
    kept = tuple(s for s in persona.statements if s.locked or _matters(s, kinds, words))
    if len(kept) == len(persona.statements) or (mode is GateMode.ALL and kept):
        return persona
    return persona.model_copy(update={"statements": kept})


def matters(statement: PersonaStatement, request: str) -> bool:
    """Whether one statement matters to a request. A locked one always does."""
    return statement.locked or _matters(statement, *_read(request))


@lru_cache(maxsize=16)
def _read(request: str) -> tuple[frozenset[RequestKind], frozenset[str]]:
    """Kinds and words of a request, which many personas are tried on. Few are remembered: they may be long."""
    return request_kinds(request), _words(excerpt(request))


def _matters(statement: PersonaStatement, kinds: frozenset[RequestKind], words: frozenset[str]) -> bool:
    wishes = read_wishes(statement.text)
    if wishes:
        return any(_wish_matters(wish, kinds) for wish in wishes)
    kind = statement.type
    if kind is StatementType.OTHER:
        # Personas from before types existed know nothing better.
        kind = statement_type(statement.text)
    if kind in _LIKE:
        return not _DROPPED_IN[_LIKE[kind]] & kinds
    if kind is StatementType.AVOID or _MANNER.search(statement.text):
        return True
    return bool(words & _words(statement.text))


def _wish_matters(wish: str, kinds: Iterable[RequestKind]) -> bool:
    topic, _, direction = wish.partition(":")
    if topic in _ONLY_IN:
        return _ONLY_IN[topic] in kinds
    refuses = direction == "-" and _is_left_out(topic)
    return refuses or not any(kind in _DROPPED_IN.get(topic, ()) for kind in kinds)


def _is_left_out(topic: str) -> bool:
    """Whether refusing the topic means leaving something out, rather than answering in another way."""
    return topic not in ("length", "lists", "formality", "simplicity", "markdown")


@lru_cache(maxsize=4096)
def _words(text: str) -> frozenset[str]:
    """Words that carry content, cut to five letters so that "vaccine" meets "vaccines"."""
    return frozenset(word[:5] for word in _CONTENT_WORD.findall(text.casefold()) if word not in _EMPTY)
