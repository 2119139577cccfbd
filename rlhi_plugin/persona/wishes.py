"""What a sentence asks for, among the few things that code can read with certainty: topic and direction.

``length:-`` is "shorter", ``lists:+`` is "use bullet points". Two wishes contradict each other when they have the same
topic and another direction (or, of languages, another value). Everything else, free text included, is never taken for a
contradiction: similar words with a "not" between them say too little.

English only. A sentence that says both directions of one topic says nothing about it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict

from rlhi_plugin.records import StatementType

MAX_CLAUSE = 20
"""Words; a longer clause is a task of its own or pasted material, and its words are about that (ours)."""

Wishes = frozenset[str]
"""``topic:+``, ``topic:-`` or ``language:name``."""

_NEVER = "$^"


class _Topic(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    type: StatementType
    both_ways: bool = False
    more: tuple[str, ...]
    less: tuple[str, ...] = (_NEVER,)
    says_more: str
    says_less: str


_TOPICS: Mapping[str, _Topic] = MappingProxyType(
    {
        name: _Topic.model_validate(topic)
        for name, topic in tomllib.loads((files("rlhi_plugin.persona") / "wishes.toml").read_text("utf-8")).items()
    }
)
_MENTIONS = {
    name: tuple(re.compile(rf"\b(?:{'|'.join(words)})(?!\w)") for words in (topic.more, topic.less))
    for name, topic in _TOPICS.items()
}
LANGUAGES = (
    "english|french|german|spanish|portuguese|italian|dutch|polish|russian|ukrainian|turkish|arabic|hebrew|hindi|"
    "bengali|chinese|japanese|korean|vietnamese|thai|indonesian|swedish|norwegian|danish|finnish|czech|greek|romanian|hungarian"
)
_LANGUAGE = re.compile(
    rf"""\b(?:answer|reply|respond|write|speak|talk|continue|explain)\w*\b[^.!?\n]{{0,25}}?
      \b(?:in|using)\ ({LANGUAGES})\b
    | ^\W*(?:please,?\ )?(?:in|use|only)\ ({LANGUAGES})(?:\ (?:only|please|from\ now\ on))?\W*$
    | \balways\ (?:in|use)\ ({LANGUAGES})\b | \bin\ ({LANGUAGES}),?\ please\b""",
    re.VERBOSE,
)
_CLAUSE = re.compile(
    r"[.!?;:,\n]| but | and (?=(?:use|add|give|make|with|write|keep|put|please)\b)| - |\u2014",
)
_FLIP = re.compile(
    r"""\b(?:not?\ (?:so|too|that|as) | too\ (?:many|much) | too | no\ more | no\ need\ for | no | not | never | don'?t
    | do\ not | doesn'?t | didn'?t | without | stop | fewer | less | avoid | skip | remove | drop | leave\ out | cut
    | hate | dislikes? | instead\ of | rather\ than | tired\ of | enough\ of | enough\ with | sick\ of | rid\ of | quit
    | cease)\b""",
    re.VERBOSE,
)
_REACH = 4
"""Words between a refusal and what it refuses: "don't use so many bullets" (ours)."""
_NO_FLIP = re.compile(
    r"""\b(?:don'?t|do\ not|never)\ forget | \bwhy\ (?:not|don'?t\ you) | \bnot\ only\b | \bno\ problem\b
    | \bnot\ enough\b | \btoo\ few\b | \btoo\ little\b""",
    re.VERBOSE,
)
_UNDECIDED = re.compile(
    r"\b(?:don'?t|do not|wouldn'?t|doesn'?t) (?:mind|care|matter)|\bor not\b|\beither way\b|\bup to you\b"
)
_ASKS = re.compile(
    r"\W*(?:what|who|whom|whose|when|which|how|is it|is there|are there|does|did|why (?!not\b|don'?t\b))\b"
    r"(?!.*\bplease\b)"
)
"""A question about the world, whose words are its subject: "what are the main sources of error"."""
_ENOUGH = re.compile(r"^\s*enough\b")
_ABSENT = re.compile(
    r"\b(?:where (?:is|are)|forgot|missing|lacks?|lacking|still no|again no|didn'?t (?:use|include|give|add))\b"
)
_NO_QUESTION = re.compile(r"\bno (\w+(?: \w+){0,2})\?")
"""As a question, "no bullets?" complains that there are none."""

_ONE_OFF = re.compile(
    r"\b(?:just (?:this )?once|(?:only|just) this (?:time|once|one)|this time only|for this one|this once)\b",
    re.IGNORECASE,
)
_AVOIDING = re.compile(
    r"^\W*(?:please,? )?(?:no(?!,)|stop|avoid|never|don'?t|do not|without|skip|leave out|drop)\b", re.IGNORECASE
)
_WHO = re.compile(
    r"""\bi(?:'m|\ am)\ (?:a|an|the|new\ to|familiar|learning|working|studying)\b
    | \bi\ (?:work|study|teach|already\ know|know)\b | \bmy\ (?:job|work|field|profession|background)\b
    | \bexplain\w*\b.{0,30}\b(?:beginner|child|expert)\b""",
    re.IGNORECASE | re.VERBOSE,
)


@lru_cache(maxsize=8192)
def read_wishes(text: str) -> Wishes:
    """What `text` asks for, among the topics of this module. Pure; empty where nothing is certain."""
    lowered = _NO_QUESTION.sub(r"missing \1.", text.casefold().replace("\u2019", "'"))
    if _UNDECIDED.search(lowered) or _ASKS.match(lowered):
        return frozenset()
    found: dict[str, set[str]] = {}
    clauses = [clause for clause in _CLAUSE.split(lowered) if clause and clause.strip()]
    for clause in clauses:
        if len(clause.split()) > MAX_CLAUSE:
            continue
        for topic, signs in _MENTIONS.items():
            for words, sign in zip(signs, (True, False), strict=True):
                for mention in words.finditer(clause):
                    wanted = sign is not _flipped(clause, mention.start(), mention.end(), topic)
                    found.setdefault(topic, set()).add("+" if wanted else "-")
    wishes = {f"{topic}:{directions.copy().pop()}" for topic, directions in found.items() if len(directions) == 1}
    languages = {name for match in _LANGUAGE.finditer(lowered) for name in match.groups() if name}
    if len(languages) == 1:
        wishes.add(f"language:{languages.pop()}")
    return frozenset(wishes)


def _flipped(clause: str, start: int, end: int, topic: str) -> bool:
    """Whether the mention in `clause[start:end]` is refused. "Wordy" is a complaint even without a "too"."""
    before = clause[:start]
    if topic == "length" and re.match(r"wordy|verbose|rambl|wall", clause[start:end]):
        return not re.search(r"\bmore\s*$", before)
    if _ENOUGH.match(clause[end:]) or _ABSENT.search(before):
        return False
    if _NO_FLIP.search(before):
        return False
    refusal = None
    for refusal in _FLIP.finditer(before):  # noqa: B007 - the last one is the nearest
        pass
    return refusal is not None and len(before[refusal.end() :].split()) <= _REACH


def contradict(one: Wishes, other: Wishes) -> bool:
    """Whether the two ask for opposite things on some topic. Symmetric."""
    topics = {wish.partition(":")[0] for wish in other - one}
    return any(wish.partition(":")[0] in topics for wish in one - other)


def is_one_off(text: str) -> bool:
    """Whether the user says that it holds for this once."""
    return bool(_ONE_OFF.search(text))


@lru_cache(maxsize=8192)
def statement_type(text: str) -> StatementType:
    """The type of a statement, from its words. Pure.

    A refusal is `StatementType.AVOID`, unless it is about the length. Where wishes of several types meet, the first in
    the order of `StatementType` is the statement's.
    """
    wishes = read_wishes(text)
    types = {_type_of(wish) for wish in wishes}
    for kind in StatementType:
        if kind in types:
            return kind
    if _WHO.search(text):
        return StatementType.EXPERTISE
    return StatementType.AVOID if _AVOIDING.search(text) else StatementType.OTHER


def _type_of(wish: str) -> StatementType:
    topic, _, direction = wish.partition(":")
    if topic == "language":
        return StatementType.LANGUAGE
    kind = _TOPICS[topic]
    return StatementType.AVOID if direction == "-" and not kind.both_ways else kind.type


def canned(wish: str) -> str:
    """One wish as a fixed sentence of ours, which holds no user's words."""
    topic, _, direction = wish.partition(":")
    if topic == "language":
        return f"Prefers answers in {direction.capitalize()}."
    return _TOPICS[topic].says_more if direction == "+" else _TOPICS[topic].says_less
