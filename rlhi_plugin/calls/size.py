"""How large a request is at most, before a provider has counted it."""

from __future__ import annotations

from rlhi_plugin.chat import ChatRequest

_FRAME = 16
"""Tokens around a message, at most: role, separators, turn ends of the common chat templates (ours)."""


def most_prompt_tokens(request: ChatRequest) -> int:
    """An upper bound: byte-level tokenizers make no token of less than one byte."""
    size = sum(len(message.content.encode()) + _FRAME for message in request.messages)
    return size + (0 if request.json_schema is None else len(str(request.json_schema)))


def likely_prompt_tokens(request: ChatRequest) -> int:
    """A rough guess, by four characters a token, as OpenAI's guides have it for English."""
    return sum(len(message.content) // 4 + 4 for message in request.messages)
