"""Cues: groups of wordings (``cues.toml``), heard in a text.

A wording of one or several words is matched word by word, and what a word can begin is remembered, so that hearing some
forty cues in a message takes microseconds.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files

_REMEMBERED = 50_000
"""Distinct words whose meaning is remembered, some megabytes."""


_Begun = tuple[tuple[str, list[re.Pattern[str]]], ...]
"""Names of the cues whose wordings a word begins, each with the words that must follow."""


class Cues:
    """A set of named cues.

    Args:
        wordings: By name, ``words`` (regular expressions of words, a space between words) and ``parts`` (regular
            expressions that are searched for in the whole text).
    """

    def __init__(self, wordings: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        self.names = tuple(wordings)
        self._phrases = [
            (name, [re.compile(word) for word in phrase.split(" ")])
            for name, cue in wordings.items()
            for phrase in cue.get("words", ())
        ]
        firsts = "|".join(f"(?:{phrase[0].pattern})" for _, phrase in self._phrases)
        self._known = re.compile(firsts) if firsts else re.compile(r"(?!)")
        self._parts = _compiled(wordings, foreign=False)
        self._foreign = _compiled(wordings, foreign=True)
        self._begins = _Begins(self._begun_by)

    def heard(self, text: str, words: Sequence[str]) -> set[str]:
        """Names of the cues in a lower-case text with these words."""
        found = {name for name, search in self._parts if search(text)}
        if not text.isascii():
            found |= {name for name, search in self._foreign if search(text)}
        begun = list(map(self._begins.__getitem__, words))
        if any(begun):
            for place, phrases in enumerate(begun):
                for name, rest in phrases:
                    if name not in found and (not rest or _follows(words, place, rest)):
                        found.add(name)
        return found

    def _begun_by(self, word: str) -> _Begun:
        # One expression for all: most words begin nothing, and asking each phrase takes a hundred times as long.
        if not self._known.fullmatch(word):
            return ()
        return tuple((name, phrase[1:]) for name, phrase in self._phrases if phrase[0].fullmatch(word))


class _Begins(dict[str, _Begun]):
    """What words begin, found once for the first `_REMEMBERED` words."""

    def __init__(self, find: Callable[[str], _Begun]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, word: str) -> _Begun:
        found = self._find(word)
        if len(self) < _REMEMBERED:
            self[word] = found
        return found


def _follows(words: Sequence[str], place: int, rest: Sequence[re.Pattern[str]]) -> bool:
    """Whether the words after `place` are the rest of a phrase."""
    return place + len(rest) < len(words) and all(
        pattern.fullmatch(words[place + k]) for k, pattern in enumerate(rest, start=1)
    )


def _compiled(
    wordings: Mapping[str, Mapping[str, Sequence[str]]], *, foreign: bool
) -> list[tuple[str, Callable[[str], object]]]:
    """Searches of the parts that can, or cannot, only be in a text that is not ASCII."""
    found: list[tuple[str, Callable[[str], object]]] = []
    for name, cue in wordings.items():
        parts = [part for part in cue.get("parts", ()) if _needs_foreign(part) is foreign]
        if parts:
            pattern = re.compile("|".join(parts))
            # An expression that can only match at the beginning need not be tried elsewhere.
            found.append((name, pattern.match if all(part.startswith("^") for part in parts) else pattern.search))
    return found


def _needs_foreign(part: str) -> bool:
    return not part.isascii() and not re.search(r"[a-z]", re.sub(r"\\.", "", part))


CUES: dict[str, Cues] = {
    group: Cues(wordings)
    for group, wordings in tomllib.loads(
        (files("rlhi_training") / "labelling" / "cues.toml").read_text("utf-8")
    ).items()
}
"""By whose text it is: ``follow_up``, ``reply``, ``request``."""
