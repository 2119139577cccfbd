"""What a text cannot hold, told at the speed of a copy: few texts have a run of digits, and hardly any has a key.

An expression that searches a text for digits takes as long as this does for all detectors together. Characters are
mapped to classes, and a class pattern of fixed length is looked for: both happen in C, in one pass each. What is
answered is never narrower than the expressions that it spares.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

LONG_RUN = 15
"""Characters of the shortest key or token that stands in one piece."""

_DIGITS, _LETTERS, _HEX = string.digits, string.ascii_letters, string.hexdigits


def _classes(other: str, **classes: str) -> bytes:
    """A table for `bytes.translate`: the characters of each class become its first letter, others become `other`."""
    table = bytearray(other.encode() * 256)
    for name, characters in classes.items():
        for character in characters.encode():
            table[character] = ord(name[0])
    return bytes(table)


_WORDS = _classes(" ", digit=_DIGITS, letter=_LETTERS)
_PAIRS = _classes(" ", hexadecimal=_HEX, separator=":-")
_GROUPS = bytes(ord(c) if c in ".-" else ord("d") if c in _DIGITS else ord(" ") for c in map(chr, range(256)))
_RUNS = _classes(" ", token=_LETTERS + _DIGITS + "_-./+=~:")
_OTHERWISE = _classes("x", digit=_DIGITS)
_NO_SIGNS = bytes(code for code in range(256) if chr(code) not in "@\\:-%")
_SIGNS = bytes.maketrans(b"%", b"\\")
"""Both begin an escape: one look tells that there is neither."""
_NO_DIGITS = bytes(code for code in range(256) if chr(code) not in _DIGITS)
_ESCAPES = re.compile(rb"%(?:40|3[ad]|2[0b])")
_PASSWORDS = re.compile(rb"pass[wpc]|de passe")
_BETWEEN_DIGITS = b" ().-\t"
_CHECK_DIGITS, _NUMBER, _SOCIAL = 2, 7, 9
"""Digits that an IBAN has at least, of the shortest telephone number, and of a social security number."""
_TOKEN = b"t" * LONG_RUN


def is_plain(text: str) -> bool:
    """Whether a text certainly holds nothing that the default detectors find: True of most of what people write.

    False says nothing. In as few steps as there are: it runs for every message.
    """
    if not text.isascii():
        return False
    # The space stands for the beginning, where a word may begin too.
    raw = f" {text}".lower().encode("ascii")
    signs = raw.translate(_SIGNS, _NO_SIGNS)
    if signs and (
        (b"@" in signs or b"::" in raw or b"://" in raw or b"-----" in raw)
        or (b"\\" in signs and (b"\\" in raw or _ESCAPES.search(raw)))
    ):
        return False
    if b"pwd" in raw or b"authorization" in raw or (b"pass" in raw and _PASSWORDS.search(raw)):
        return False
    # So keys are written, MAC addresses, IPv6 addresses without "::", and account numbers without spaces.
    if _TOKEN in raw.translate(_RUNS):
        return False
    digits = len(raw.translate(None, _NO_DIGITS))
    return digits < _CHECK_DIGITS or _are_nobodys(raw, digits)


def _are_nobodys(raw: bytes, digits: int) -> bool:
    """Whether so many digits in a text without long runs are certainly no number that detectors find."""
    groups = raw.translate(_GROUPS)
    if b" lldd" in raw.translate(_WORDS) or b"d.d.d" in groups or b"d.dd.d" in groups or b"d.ddd.d" in groups:
        return False
    # Cards and social security numbers have more digits than telephone numbers.
    return digits < _NUMBER or b"d" * _NUMBER not in raw.translate(_OTHERWISE, _BETWEEN_DIGITS)


@dataclass(frozen=True, slots=True)
class Shape:
    """What could be in a text; False is certain, True is not.

    Attributes:
        digit: A digit.
        pairs: Three of ``:`` and ``-`` around two pairs of hexadecimal digits, as in a MAC address.
        quad: Four hexadecimal digits before a ``:`` or ``-``, as in an IPv6 address.
        dotted: A digit, a dot, one to three digits, and a dot, as in an IPv4 address.
        number: Seven digits with nothing but separators between them, as in numbers of telephones and cards.
        social: Three, two and four digits with ``-`` between them, as in an American social security number.
        nine: Nine digits at all.
        account: A word that begins with two letters and two digits, as an IBAN does.
    """

    digit: bool = False
    pairs: bool = False
    quad: bool = False
    dotted: bool = False
    number: bool = False
    social: bool = False
    nine: bool = False
    account: bool = False


def shape(text: str) -> Shape:
    """Look at an ASCII text."""
    raw = text.encode("ascii", "replace")
    pairs = raw.translate(_PAIRS)
    has_pairs = b"shhshhs" in pairs
    groups = raw.translate(_GROUPS)
    digits = groups.count(b"d")
    if not digits:
        return Shape(pairs=has_pairs)
    return Shape(
        digit=True,
        pairs=has_pairs,
        quad=b"hhhhs" in pairs,
        dotted=b"d.d.d" in groups or b"d.dd.d" in groups or b"d.ddd.d" in groups,
        number=digits >= _NUMBER and b"d" * _NUMBER in raw.translate(_OTHERWISE, _BETWEEN_DIGITS),
        social=b"ddd-dd-dddd" in groups,
        nine=digits >= _SOCIAL,
        account=b" lldd" in b" " + raw.translate(_WORDS),
    )


def has_long_run(text: str) -> bool:
    """Whether an ASCII text has `LONG_RUN` characters in a row of which keys and tokens are made."""
    return _TOKEN in text.encode("ascii", "replace").translate(_RUNS)
