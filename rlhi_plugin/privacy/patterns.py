"""The base redactor: LangChain's detectors and patterns, in memory, without a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.privacy.credentials import CredentialFinder
from rlhi_plugin.privacy.encoded import encoded_texts
from rlhi_plugin.privacy.folding import Folded, fold
from rlhi_plugin.privacy.personal import PersonalFinder
from rlhi_plugin.privacy.placeholders import PLACEHOLDER
from rlhi_plugin.privacy.redaction import DEFAULT_KINDS, KINDS, Span
from rlhi_plugin.privacy.screening import has_long_run, is_plain


class PatternFinder:
    """Finds personal data and secrets of the given kinds in any text.

    Args:
        kinds: Some of `KINDS`.

    Raises:
        ConfigError: a kind is unknown, or none is given.
    """

    def __init__(self, kinds: Iterable[str] = DEFAULT_KINDS) -> None:
        chosen = frozenset(kinds)
        unknown = sorted(str(kind) for kind in chosen - set(KINDS))
        if unknown or not chosen:
            raise ConfigError(
                f"{', '.join(unknown) or 'nothing'} cannot be redacted. Choose from: {', '.join(KINDS)}; or 'off'."
            )
        self._secrets, self._personal = CredentialFinder(chosen), PersonalFinder(chosen)
        # See `rlhi_plugin.privacy.redaction.Screen`.
        self.spares: Callable[[str], bool] = is_plain if chosen <= frozenset(DEFAULT_KINDS) else _never

    def find(self, text: str) -> Iterator[Span]:
        """See `rlhi_plugin.privacy.redaction.Finder.find`."""
        folded = fold(text)
        for span in chain(self._spans(folded), self._encoded(folded.text)):
            found = folded.original(span)
            # A setting whose value is a placeholder already would be found for ever.
            if not PLACEHOLDER.fullmatch(text, found.start, found.end):
                yield found

    def _spans(self, folded: Folded) -> Iterator[Span]:
        yield from self._secrets.find(folded)
        yield from self._personal.find(folded.text)

    def _encoded(self, text: str) -> Iterator[Span]:
        """Each stretch of base64 whose text holds anything, as a whole."""
        for start, end, said in encoded_texts(text) if has_long_run(text) else ():
            inner = next(self._spans(fold(said)), None)
            if inner is not None:
                yield Span(start, end, inner.kind)


def _never(text: str) -> bool:
    del text
    return False
