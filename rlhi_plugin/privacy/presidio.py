"""Microsoft Presidio as a finder: names, places and what else a language model of spaCy can tell.

It costs tens of milliseconds a message, and it needs ``pip install 'rlhi[presidio]'`` and a spaCy model (``python -m
spacy download en_core_web_lg``). Use it beside the base detectors, which know secrets that it does not:

    RLHIMiddleware(store=..., redact=PresidioRedactor())
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from rlhi_plugin.errors import ConfigError, MissingExtraError
from rlhi_plugin.privacy.patterns import PatternFinder
from rlhi_plugin.privacy.placeholders import PLACEHOLDER
from rlhi_plugin.privacy.redaction import DEFAULT_KINDS, Span, SpanRedactor
from rlhi_plugin.privacy.vault import Vault

MIN_SCORE = 0.5
"""Confidence from 0 to 1 below which a finding is left alone (ours; Presidio's own default is 0)."""

ENTITIES = ("PERSON", "LOCATION", "MEDICAL_LICENSE", "US_PASSPORT", "US_DRIVER_LICENSE", "UK_NHS", "CRYPTO")
"""What the base detectors do not look for. Dates, which are no secret, are not among them."""


class PresidioFinder:
    """Finds Presidio's entities.

    Args:
        entities: Presidio's names of them.
        language: Two letters; its spaCy model must be installed.
        min_score: From 0 to 1.
        analyzer: A `presidio_analyzer.AnalyzerEngine` of your own; made when absent.

    Raises:
        MissingExtraError: Presidio is not installed.
        ConfigError: its model is not, or an argument cannot work.
    """

    def __init__(
        self,
        *,
        entities: Iterable[str] = ENTITIES,
        language: str = "en",
        min_score: float = MIN_SCORE,
        analyzer: Any = None,
    ) -> None:
        if not 0.0 <= min_score <= 1.0:
            raise ConfigError(f"min_score={min_score} is not a confidence. Give a number from 0 to 1.")
        self._entities = list(entities)
        if not self._entities or any(not re.fullmatch(r"[A-Z][A-Z_]*", entity) for entity in self._entities):
            raise ConfigError(
                f"entities={self._entities} are not Presidio's names. Give such as: {', '.join(ENTITIES)}"
            )
        self._language = language
        self._min_score = min_score
        self._analyzer = _analyzer() if analyzer is None else analyzer

    def find(self, text: str) -> Iterator[Span]:
        """See `rlhi_plugin.privacy.redaction.Finder.find`."""
        if not text.strip():
            return
        done = [match.span() for match in PLACEHOLDER.finditer(text)]
        found = self._analyzer.analyze(
            text=text, language=self._language, entities=self._entities, score_threshold=self._min_score
        )
        for result in found:
            # A model may take a placeholder for a name.
            if not any(result.start < end and start < result.end for start, end in done):
                yield Span(result.start, result.end, str(result.entity_type).lower())


class PresidioRedactor(SpanRedactor):
    """Presidio's entities and the kinds of the base detectors, as one `rlhi_plugin.privacy.redaction.Redactor`.

    Args:
        finder: Presidio with other settings than its defaults.
        kinds: Kinds of the base detectors.
        vault: See `SpanRedactor`.

    Raises:
        MissingExtraError: Presidio is not installed.
        ConfigError: its model is not, or a kind is unknown.
    """

    def __init__(
        self,
        finder: PresidioFinder | None = None,
        *,
        kinds: Iterable[str] = DEFAULT_KINDS,
        vault: Vault | None = None,
    ) -> None:
        super().__init__(PatternFinder(kinds), finder or PresidioFinder(), vault=vault)


def _analyzer() -> Any:
    try:
        from presidio_analyzer import AnalyzerEngine
    except ImportError as error:
        raise MissingExtraError("presidio-analyzer", "presidio") from error
    try:
        return AnalyzerEngine()
    except (OSError, SystemExit) as error:  # what spaCy raises and does when it cannot find or fetch a model
        raise ConfigError(
            f"Presidio has no language model: {error}. Install one with: python -m spacy download en_core_web_lg"
        ) from error
