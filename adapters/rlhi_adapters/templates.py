"""Renders chat messages with a model's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import ChatMessage

_PROBE = "rlhi-probe-3f81"


def encode(tokenizer: Any, messages: Sequence[ChatMessage], *, add_generation_prompt: bool) -> list[int]:
    """Token ids of a conversation under the tokenizer's chat template.

    Args:
        tokenizer: A transformers tokenizer with a chat template.
        messages: Oldest first.
        add_generation_prompt: Whether to open the assistant's next turn at the end.

    Raises:
        ConfigError: there is no template, or it refuses these roles.
    """
    if not tokenizer.chat_template:
        raise ConfigError("the base model has no chat template. Use an instruct model.")
    try:
        return list(
            tokenizer.apply_chat_template(
                [{"role": message.role, "content": message.content} for message in messages],
                add_generation_prompt=add_generation_prompt,
                tokenize=True,
                return_dict=False,
            )
        )
    except Exception as error:
        # A template is the model's own program: whatever it raises is a refusal.
        roles = ", ".join(message.role for message in messages)
        raise ConfigError(f"the base model's chat template refuses the roles {roles}: {error}") from error


def require_system_role(tokenizer: Any, name: str) -> None:
    """Make sure that a system message reaches the model: that is where a persona goes.

    Raises:
        ConfigError: the template refuses the system role, or leaves its text out.
    """
    probe = (ChatMessage(role="system", content=_PROBE), ChatMessage(role="user", content="Hello"))
    remedy = "Choose a base model whose template has a system role, or train without personas."
    try:
        rendered = tokenizer.decode(encode(tokenizer, probe, add_generation_prompt=True))
    except ConfigError as error:
        raise ConfigError(f"{name} takes no system message ({error}). {remedy}") from error
    if _PROBE not in rendered:
        raise ConfigError(f"the chat template of {name} leaves system messages out. {remedy}")
