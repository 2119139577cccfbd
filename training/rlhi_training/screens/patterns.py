"""Lists of weighted patterns in TOML, as two of the screens read them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from rlhi_training.screens.needles import Needles

_MANY = 16
"""Texts from which on one pass over all of them takes less time than looking for each needed text in each."""


@dataclass(frozen=True, slots=True)
class Sign:
    """One pattern.

    Attributes:
        name: What it stands for.
        needs: Texts in lower case, of which one must be there for the pattern to match; looking for them first makes
            the screen ten times faster.
        together: For the patterns that none of these is needed for: groups, of each of which one must be there.
        pattern: Compiled, without regard to case.
        unless: What makes a match count for nothing.
        weight: What one or more matches add to the score.
    """

    name: str
    needs: tuple[str, ...]
    together: tuple[tuple[tuple[str, ...], ...], ...]
    pattern: re.Pattern[str]
    unless: re.Pattern[str] | None
    weight: float

    def possible(self, holds: Callable[[str], bool]) -> bool:
        """Whether one of the texts is there that a match needs; nearly all searches end here.

        Args:
            holds: Whether a needed text is in what is searched, in lower case.
        """
        return _one_of(self.needs, holds) or any(
            all(_one_of(group, holds) for group in groups) for groups in self.together
        )

    def search(self, text: str) -> re.Match[str] | None:
        """The first match."""
        found = self.pattern.search(text)
        return None if found and self.unless and self.unless.search(text) else found


def _one_of(needs: tuple[str, ...], holds: Callable[[str], bool]) -> bool:
    for need in needs:  # noqa: SIM110 - any() takes three times as long
        if holds(need):
            return True
    return False


class Signs:
    """The signs of a file, which many texts can be searched for at once.

    Args:
        known: In the order of the file.
    """

    def __init__(self, known: Sequence[Sign]) -> None:
        self.known = known
        self._of: dict[str, list[int]] = {}
        for number, sign in enumerate(known):
            for need in (*sign.needs, *(need for groups in sign.together for group in groups for need in group)):
                self._of.setdefault(need, []).append(number)
        self._needles = Needles(self._of)

    def possible(self, lowered: Sequence[str]) -> list[list[Sign]]:
        """For each text, given in lower case, the signs that are possible in it.

        Of one text the needed ones are looked for one by one, of many all together.
        """
        if len(lowered) < _MANY:
            return [[sign for sign in self.known if sign.possible(text.__contains__)] for text in lowered]
        found = []
        for held in self._needles.in_each(lowered):
            # A sign of whose texts none is there is not possible.
            numbers = sorted({number for need in held for number in self._of[need]})
            found.append([self.known[n] for n in numbers if self.known[n].possible(held.__contains__)])
        return found


@lru_cache
def signs(file: str) -> Signs:
    """The signs of a file beside this one, a table each.

    ``patterns``; ``needs``, ``together``, or both; maybe ``unless`` and ``weight``.
    """
    data = tomllib.loads((files("rlhi_training.screens") / file).read_text("utf-8"))
    known = [
        Sign(
            name,
            tuple(entry.get("needs", ())),
            tuple(tuple(map(tuple, groups)) for groups in entry.get("together", ())),
            re.compile("|".join(entry["patterns"]), re.IGNORECASE),
            re.compile("|".join(entry["unless"]), re.IGNORECASE) if "unless" in entry else None,
            float(entry.get("weight", 1.0)),
        )
        for name, entry in data.items()
    ]
    return Signs(known)


def plain_quotes(text: str) -> str:
    """With the apostrophes that patterns are written with."""
    return text.replace("\u2019", "'").replace("\u2018", "'")
