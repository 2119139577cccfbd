"""How a suite puts a prompt together: system prompt as RLHIMiddleware composes it, history, request; and its seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from rlhi_plugin.persona import render_persona, with_persona
from rlhi_plugin.records import ChatMessage, Persona


def prompt_with(
    system: str | None, persona: Persona | None, request: str, *, history: Sequence[ChatMessage] = ()
) -> tuple[ChatMessage, ...]:
    """A whole prompt.

    Args:
        system: The assistant's own system prompt.
        persona: Joins it; None, or one without statements, adds nothing.
        request: The last user message.
        history: What was said before it.
    """
    text = with_persona(system, render_persona(persona))
    start = () if text is None else (ChatMessage(role="system", content=text),)
    return (*start, *history, ChatMessage(role="user", content=request))


def seed_of(seed: int, request: str) -> int:
    """Seeds belong to requests, so that subjects are compared under the same random numbers. 32 bits."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{request}".encode()).digest()[:4], "big")
