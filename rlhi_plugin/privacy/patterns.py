"""The base redactor: LangChain's detectors and patterns, in memory, without a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.privacy.credentials import CredentialFinder
from rlhi_plugin.privacy.folding import fold
from rlhi_plugin.privacy.personal import PersonalFinder
from rlhi_plugin.privacy.placeholders import PLACEHOLDER
from rlhi_plugin.privacy.redaction import DEFAULT_KINDS, KINDS, Span
from rlhi_plugin.privacy.screening import is_plain


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
        self._finders = (CredentialFinder(chosen), PersonalFinder(chosen))
        # See `rlhi_plugin.privacy.redaction.Screen`.
        self.spares: Callable[[str], bool] = is_plain if chosen <= frozenset(DEFAULT_KINDS) else _never

    def find(self, text: str) -> Iterator[Span]:
        """See `rlhi_plugin.privacy.redaction.Finder.find`."""
        folded = fold(text)
        for finder in self._finders:
            for span in finder.find(folded.text):
                found = folded.original(span)
                # A setting whose value is a placeholder already would be found for ever.
                if not PLACEHOLDER.fullmatch(text, found.start, found.end):
                    yield found


def _never(text: str) -> bool:
    del text
    return False
