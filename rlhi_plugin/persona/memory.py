"""What is known about a user, as a fold over what they said: join, contradict, fade, arrange.

Every step is a pure function of what is known and of one more thing said, so reading a history in two halves gives what
reading it at once gives. Time enters through the turns' own times alone, never through the clock of the machine.

Decay halves a statement's strength every `MemoryOptions.half_life_days` without a supporting turn (ours; exponential
forgetting as in H. Ebbinghaus, 1885, with the half-life as its only parameter).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import compress

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.persona.builder import LONG_AGO
from rlhi_plugin.persona.removals import is_removed
from rlhi_plugin.persona.render import FRAME_HEAD, FRAME_TAIL, visible
from rlhi_plugin.persona.wishes import contradict, read_wishes
from rlhi_plugin.records import PersonaStatement, Removal

MAX_EVIDENCE = 5
"""Turns cited for one statement, the newest ones."""
MAX_REMEMBERED = 64
"""Statements that a persona knows, rendered or in reserve; the weakest goes first (ours)."""
SAME_WORDS = 0.6
"""Share of common words (Jaccard) from which two statements count as one wish (ours)."""
EDIT = "persona-edit"
"""Conversation id of evidence that is not a turn but the user's own writing in their persona."""

_WORD = re.compile(r"\w+")
_DIGITS = re.compile(r"([0-9]{1,18})")
_WIDE = 0x2E80
"""From here on, scripts whose characters are about a token each (CJK and beyond)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryOptions:
    """How much a persona holds, and how fast it fades.

    Attributes:
        max_statements: Rendered at most, at least 1.
        max_tokens: Of the rendered persona, frame included, as `estimated_tokens` counts; at least 60.
        half_life_days: Days in which a statement loses half its strength, above 0.
        min_strength: In [0, 1]; a weaker statement is not rendered.

    Raises:
        ConfigError: one of them is out of range.
    """

    max_statements: int = 6
    max_tokens: int = 600
    half_life_days: float = 180.0
    min_strength: float = 0.05

    def __post_init__(self) -> None:
        if self.max_statements < 1:
            raise ConfigError(f"max_statements={self.max_statements} leaves no persona. Give 1 or more.")
        if self.max_tokens < 60:  # noqa: PLR2004 - the frame and one line; stated in the message
            raise ConfigError(f"max_tokens={self.max_tokens} holds the frame and nothing else. Give 60 or more.")
        if not self.half_life_days > 0:
            raise ConfigError(f"half_life_days={self.half_life_days} is no time. Give days above 0; inf never fades.")
        if not 0 <= self.min_strength <= 1:
            raise ConfigError(f"min_strength={self.min_strength} is out of range. Give 0 to 1.")


DEFAULT = MemoryOptions()


def strength(statement: PersonaStatement, at: datetime | None, options: MemoryOptions = DEFAULT) -> float:
    """What is left of the confidence in a statement at some time, in [0, 1].

    A locked statement has 1. Without a time on either side nothing fades.
    """
    if statement.locked:
        return 1.0
    return statement.confidence * _kept(statement.last_seen, at, options)


def remember(
    known: Sequence[PersonaStatement],
    said: PersonaStatement,
    removed: Sequence[Removal] = (),
    options: MemoryOptions = DEFAULT,
) -> list[PersonaStatement]:
    """What is known after one more thing was said.

    - What `said` contradicts (`rlhi_plugin.persona.wishes`) is gone, unless it is locked or newer; then `said` is.
    - A statement of the same wish or of nearly the same words takes `said` as further evidence and, unless its wording
      is the user's own or locked, its words.
    - What the user removed does not come back.
    - Of more than `MAX_REMEMBERED` the weakest goes.

    Args:
        known: In any order; the result does not depend on it.
        said: A statement with one piece of evidence.
        removed: What the user removed.
        options: How fast things fade.
    """
    wishes = read_wishes(said.text)
    opposed = [each for each in known if contradict(wishes, read_wishes(each.text))] if wishes else []
    if any(each.locked or _time(each) > _time(said) for each in opposed):
        return list(known)
    left = [each for each in known if each not in opposed] if opposed else list(known)
    match = _match(left, said)
    if match is not None and set(said.evidence) <= set(match.evidence):
        # A rebuilding meets the turns of a locked statement once more.
        return left
    if match is not None:
        return [_joined(each, said, options) if each is match else each for each in left]
    if is_removed(said, removed):
        return left
    left.append(said)
    if len(left) > MAX_REMEMBERED:
        loose = [each for each in left if not each.locked]
        if loose:
            left.remove(min(loose, key=lambda each: (strength(each, said.last_seen, options), recency(each))))
    return left


def arrange(
    known: Iterable[PersonaStatement],
    at: datetime | None,
    options: MemoryOptions,
    *,
    matters: Callable[[PersonaStatement], bool] = lambda _: True,
) -> tuple[tuple[PersonaStatement, ...], tuple[PersonaStatement, ...]]:
    """Divide what is known into what is rendered and what is held in reserve.

    Args:
        known: In any order; the result does not depend on it.
        at: Time at which strengths are compared: that of the newest turn.
        options: How many, how long, how strong.
        matters: Statements for which it is False come after all others.

    Returns:
        The rendered ones (locked first, then those that matter, each newest first), and the reserve, newest first.
    """
    newest = sorted(known, key=recency, reverse=True)
    if len(newest) <= 1:
        few = tuple(fit(newest, at, options))
        return few, () if few else tuple(newest)
    ranked = sorted(newest, key=lambda s: (not s.locked, not matters(s), -strength(s, at, options)))
    kept = fit(ranked, at, options)
    # Equal statements have equal words: comparing whole ones with each other takes longer than all the rest.
    texts = {s.text for s in kept}
    is_kept = [s.text in texts and s in kept for s in newest]
    shown = sorted(compress(newest, is_kept), key=lambda s: (not s.locked, not matters(s)))
    return tuple(shown), tuple(s for s, kept in zip(newest, is_kept, strict=True) if not kept)


def fit(ranked: Sequence[PersonaStatement], at: datetime | None, options: MemoryOptions) -> list[PersonaStatement]:
    """The first statements of a ranking that are strong enough and fit into the persona."""
    kept: list[PersonaStatement] = []
    room = options.max_tokens - estimated_tokens(f"{FRAME_HEAD}\n{FRAME_TAIL}")
    for statement in ranked:
        if len(kept) == options.max_statements:
            break
        room_left = room - _tokens_of(statement.text)
        if room_left >= 0 and strength(statement, at, options) >= options.min_strength:
            kept.append(statement)
            room = room_left
    return kept


@lru_cache(maxsize=8192)
def _tokens_of(text: str) -> int:
    """Of a statement as it is rendered."""
    return estimated_tokens(f'\n99. "{visible(text)}"')


def estimated_tokens(text: str) -> int:
    """About how many tokens `text` is: a quarter of its characters, and one for each wide (CJK) one, rounded up."""
    wide = sum(1 for c in text if ord(c) >= _WIDE)
    return wide + -(-(len(text) - wide) // 4)


Recency = tuple[datetime, str, tuple[tuple[int, str], ...], str]


def recency(statement: PersonaStatement) -> Recency:
    """Sort key: time of the newest supporting turn; its ids decide ties, in which 10 comes after 9."""
    newest = statement.evidence[0]
    return _time(statement), newest.conversation_id, _place(newest.message_id), statement.text


@lru_cache(maxsize=8192)
def _place(message_id: str) -> tuple[tuple[int, str], ...]:
    parts = (part for part in _DIGITS.split(message_id) if part)
    return tuple((int(part), "") if part.isdecimal() and part.isascii() else (-1, part) for part in parts)


def is_own_wording(statement: PersonaStatement) -> bool:
    """Whether the user wrote the statement themselves."""
    return any(cited.conversation_id == EDIT for cited in statement.evidence)


def _kept(since: datetime | None, until: datetime | None, options: MemoryOptions) -> float:
    if since is None or until is None:
        return 1.0
    # A clock that went backwards makes nothing stronger.
    days = max(0.0, (until - since).total_seconds() / 86_400)
    return float(0.5 ** (days / options.half_life_days))


def _time(statement: PersonaStatement) -> datetime:
    return statement.last_seen or LONG_AGO


def _match(known: Sequence[PersonaStatement], said: PersonaStatement) -> PersonaStatement | None:
    """The statement that `said` repeats: of several the most similar, then the newest."""
    words, wishes = _words(said.text), read_wishes(said.text)
    best: tuple[float, Recency] | None = None
    found = None
    for each in known:
        theirs = _words(each.text)
        similarity = len(words & theirs) / len(words | theirs) if words | theirs else 0.0
        if similarity < SAME_WORDS and not (wishes and wishes == read_wishes(each.text)):
            continue
        key = (similarity, recency(each))
        if best is None or key > best:
            best, found = key, each
    return found


def _joined(known: PersonaStatement, said: PersonaStatement, options: MemoryOptions) -> PersonaStatement:
    earlier = known.confidence * _kept(known.last_seen, said.last_seen, options)
    keep_text = known.locked or is_own_wording(known)
    own = tuple(cited for cited in known.evidence if cited.conversation_id == EDIT)
    others = tuple(cited for cited in known.evidence if cited.conversation_id != EDIT)
    evidence = (*said.evidence, *others)[: MAX_EVIDENCE - len(own)] + own
    times = [time for s in (known, said) for time in (s.first_seen, s.last_seen) if time is not None]
    return known.model_copy(
        update={
            "text": known.text if keep_text else said.text,
            "type": known.type if keep_text else said.type,
            "evidence": evidence,
            # Rounded at every step, so that a stored persona goes on exactly where one in memory would.
            "confidence": round(1.0 - (1.0 - earlier) * (1.0 - said.confidence), 4),
            "first_seen": min(times, default=None),
            "last_seen": max(times, default=None),
        }
    )


@lru_cache(maxsize=8192)
def _words(text: str) -> frozenset[str]:
    return frozenset(word.casefold() for word in _WORD.findall(text))
