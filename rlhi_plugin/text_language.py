"""Which language a text is in, told by py3langid, whose model comes inside its package."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from rlhi_plugin.errors import MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_LETTERS = 20
"""Below so many letters nothing is said about a text (ours)."""
MIN_CONFIDENCE = 0.5
"""py3langid's own confidence, in [0, 1], below which nothing is said (ours)."""
_READ = 250
"""Characters that are read; more changes nothing."""
_FEW, _TOGETHER = 8, 256
"""Texts below which one after the other takes less time, and above which arrays grow large (ours)."""
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


def text_language(text: str) -> str | None:
    """The English name of a text's language in lower case, code and links left out.

    Returns:
        One of `TEXT_LANGUAGES`; None where too few letters are left, or the detector is not sure.

    Raises:
        MissingExtraError: py3langid is not installed.
    """
    prose = _prose(text)
    return None if prose is None else _named(prose)


def text_languages(texts: Sequence[str]) -> list[str | None]:
    """`text_language` of many texts, in a fraction of the time.

    Raises:
        MissingExtraError: py3langid is not installed.
    """
    proses = list(map(_prose, texts))
    different = list({prose for prose in proses if prose is not None})
    if len(different) < _FEW:
        names = list(map(_named, different))
    else:
        names = [
            name
            for start in range(0, len(different), _TOGETHER)
            for name in _classified(different[start : start + _TOGETHER])
        ]
    known = dict(zip(different, names, strict=True))
    return [None if prose is None else known[prose] for prose in proses]


def _prose(text: str) -> str | None:
    """What is read of a text; None where there are too few letters in it."""
    prose = text[: 8 * _READ]
    if "`" in prose or "://" in prose:
        prose = _CODE.sub(" ", prose)
    prose = prose[:_READ]
    # Most texts have them at their beginning.
    if sum(map(str.isalpha, prose[: 2 * MIN_LETTERS])) < MIN_LETTERS > sum(map(str.isalpha, prose)):
        return None
    return prose


@lru_cache(maxsize=65536)
def _named(prose: str) -> str | None:
    code, confidence = _identifier().classify(prose)
    return _CODES.get(code) if confidence >= MIN_CONFIDENCE else None


def _classified(proses: Sequence[str]) -> list[str | None]:
    """As `_named`, by the arrays of the detector's model: what it does byte by byte for one text, for all in step."""
    import numpy as np

    model = _identifier()
    encoded = [
        unicodedata.normalize("NFC", prose.lower() if prose.isupper() else prose).encode("utf-8", "surrogatepass")
        for prose in proses
    ]
    owners, features = _features(encoded)
    size = len(model.nb_ptc)
    met, counts = np.unique(owners * size + features, return_counts=True)
    weights = np.log1p(counts.astype(np.float32))[:, None] * _automaton().weights[met % size]
    scores = np.zeros((len(proses), len(model.nb_classes)), dtype=np.float32)
    some, first = np.unique(met // size, return_index=True)
    if len(some):
        scores[some] = np.add.reduceat(weights, first, axis=0) + model.nb_pc
    scores /= np.sqrt(np.array([[len(raw) or 1] for raw in encoded], dtype=np.float32))
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    codes = list(model.nb_classes)
    for place, code in enumerate(codes):
        if (earlier := codes.index(code)) < place:
            # One language in two scripts.
            scores[:, earlier] += scores[:, place]
            scores[:, place] = 0.0
    best = scores.argmax(axis=1).tolist()
    sure = (scores.max(axis=1) >= MIN_CONFIDENCE).tolist()
    return [_CODES.get(codes[place]) if enough else None for place, enough in zip(best, sure, strict=True)]


def _features(encoded: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which features are met in which text, once for each time: numbers of texts, and of features."""
    import numpy as np

    automaton = _automaton()
    # The longest first, so that those that are still read are the first ones.
    order = sorted(range(len(encoded)), key=lambda number: -len(encoded[number]))
    lengths = np.array([len(encoded[number]) for number in order])
    longest = int(lengths.max(initial=0))
    padded = b"".join(encoded[number].ljust(longest, b"\0") for number in order)
    letters = np.frombuffer(padded, dtype=np.uint8).reshape(len(order), longest).T.astype(np.int32)
    left = np.searchsorted(-lengths, -np.arange(longest), side="left").tolist()
    states = np.zeros(len(order), dtype=np.int32)
    met = np.full(letters.shape, -1, dtype=np.int32)
    for step, count in enumerate(left):
        states = automaton.moves.take(automaton.rows.take(states[:count]) + letters[step, :count])
        met[step, :count] = automaton.features.take(states)
    steps, columns = np.nonzero(met >= 0)
    return np.array(order, dtype=np.int64)[columns], met[steps, columns].astype(np.int64)


class _Automaton(NamedTuple):
    """The detector's model as arrays that are contiguous in memory."""

    moves: NDArray[np.int32]
    """Where a byte leads, from where the row of a state begins."""
    rows: NDArray[np.int32]
    """[states]"""
    features: NDArray[np.int32]
    """[states] Met there; -1 is none."""
    weights: NDArray[np.float32]
    """[features, languages]"""


@cache
def _automaton() -> _Automaton:
    import numpy as np

    model = _identifier()
    return _Automaton(
        np.asarray(model.tk_nextmove, dtype=np.int32),
        np.asarray(model.tk_row, dtype=np.int32) << 8,
        np.asarray(model.tk_output, dtype=np.int32),
        np.ascontiguousarray(model.nb_ptc, dtype=np.float32),
    )


@cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise MissingExtraError("py3langid", "train") from error
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([code for code in _CODES if code in set(identifier.labels)])
    return identifier
