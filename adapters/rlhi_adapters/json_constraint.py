"""Constrained decoding: at each step, only the tokens that can still become JSON of a given schema may be drawn.

The grammar engine is llguidance (https://github.com/guidance-ai/llguidance), which vLLM and others use as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from rlhi_plugin.errors import ConfigError, MissingExtraError, ModelCallError

_TOKENIZERS_KEPT = 4


class JSONConstraint:
    """What one answer may still say. One object an answer.

    Args:
        tokenizer: The model's transformers tokenizer, a fast one.
        schema: JSON schema. Written compactly, without white space between tokens of JSON.

    Raises:
        ConfigError: the schema uses what llguidance does not know, or the tokenizer is not a fast one.
        MissingExtraError: llguidance is not installed.
    """

    def __init__(self, tokenizer: Any, schema: Mapping[str, Any]) -> None:
        library = _library()
        compact = {"whitespace_flexible": False}
        try:
            grammar = library.LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults=compact)
            self._matcher = library.LLMatcher(_known(tokenizer), grammar)
        except ValueError as error:
            raise ConfigError(f"answers cannot be held to this schema: {error}. Use a plainer one.") from error
        if self._matcher.is_error():
            raise ConfigError(f"answers cannot be held to this schema: {self._matcher.get_error()}. Use a plainer one.")

    def allowed(self, width: int) -> npt.NDArray[np.bool_]:
        """Which tokens may come next: [width]; the end of the answer is one of them where the JSON is whole."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        found = np.unpackbits(bits, bitorder="little").astype(np.bool_)[:width]
        return np.pad(found, (0, width - len(found)))

    def accept(self, token: int) -> None:
        """Tell it which token was drawn."""
        if not self._matcher.consume_token(token):
            raise ModelCallError(f"the grammar refused token {token}, which it had allowed. Please report this.")


@lru_cache(maxsize=_TOKENIZERS_KEPT)
def _known(tokenizer: Any) -> Any:
    """The vocabulary as llguidance needs it; a second's work."""
    from llguidance.hf import from_tokenizer

    return from_tokenizer(tokenizer)


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise MissingExtraError("llguidance", "train") from error
    return llguidance
