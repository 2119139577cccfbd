"""Base64, in which settings, headers and tools hold texts: what is private there is no less so."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

_RUN = re.compile(r"[A-Za-z0-9+/_\-]{24,}={0,2}")
"""Of eighteen bytes or more, which a key with its name takes; also in the alphabet for URLs (RFC 4648, 5)."""
_STANDARD = str.maketrans("-_", "+/")
_BREAKS = str.maketrans("", "", "\t\r\n")


def encoded_texts(text: str) -> Iterator[tuple[int, int, str]]:
    """Stretches of ASCII text that are a text in base64: where each begins and ends, and what it says."""
    for match in _RUN.finditer(text):
        said = _decoded(match.group())
        if said is not None:
            yield match.start(), match.end(), said


def _decoded(run: str) -> str | None:
    """What a run says; None where it is no base64 of a readable text, as names and digests are not."""
    body = run.rstrip("=").translate(_STANDARD)
    try:
        said = base64.b64decode(body + "=" * (-len(body) % 4), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return said if said.translate(_BREAKS).isprintable() else None
