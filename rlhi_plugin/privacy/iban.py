"""International bank account numbers: country, length and check digits (ISO 13616-1)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rlhi_plugin.privacy.redaction import Span

# Characters in all, by country, as the SWIFT registry lists them.
_LENGTHS = {
    15: "NO",
    16: "BE",
    18: "DK FI FO GL NL SD",
    19: "MK SI FK",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM TL SO",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
_LENGTH_OF = {country: length for length, countries in _LENGTHS.items() for country in countries.split()}
_DIGITS = re.compile(r"[0-9]{2}[A-Za-z0-9]*")
_COUNTRY = re.compile(r"(?:^|[^A-Za-z0-9])([A-Za-z]{2})$")


def find_ibans(text: str) -> Iterator[Span]:
    """Account numbers in ASCII text, with or without single spaces or dashes, in upper or lower case."""
    for match in _DIGITS.finditer(text):
        country = _COUNTRY.search(text[max(0, match.start() - 3) : match.start()])
        length = _LENGTH_OF.get(country[1].upper()) if country else None
        if length is None:
            continue
        start = match.start() - 2
        end = _end(text, start, length)
        if end is not None and has_check_digits(re.sub(r"[ \-]", "", text[start:end])):
            yield Span(start, end, "iban")


def _end(text: str, start: int, length: int) -> int | None:
    """Where so many letters and digits with single separators end; None if they do not, or go on."""
    count, index = 0, start
    while index < len(text) and count < length:
        if text[index].isalnum():
            count += 1
        elif text[index] not in " -" or not text[index - 1].isalnum():
            return None
        index += 1
    if count < length or (index < len(text) and text[index].isalnum()):
        return None
    return index


def has_check_digits(iban: str) -> bool:
    """Whether the number, its first four characters moved to the end and its letters read as 10 to 35, is 1 mod 97."""
    return int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97 == 1
