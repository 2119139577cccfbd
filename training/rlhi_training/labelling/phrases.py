"""Phrases of a few words, each word a regular expression, heard in a text word by word.

Which phrases a word begins, and which of those the next word goes on with, is found out once and remembered: an
automaton that is made as texts need it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_REMEMBERED = 50_000
"""Distinct words of which it is remembered what they begin, some megabytes."""
_REMEMBERED_NEXT = 1_000
"""The same, after each beginning."""

_Open = tuple[int, int]
"""A phrase by its number, and how many of its words were heard."""


class Phrases:
    """Named phrases.

    Args:
        phrases: Names with regular expressions of words, a space between words. Several phrases may have one name.
    """

    def __init__(self, phrases: Iterable[tuple[str, str]]) -> None:
        self._phrases = [(name, [re.compile(word) for word in phrase.split(" ")]) for name, phrase in phrases]
        self._states: dict[tuple[_Open, ...], _State] = {}
        self._start = _State(self, [(number, 0) for number in range(len(self._phrases))], _REMEMBERED)

    def heard(self, words: Sequence[str]) -> set[str]:
        """The names of all phrases in a text with these words."""
        found: set[str] = set()
        begun = list(map(self._start.__getitem__, words))
        if begun.count(None) == len(begun):
            return found
        for following, state in enumerate(begun, start=1):
            if state is not None:
                found |= state.ended
                if state.goes_on:
                    found |= _ended(state, words, following)
        return found

    def name(self, number: int) -> str:
        """Of a phrase."""
        return self._phrases[number][0]

    def word(self, one: _Open) -> re.Pattern[str] | None:
        """The next word of a phrase; None at its end."""
        number, place = one
        words = self._phrases[number][1]
        return words[place] if place < len(words) else None

    def state(self, heard: tuple[_Open, ...]) -> _State | None:
        """The one state for these phrases; None for none."""
        if not heard:
            return None
        found = self._states.get(heard)
        if found is None:
            found = self._states[heard] = _State(self, heard, _REMEMBERED_NEXT)
        return found


def _ended(begun: _State, words: Sequence[str], place: int) -> set[str]:
    """Names of the phrases that words from a place on bring to their end."""
    found: set[str] = set()
    state: _State | None = begun
    while state is not None and state.goes_on and place < len(words):
        state, place = state[words[place]], place + 1
        if state is not None:
            found |= state.ended
    return found


class _State(dict[str, "_State | None"]):
    """By word, what it goes on to.

    Args:
        phrases: All of them.
        heard: Those of which something was heard.
        most: How many words are remembered.
    """

    def __init__(self, phrases: Phrases, heard: Sequence[_Open], most: int) -> None:
        super().__init__()
        self._phrases, self._most = phrases, most
        self.ended = {phrases.name(one[0]) for one in heard if phrases.word(one) is None}
        self._literal: dict[str, list[_Open]] = {}
        self._others: list[tuple[re.Pattern[str], _Open]] = []
        for number, place in heard:
            pattern = phrases.word((number, place))
            if pattern is None:
                continue
            if pattern.pattern.isalpha():
                self._literal.setdefault(pattern.pattern, []).append((number, place + 1))
            else:
                self._others.append((pattern, (number, place + 1)))
        self.goes_on = bool(self._literal or self._others)
        # One expression for all: most words begin nothing, and asking each takes a hundred times as long.
        known = "|".join(f"(?:{pattern})" for pattern in dict.fromkeys(one.pattern for one, _ in self._others))
        self._known = re.compile(known or r"(?!)")

    def __missing__(self, word: str) -> _State | None:
        found = list(self._literal.get(word, ()))
        if self._known.fullmatch(word):
            found += [one for pattern, one in self._others if pattern.fullmatch(word)]
        state = self._phrases.state(tuple(found))
        if len(self) < self._most:
            self[word] = state
        return state
