"""Telephone numbers, judged by Google's numbering plans (the `phonenumbers` library)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from rlhi_plugin.privacy.redaction import Span

_MAX_DIGITS = 15  # ITU-T E.164
_MIN_DIGITS = 7
_US_FORM = re.compile(r"(?<![\d.\-])(?:1[ .\-])?(?:\(\d{3}\) ?|\d{3}[ .\-])\d{3}[ .\-]\d{4}(?!\d|[.\-]\d)")
_CALLED_ONE = re.compile(
    r"(?:\btel\b|phone|mobile|\bcell\b|what'?s ?app|\bfax|\bcall (?:me|us|at|on)|\bsms\b|\bdial|contact (?:no|num)"
    r"|telefon|t[e?]l[e?]phone|handynummer|rufnummer|celular|cellulare)"
    r"[^\d\n]{0,20}$",
    re.IGNORECASE,
)
_REACH = 40
"""Characters before a number in which a word may say that it is one."""

_REGIONS = ("US", "GB", "IN", "DE", "FR", "BR", "CN", "JP", "AU", "ES", "IT", "MX", "CA", "NL", "RU", "KR")
"""Whose national forms are tried where a word says that a telephone number follows."""


def find_phone(text: str, start: int, end: int) -> Iterator[Span]:
    """Telephone numbers within a run of digits and separators.

    A number counts when it is valid and written internationally (``+44 20 ...``), in the American form (``(415)
    555-2671``), or after a word such as "phone" in the form of one of several large countries. Bare digits are more
    often an order, a time or a count.
    """
    # An area code in brackets and the plus of a country code stand before the first digit.
    start -= 1 if text[start - 1 : start] == "(" else 0
    start -= 1 if text[start - 1 : start] == "+" else 0
    if text[start] == "+":
        for stop in _stops(text, start, end):
            if _is_valid(text[start:stop], None):
                yield Span(start, stop, "phone")
                return
    for match in _US_FORM.finditer(text, start, end):
        if _is_valid(match.group(), "US"):
            yield Span(match.start(), match.end(), "phone")
            return
    if _CALLED_ONE.search(text[max(0, start - _REACH) : start]):
        for stop in _stops(text, start, end):
            if any(_is_valid(text[start:stop], region) for region in _REGIONS):
                yield Span(start, stop, "phone")
                return


def _stops(text: str, start: int, end: int) -> Iterator[int]:
    """Ends of the number, the longest first: what follows it may be another number."""
    digits = 0
    stops = []
    for index in range(start, end):
        if text[index].isdigit():
            digits += 1
            if digits > _MAX_DIGITS:
                break
            if digits >= _MIN_DIGITS and not (index + 1 < end and text[index + 1].isdigit()):
                stops.append(index + 1)
    yield from reversed(stops)


@lru_cache(maxsize=4096)
def _is_valid(number: str, region: str | None) -> bool:
    """Whether it is somebody's number: valid, and no hotline that anybody may call free or at a shared cost."""
    import phonenumbers

    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return False
    public = (
        phonenumbers.PhoneNumberType.TOLL_FREE,
        phonenumbers.PhoneNumberType.PREMIUM_RATE,
        phonenumbers.PhoneNumberType.SHARED_COST,
        phonenumbers.PhoneNumberType.UAN,
    )
    return phonenumbers.is_valid_number(parsed) and phonenumbers.number_type(parsed) not in public
