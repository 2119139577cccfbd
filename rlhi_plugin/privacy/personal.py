"""Personal data of well-known forms, found by LangChain's own detectors where it has one, and made precise.

LangChain's detectors look at all of a text, and take version numbers for IP addresses and decimals for credit cards.
Here they look only at the places where something could be, and what they find must also fit its surroundings.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from functools import cache

from rlhi_plugin.privacy.iban import find_ibans
from rlhi_plugin.privacy.phone import find_phone
from rlhi_plugin.privacy.redaction import Span
from rlhi_plugin.privacy.screening import Shape, shape

_NUMBER = re.compile(r"[0-9](?:[ ().\-\t]{0,3}[0-9]){6,}(?![A-Za-z0-9_])")
"""Seven digits or more with few separators: a card or a telephone number, if anything. Like all patterns that search
the whole text, it begins with a class of rare characters, which the regex engine skips to; what must stand before is
asked afterwards."""
_GAP = re.compile(r"[ ().\-\t]+")
_FREE = re.compile(r"(?:^|[^\w.\-]|[^\d]-|[A-Za-z]\.)[+(]{0,2}$")

_DIGITS = "0123456789"


class PersonalFinder:
    """Finds personal data in folded text."""

    def __init__(self, kinds: frozenset[str]) -> None:
        self._kinds = kinds

    def find(self, text: str) -> Iterator[Span]:
        """See `Finder.find`; `text` is ASCII."""
        kinds, seen = self._kinds, shape(text)
        if "email" in kinds and "@" in text:
            yield from _emails(text)
        if "url" in kinds and "." in text:
            yield from _detected("url", text)
        if seen.pairs and "mac_address" in kinds:
            yield from _macs(text)
        if not seen.digit:
            return
        if "ip" in kinds:
            yield from _ips(text, seen)
        if seen.account and "iban" in kinds:
            yield from find_ibans(text)
        if "us_ssn" in kinds:
            yield from _ssns(text, seen)
        if seen.number and ("phone" in kinds or "credit_card" in kinds):
            yield from self._numbers(text)

    def _numbers(self, text: str) -> Iterator[Span]:
        for number in _NUMBER.finditer(text):
            end = number.end()
            start = _free_start(text, number.start(), end)
            if start is None:
                continue
            if "credit_card" in self._kinds:
                yield from _cards(text, start, end)
            if "phone" in self._kinds:
                yield from find_phone(text, start, end)


def _free_start(text: str, start: int, end: int) -> int | None:
    """Where a number of its own begins in a run of digits: "A0 (415) 200-0000" is not free at the 0, but at the 4."""
    while not is_free(text, start):
        gap = _GAP.search(text, start, end)
        if gap is None:
            return None
        start = gap.end()
    return start


def is_free(text: str, start: int) -> bool:
    """Whether a number that begins here is one of its own: not within a word, a decimal or a longer number."""
    return start == 0 or _FREE.search(text[max(0, start - 4) : start]) is not None


@cache
def _detector(kind: str) -> Callable[[str], list[dict[str, object]]]:
    # Importing LangChain's agents takes a second, which commands that redact nothing do not wait for.
    from langchain.agents.middleware import pii

    return getattr(pii, f"detect_{kind}")  # type: ignore[no-any-return] # each is a Detector


def _detected(kind: str, text: str, offset: int = 0) -> Iterator[Span]:
    for match in _detector(kind)(text):
        yield Span(int(str(match["start"])) + offset, int(str(match["end"])) + offset, kind)


_EMAIL_REACH = 320
"""Characters in an address (RFC 3696, erratum 1690)."""
_AT = re.compile(r"[A-Za-z0-9._%+\-]@[A-Za-z0-9.\-]")
_NO_DOMAIN = re.compile(r"@[^.]*\.(?:png|jpe?g|gif|svg|webp|ico|py|js|ts|css|html?|json|so|dll|exe)$", re.IGNORECASE)
_SERVICE = "git@"
"""Everybody's user name on a code host."""


def _emails(text: str) -> Iterator[Span]:
    start = end = 0
    windows = []
    for match in _AT.finditer(text):
        if match.start() > end:
            windows.append((start, end))
            start = max(end, match.start() - _EMAIL_REACH)
        end = match.end() + _EMAIL_REACH
    for begin, stop in [*windows, (start, end)]:
        for span in _detected("email", text[begin:stop], begin):
            found = text[span.start : span.end]
            if not _NO_DOMAIN.search(found) and not found.startswith(_SERVICE):
                yield span


_PAIRS_BEFORE = re.compile(r"(?:[0-9a-f]{2}[:\-]){1,3}$", re.IGNORECASE)
_PAIRS_AFTER = re.compile(r"(?:[:\-][0-9a-f]{2}){1,3}", re.IGNORECASE)
_CHAIN = 9
"""Characters of three pairs: six pairs with as many around them are a fingerprint."""


def _macs(text: str) -> Iterator[Span]:
    for span in _detected("mac_address", text):
        found = text[span.start : span.end]
        before = _PAIRS_BEFORE.search(text[max(0, span.start - _CHAIN) : span.start])
        after = _PAIRS_AFTER.match(text, span.end)
        if sum(len(pairs.group()) for pairs in (before, after) if pairs) >= _CHAIN:
            continue
        # All zeros or all ones are nobody's.
        if len(set(found.lower()) - {":", "-"}) > 1 and len({c for c in found if c in ":-"}) == 1:
            yield span


_IP6 = re.compile(r"[23][0-9a-fA-F]{3}:[0-9a-fA-F:]{2,35}(?![A-Za-z0-9_:])")
_VERSION_BEFORE = re.compile(
    r"(?:\bv|version|release|[a-z]/|ver\.?|build|section|chapter|driver|firmware|[=<>~^]=?)\s*$", re.IGNORECASE
)
_CALLED_ADDRESS = re.compile(r"\b(?:ip|ipv4|address|host|server)\b[^\n]{0,12}$", re.IGNORECASE)
_RESOLVERS = frozenset({"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9"})
_SMALL = 32
"""Four numbers below this are more often a version or a section than an address (1 in 4,096 addresses)."""


def _ips(text: str, seen: Shape) -> Iterator[Span]:
    if seen.dotted:
        for span in _detected("ip", text):
            if _is_somebodys(text, span):
                yield span
    for match in _IP6.finditer(text) if seen.quad else ():
        if is_free(text, match.start()) and _is_global(match.group()):
            yield Span(match.start(), match.end(), "ip")


def _is_global(address: str) -> bool:
    try:
        return ipaddress.IPv6Address(address).is_global
    except ValueError:
        return False


def _is_somebodys(text: str, span: Span) -> bool:
    """Whether dotted numbers are an address that could point at a person: public, and not a version or section."""
    found, before = text[span.start : span.end], text[max(0, span.start - 20) : span.start]
    if found in _RESOLVERS or not ipaddress.ip_address(found).is_global:
        return False
    if re.match(r"\.\d|[A-Za-z_]", text[span.end : span.end + 2]) or before.endswith((".", "-", "_")):
        return False
    if _CALLED_ADDRESS.search(before):
        return True
    return not _VERSION_BEFORE.search(before) and any(int(part) >= _SMALL for part in found.split("."))


_SSN = re.compile(r"[0-9]{3}-[0-9]{2}-[0-9]{4}(?![\w\-])")
_ASSIGNED = re.compile(r"(?!000|666|9)\d{3}[ \-]?(?!00)\d{2}[ \-]?(?!0000)\d{4}")
"""Areas, groups and serials that the Social Security Administration gives out."""
_CALLED_SSN = re.compile(
    r"(?:\bssn|social security)[^\d\n]{0,30}(?P<value>\d{3}[ \-]?\d{2}[ \-]?\d{4})(?!\d)", re.IGNORECASE
)


def _ssns(text: str, seen: Shape) -> Iterator[Span]:
    for match in _SSN.finditer(text) if seen.social else ():
        if _ASSIGNED.fullmatch(match.group()) and is_free(text, match.start()):
            yield Span(match.start(), match.end(), "us_ssn")
    lowered = text.lower() if seen.nine else ""
    if "ssn" in lowered or "social security" in lowered:
        for match in _CALLED_SSN.finditer(text):
            if _ASSIGNED.fullmatch(match["value"]):
                yield Span(*match.span("value"), "us_ssn")


# First digits and lengths by network (ISO/IEC 7812 as the networks publish them).
_ISSUER = re.compile(
    r"(?:4\d{12}(?:\d{3})?|(?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[68]\d)\d{11}|6(?:011|5\d{2}|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14})"
)
_OTHER_CARD = re.compile(r"(?<!\d)3\d{3}[ \-]?\d{6}[ \-]?\d{4,5}(?!\d)")
"""Four, six, five (American Express) or four (Diners Club) digits, a form that LangChain does not know."""
_GROUP = re.compile(r"(?<![0-9.])[0-9]{4,}")
"""Where a card may begin in a run: not behind the point of a decimal."""
_TABLE = 30
"""More digits in one run are a table, or digits of pi."""


def _cards(text: str, start: int, end: int) -> Iterator[Span]:
    run = text[start:end]
    if sum(map(run.count, _DIGITS)) > _TABLE:
        return
    for group in _GROUP.finditer(run):
        # Numbers before the card must not shift its groups of four, so the detector begins at each group once.
        begin = start + group.start()
        found = [span for span in _detected("credit_card", text[begin:end], begin) if span.start == begin]
        other = _OTHER_CARD.match(text, begin, end)
        if other:
            found.append(Span(*other.span(), "credit_card"))
        for span in found:
            digits = re.sub(r"\D", "", text[span.start : span.end])
            if _ISSUER.fullmatch(digits) and has_luhn_digit(digits):
                yield span


def has_luhn_digit(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(doubled) + sum(int(digit) for digit in digits[-1::-2])) % 10 == 0
