"""Cues: groups of wordings (``cues.toml``), heard in a text.

What a wording begins with is looked for first, and what words can go on with is remembered, so that hearing some forty
cues in a message takes microseconds.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files

from rlhi_training.labelling.phrases import Phrases

_Search = Callable[[str], object]
_DIGIT = re.compile(r"\d")
_PLAIN = r"(?:[^\\.^$*+?{}\[\]|()]|\\[^\w\s])"
_LITERAL = re.compile(rf"({_PLAIN}*)(?:\(\?:({_PLAIN}+(?:\|{_PLAIN}+)*)\))?({_PLAIN}*)")
"""Expressions that match a few strings: ``one(?:two|three)``."""


class Cues:
    """A set of named cues.

    Args:
        wordings: By name, ``words`` (regular expressions of words, a space between words) and ``parts`` (regular
            expressions that are searched for in the whole text).
    """

    def __init__(self, wordings: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        self.names = tuple(wordings)
        self._phrases = Phrases((name, phrase) for name, cue in wordings.items() for phrase in cue.get("words", ()))
        parts = [(name, part) for name, cue in wordings.items() for part in cue.get("parts", ())]
        foreign = [one for one in parts if _needs_foreign(one[1])]
        plain = [one for one in parts if one not in foreign]
        counting = [one for one in plain if _counts(one[1])]
        self._literal = [(name, literal) for name, part in plain for literal in _literals(part)]
        self._counting = _searches(counting)
        self._plain = _searches([one for one in plain if one not in counting and not _literals(one[1])])
        self._foreign = _searches([one for one in foreign if not _literals(one[1])])
        self._begun: dict[str, list[tuple[str, str]]] = {}
        for name, part in foreign:
            for literal in _literals(part):
                self._begun.setdefault(literal[0], []).append((name, literal))
        letters = "".join(sorted(set(self._begun).union(*(theirs for _, _, theirs in self._foreign))))
        self._letters = re.compile(f"[{letters}]" if letters else r"(?!)")

    def heard(self, text: str, words: Sequence[str]) -> set[str]:
        """Names of the cues in a lower-case text with these words."""
        found = self._phrases.heard(words)
        found.update([name for name, search, _ in self._plain if search(text)])
        for name, literal in self._literal:
            if literal in text:
                found.add(name)
        if self._counting and _DIGIT.search(text):
            found.update([name for name, search, _ in self._counting if search(text)])
        if not text.isascii():
            letters = set(self._letters.findall(text))
            for letter in letters:
                for name, literal in self._begun.get(letter, ()):
                    if name not in found and literal in text:
                        found.add(name)
            for name, search, theirs in self._foreign:
                if not (theirs and theirs.isdisjoint(letters)) and search(text):
                    found.add(name)
        return found


def _searches(parts: Sequence[tuple[str, str]]) -> list[tuple[str, _Search, frozenset[str]]]:
    """A search for the parts of each cue, and the letters of which one is in every text that it finds something in."""
    found: list[tuple[str, _Search, frozenset[str]]] = []
    for name in dict.fromkeys(name for name, _ in parts):
        theirs = [part for one, part in parts if one == name]
        pattern = re.compile("|".join(theirs))
        # An expression that can only match at the beginning need not be tried elsewhere.
        search = pattern.match if all(part.startswith("^") for part in theirs) else pattern.search
        found.append((name, search, _letters_in(pattern.pattern)))
    return found


def _literals(part: str) -> list[str]:
    """The strings that a part matches; none where these are not a few."""
    match = _LITERAL.fullmatch(part)
    if match is None:
        return []
    head, middle, tail = match.groups()
    return [re.sub(r"\\(.)", r"\1", f"{head}{one}{tail}") for one in (middle or "").split("|")]


def _needs_foreign(part: str) -> bool:
    """Whether a part can only be in a text that is not ASCII."""
    return not part.isascii() and not re.search(r"[a-z]", re.sub(r"\\.", "", part))


def _letters_in(pattern: str) -> frozenset[str]:
    """The letters that are not ASCII; none where a text may have others, or ASCII ones, in their place."""
    return frozenset(() if "[" in pattern else (char for char in pattern if not char.isascii()))


def _counts(part: str) -> bool:
    """Whether a part can only be in a text with a digit."""
    return part.removeprefix(r"\b").startswith(r"\d+") or part.endswith(r" \d+")


CUES: dict[str, Cues] = {
    group: Cues(wordings)
    for group, wordings in tomllib.loads(
        (files("rlhi_training") / "labelling" / "cues.toml").read_text("utf-8")
    ).items()
}
"""By whose text it is: ``follow_up``, ``reply``, ``request``."""
