"""Counting tokens without asking a provider."""

from __future__ import annotations

from collections.abc import Sequence

from rlhi_plugin.calls.opening import parse_spec
from rlhi_plugin.errors import ConfigError, MissingExtraError
from rlhi_plugin.litellm_client import litellm_tokens
from rlhi_plugin.records import ChatMessage

_CHARS = 4
"""Characters of a token where no tokenizer is installed (OpenAI's rule of thumb for English)."""
_FRAME = 4
"""Tokens around a message in OpenAI's chat format."""


class TokenCounter:
    """Counts by LiteLLM's tokenizers: the model's own where it brings that, else cl100k; by characters without LiteLLM.

    Args:
        model: The model's name; any name will do.
    """

    def __init__(self, model: str) -> None:
        try:
            self._model = parse_spec(model).model
        except ConfigError:
            self._model = model
        try:
            litellm_tokens(self._model, [{"role": "user", "content": "hi"}])
            self.by = "LiteLLM's tokenizer for the model, or cl100k"
            self._exact = True
        except MissingExtraError:
            self.by = f"{_CHARS} characters a token, as LiteLLM is not installed"
            self._exact = False

    def prompt(self, messages: Sequence[ChatMessage]) -> int:
        """Tokens of a chat prompt, frame included."""
        if self._exact:
            return litellm_tokens(self._model, [message.model_dump() for message in messages])
        return sum(len(message.content) // _CHARS + _FRAME for message in messages)

    def text(self, text: str) -> int:
        """Tokens of an answer, without a frame."""
        empty = self.prompt([ChatMessage(role="assistant", content="")])
        return max(0, self.prompt([ChatMessage(role="assistant", content=text)]) - empty)
