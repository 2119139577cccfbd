"""What redaction is: spans that hold something private, and texts in which placeholders stand for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from rlhi_plugin.privacy.placeholders import NO_SCOPE, Placeholders, Scope
from rlhi_plugin.privacy.vault import Vault

PERSONAL_KINDS = ("email", "phone", "credit_card", "iban", "us_ssn", "ip", "mac_address")
SECRET_KINDS = ("api_key", "private_key", "jwt", "bearer_token", "password")
DEFAULT_KINDS = (*PERSONAL_KINDS, *SECRET_KINDS)
"""What is redacted unless told otherwise."""
KINDS = (*DEFAULT_KINDS, "url")
"""Every kind of the base detectors. Web addresses are what conversations are about, so they are only on request."""

NOT_STORED = "\ufdd0"
"""A code point that Unicode reserves for a program's own use: it marks where parts of one message were joined."""

_ROUNDS = 5
"""A placeholder can uncover what its neighbour hid; two rounds are the most that tests have needed."""


@dataclass(frozen=True, slots=True)
class Span:
    """Something private in a text, as a half-open range of characters.

    Attributes:
        start: Index of its first character.
        end: Index after its last one.
        kind: One of `KINDS`, or a word of your own: lower-case letters and underscores.
    """

    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class Redacted:
    """A text in which placeholders stand for what was private.

    Attributes:
        text: The very same object when nothing was found.
        counts: How many spans were replaced, by kind.
    """

    text: str
    counts: Mapping[str, int] = field(default_factory=dict)


class Finder(Protocol):
    """Finds what is private in a text."""

    def find(self, text: str) -> Iterable[Span]:
        """Its spans, in any order; they may overlap."""
        ...


@runtime_checkable
class Screen(Finder, Protocol):
    """A finder that can tell of most texts at a glance that it would find nothing."""

    def spares(self, text: str) -> bool:
        """Whether it certainly would; False says nothing."""
        ...


@runtime_checkable
class Redactor(Protocol):
    """Makes a text safe to store. May be called from any thread."""

    def redact(self, text: str, *, scope: Scope = NO_SCOPE) -> Redacted:
        """Replace what is private.

        The same text in the same scope must give the same result, in every process: ids of messages are made from it.

        Args:
            text: Any text, also empty and with lone surrogates.
            scope: The conversation that it belongs to.
        """
        ...


class SpanRedactor:
    """The `Redactor` over any finders. ``[email_bcdfgh]`` stands for an address, throughout a conversation.

    Args:
        finders: Asked one after another; what several find is replaced once.
        placeholders: Names values; with the identity key unless given.
        vault: Keeps what was replaced, encrypted, for an app that wants it back.
    """

    def __init__(self, *finders: Finder, placeholders: Placeholders | None = None, vault: Vault | None = None) -> None:
        self._finders = finders
        self._placeholders = placeholders or Placeholders()
        self._vault = vault
        # Several finders would be asked one by one, which is no shorter way.
        only = finders[0] if len(finders) == 1 else None
        self.spares: Callable[[str], bool] | None = only.spares if isinstance(only, Screen) else None
        """Tells at a glance of most texts that there is nothing to replace."""

    def redact(self, text: str, *, scope: Scope = NO_SCOPE) -> Redacted:
        """See `Redactor.redact`. Redacting the result again changes nothing."""
        if self.spares is not None and self.spares(text):
            return Redacted(text)
        counts: Counter[str] = Counter()
        for _ in range(_ROUNDS):
            spans = merged([span for finder in self._finders for span in finder.find(text)])
            if not spans:
                break
            text = self._replaced(text, spans, scope)
            counts.update(span.kind for span in spans)
        return Redacted(text, counts)

    def redact_value(self, value: str, kind: str, *, scope: Scope = NO_SCOPE) -> Redacted:
        """Replace a value as a whole, because its name says what it is."""
        if not value or self._placeholders.is_one(value):
            return Redacted(value)
        return Redacted(self._replaced(value, [Span(0, len(value), kind)], scope), {kind: 1})

    def _replaced(self, text: str, spans: Iterable[Span], scope: Scope) -> str:
        pieces, done = [], 0
        for span in spans:
            found = text[span.start : span.end]
            value = found.replace(NOT_STORED, "")
            placeholder = self._placeholders.of(span.kind, value, scope)
            if self._vault is not None:
                self._vault.put(scope, placeholder, value)
            # Whoever joined parts with this mark must find as many of them afterwards.
            pieces += [text[done : span.start], placeholder, NOT_STORED * found.count(NOT_STORED)]
            done = span.end
        return "".join([*pieces, text[done:]])


def merged(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, those that overlap as one of the longest one's kind."""
    result: list[Span] = []
    longest = 0
    for span in sorted(spans, key=lambda s: (s.start, -s.end)):
        if span.end <= span.start:
            continue
        last = result[-1] if result else None
        if last is None or span.start >= last.end:
            result.append(span)
            longest = span.end - span.start
            continue
        wins = span.end - span.start > longest
        longest = max(longest, span.end - span.start)
        result[-1] = Span(last.start, max(last.end, span.end), span.kind if wins else last.kind)
    return result
