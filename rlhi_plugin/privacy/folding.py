"""Text as detectors read it: plain ASCII, without the characters that people do not see.

A card number with thin spaces, an address with a zero-width joiner or in full-width letters is still one. The folded
text keeps a way back, so that what is found in it can be replaced in the original.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import lru_cache

from rlhi_plugin.privacy.redaction import NOT_STORED, Span
from rlhi_plugin.privacy.words import WORD, english, has_word

# Soft hyphen, Mongolian and zero-width marks, direction marks, variation selectors, byte-order mark, and our own.
_UNSEEN = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    rf"\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff{NOT_STORED}"
)
_SPACES = "\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_DASHES = "\u2010-\u2015\u2212\ufe58\ufe63"
# Full-width letters, digits and the signs that matter (Chinese punctuates with the others), and mathematical letters.
_WIDE = "\uff03\uff05\uff0b\uff0d-\uff1a\uff1d\uff20-\uff3a\uff3f\uff41-\uff5a\U0001d400-\U0001d7ff"


_SCRIPTS_END = 0x20000
"""Behind it Unicode has ideographs, and nothing with digits of its own: looking there would take every start 0.1 s."""


def _digits() -> str:
    """Decimal digits of other scripts, as ranges for a character class."""
    zeros = [c for c in map(chr, range(0x80, _SCRIPTS_END)) if unicodedata.decimal(c, None) == 0]
    return "".join(f"{zero}-{chr(ord(zero) + 9)}" for zero in zeros)


# One class, which the regex engine looks up at once; what a match is, is asked of the few that there are.
_CLASS = f"[{_UNSEEN}]+|[{_SPACES}{_DASHES}{_WIDE}{_digits()}]"
_ODD = re.compile(_CLASS)
# JSON within a text, as tools answer it: an escaped line break must not look like a letter before a number. And of a
# web address what may stand in or before something private: @, a colon, an equals sign, a space, a plus.
_ODD_OR_ESCAPE = re.compile(rf"\\(?:[nrt]|u[0-9a-fA-F]{{4}})|%(?:40|3[aAdD]|2[0bB])|{_CLASS}")
_ODD_OR_WORD = re.compile(rf"{WORD}|{_ODD_OR_ESCAPE.pattern}")
_MARKS = (".", ":")
_IS_UNSEEN = re.compile(f"[{_UNSEEN}]+")
_IS_SPACE = re.compile(f"[{_SPACES}]")
_IS_DASH = re.compile(f"[{_DASHES}]")


@dataclass(frozen=True, slots=True)
class Folded:
    """A text as detectors read it.

    Attributes:
        text: ASCII; whatever has no ASCII form is a question mark.
        starts: Where, in `text`, stretches begin before which characters were left out; ascending.
        shifts: For each, how many characters were left out up to there.
        marks: Where, in `text`, a full stop or colon stands for a wide one, which programs do not hold; ascending.
    """

    text: str
    starts: tuple[int, ...] = ()
    shifts: tuple[int, ...] = ()
    marks: tuple[int, ...] = ()

    def original(self, span: Span) -> Span:
        """The span of the original text that a span of the folded one came from, and what was left out after it."""
        if not self.starts:
            return span
        return Span(self._back(span.start), self._back(span.end), span.kind)

    def before_marks(self, start: int, end: int) -> str:
        """The folded text from `start` to the first wide mark, at most to `end`: what may be a piece of a program."""
        place = bisect_left(self.marks, start)
        return self.text[start : min(end, self.marks[place])] if place < len(self.marks) else self.text[start:end]

    def _back(self, index: int) -> int:
        place = bisect_right(self.starts, index)
        return index + (self.shifts[place - 1] if place else 0)


def fold(text: str) -> Folded:
    """Fold a text; plain ASCII without escapes comes back as it is."""
    odd = _ODD_OR_ESCAPE if "\\" in text or "%" in text else _ODD
    if text.isascii():
        if odd is _ODD:
            return Folded(text)
    elif has_word(text):
        odd = _ODD_OR_WORD
    pieces: list[str] = []
    starts: list[int] = []
    shifts: list[int] = []
    marks: list[int] = []
    done = gone = 0
    for match in odd.finditer(text):
        pieces.append(text[done : match.start()])
        done = match.end()
        plain = _plain(match.group()) if match.lastgroup is None else english(match)
        pieces.append(plain)
        if plain in _MARKS:
            marks.append(match.start() - gone)
        if left_out := done - match.start() - len(plain):
            gone += left_out
            starts.append(done - gone)
            shifts.append(gone)
    pieces.append(text[done:])
    folded = "".join(pieces).encode("ascii", "replace").decode("ascii")
    return Folded(folded, tuple(starts), tuple(shifts), tuple(marks))


@lru_cache(maxsize=4096)
def _plain(odd: str) -> str:
    """One ASCII character for an odd one; nothing for unseen ones."""
    if odd.startswith(("\\", "%")):
        character = " " if odd[1] in "nrt" else chr(int(odd.lstrip("\\u%"), 16))
        return character if character.isascii() else _plain(character)
    if _IS_UNSEEN.match(odd):
        return ""
    if _IS_SPACE.match(odd):
        return " "
    if _IS_DASH.match(odd):
        return "-"
    plain = unicodedata.normalize("NFKC", odd)
    if len(plain) == 1 and plain.isascii():
        return plain
    digit = unicodedata.decimal(odd, None) if len(odd) == 1 else None
    return "?" if digit is None else str(digit)
