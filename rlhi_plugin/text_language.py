"""Which language a text is in, told by py3langid, whose model comes inside its package."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any

from rlhi_plugin.errors import MissingExtraError

MIN_LETTERS = 20
"""Below so many letters nothing is said about a text (ours)."""
MIN_CONFIDENCE = 0.5
"""py3langid's own confidence, in [0, 1], below which nothing is said (ours)."""
_READ = 250
"""Characters that are read; more changes nothing."""
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+", re.DOTALL)

_CODES = {
    "en": "english", "fr": "french", "de": "german", "es": "spanish", "pt": "portuguese", "it": "italian",
    "nl": "dutch", "pl": "polish", "ru": "russian", "uk": "ukrainian", "tr": "turkish", "ar": "arabic",
    "he": "hebrew", "hi": "hindi", "bn": "bengali", "zh": "chinese", "ja": "japanese", "ko": "korean",
    "vi": "vietnamese", "th": "thai", "id": "indonesian", "sv": "swedish", "no": "norwegian", "da": "danish",
    "fi": "finnish", "cs": "czech", "el": "greek", "ro": "romanian", "hu": "hungarian",
}  # fmt: skip
TEXT_LANGUAGES = frozenset(_CODES.values())
"""Languages that are told apart: English names in lower case."""


@lru_cache(maxsize=65536)
def text_language(text: str) -> str | None:
    """The English name of a text's language in lower case, code and links left out.

    Returns:
        One of `TEXT_LANGUAGES`; None where too few letters are left, or the detector is not sure.

    Raises:
        MissingExtraError: py3langid is not installed.
    """
    prose = text[: 8 * _READ]
    if "`" in prose or "://" in prose:
        prose = _CODE.sub(" ", prose)
    prose = prose[:_READ]
    # Most texts have them at their beginning.
    if sum(map(str.isalpha, prose[: 2 * MIN_LETTERS])) < MIN_LETTERS > sum(map(str.isalpha, prose)):
        return None
    code, confidence = _identifier().classify(prose)
    return _CODES.get(code) if confidence >= MIN_CONFIDENCE else None


@cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise MissingExtraError("py3langid", "train") from error
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([code for code in _CODES if code in set(identifier.labels)])
    return identifier
