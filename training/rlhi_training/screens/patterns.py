"""Lists of weighted patterns in TOML, as two of the screens read them."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files


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

    def possible(self, lowered: str) -> bool:
        """Whether one of the texts is there that a match needs; nearly all searches end here."""
        return _one_of(self.needs, lowered) or any(
            all(_one_of(group, lowered) for group in groups) for groups in self.together
        )

    def search(self, text: str, lowered: str) -> re.Match[str] | None:
        """The first match in a text that is given in lower case as well."""
        if not self.possible(lowered):
            return None
        found = self.pattern.search(text)
        return None if found and self.unless and self.unless.search(text) else found


def _one_of(needs: tuple[str, ...], lowered: str) -> bool:
    for need in needs:  # noqa: SIM110 - any() takes three times as long
        if need in lowered:
            return True
    return False


@lru_cache
def signs(file: str) -> tuple[Sign, ...]:
    """The signs of a file beside this one, a table each.

    ``patterns``; ``needs``, ``together``, or both; maybe ``unless`` and ``weight``.
    """
    data = tomllib.loads((files("rlhi_training.screens") / file).read_text("utf-8"))
    return tuple(
        Sign(
            name,
            tuple(entry.get("needs", ())),
            tuple(tuple(map(tuple, groups)) for groups in entry.get("together", ())),
            re.compile("|".join(entry["patterns"]), re.IGNORECASE),
            re.compile("|".join(entry["unless"]), re.IGNORECASE) if "unless" in entry else None,
            float(entry.get("weight", 1.0)),
        )
        for name, entry in data.items()
    )


def plain_quotes(text: str) -> str:
    """With the apostrophes that patterns are written with."""
    return text.replace("\u2019", "'").replace("\u2018", "'")
