"""Languages: the log's own word for it, or else py3langid, whose model for 97 languages comes inside the package."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from rlhi_plugin.errors import ConfigError, MissingExtraError
from rlhi_plugin.importers.languages import LANGUAGE_NAMES, language_name
from rlhi_plugin.records import Conversation
from rlhi_training.screens.screen import Finding, quote, requests

MIN_LETTERS = 40
"""Below so many letters the detector guesses: of short greetings in Chatbot Arena it names most wrongly (ours)."""
_READ = 1000
"""Characters of the user's words that are read; more changes nothing."""


class Language:
    """``language``: the user writes in none of the languages that the recipe names.

    What the log says counts. Where it says nothing, the user's own words are read; with fewer than `MIN_LETTERS`
    letters nothing is said about them, and they stay.

    Raises:
        ConfigError: a language that the detector does not know.
    """

    name = "language"
    drops = True

    def __init__(self, languages: tuple[str, ...]) -> None:
        unknown = sorted(set(languages) - set(LANGUAGE_NAMES.values()))
        if unknown:
            known = ", ".join(sorted(set(LANGUAGE_NAMES.values())))
            raise ConfigError(f"screens.languages: {', '.join(unknown)} is not known. Known: {known}")
        self._languages = frozenset(languages)

    def __call__(self, conversation: Conversation) -> Finding | None:
        """Compare."""
        said = language_name(conversation.language)
        how = "the log says so"
        if said is None:
            text = " ".join(message.content for message in requests(conversation))[:_READ]
            said, how = self.detect(text), quote(text)
        if said is None or said in self._languages:
            return None
        return Finding("language", f"{said}: {how}")

    def detect(self, text: str) -> str | None:
        """The language's English name; None for a text that is too short to tell."""
        if sum(map(str.isalpha, text)) < MIN_LETTERS:
            return None
        code, _ = self._identifier.classify(text)
        return LANGUAGE_NAMES.get(code)

    @cached_property
    def _identifier(self) -> Any:
        try:
            from py3langid.langid import MODEL_FILE, LanguageIdentifier
        except ImportError as error:
            raise MissingExtraError("py3langid", "train") from error
        identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
        # Only languages that people can be asked for: the others are confused with short English.
        identifier.set_languages([code for code in LANGUAGE_NAMES if code in set(identifier.labels)])
        return identifier
