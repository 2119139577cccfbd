"""Guidance for candidates: how a model is led to write an answer with certain checkable properties.

A model that follows instructions gets each check's own instruction. One too small for that gets a few earlier turns
that show the properties (``prompts/demonstrations.toml``); what it then writes about the request is its own text.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from rlhi_plugin.checkable import check
from rlhi_plugin.checks import CHECKS
from rlhi_plugin.records import ChatMessage

Guidance = Literal["instructions", "demonstrations"]


def guided_messages(
    context: tuple[ChatMessage, ...], wanted: Collection[str], guidance: Guidance
) -> tuple[ChatMessage, ...]:
    """A prompt that asks for the properties `wanted` (names of checks); without any, the plain prompt.

    Args:
        context: Ends with the user's request; may begin with the app's system message, which stays first.
        wanted: What the answer should have.
        guidance: By instruction or by demonstration. Plain prompts get plain demonstrations, so that a pool's plain and
            guided answers differ in nothing but the properties.
    """
    if guidance == "instructions":
        if not wanted:
            return context
        # In the order of the registry, then those with a value.
        ordered = [*(name for name in CHECKS if name in wanted), *sorted(set(wanted) - set(CHECKS))]
        wishes = " ".join(check(name).instruction for name in ordered)
        request = ChatMessage(role="user", content=f"{context[-1].content}\n\n{wishes}")
        return (*context[:-1], request)
    head = context[:1] if context[0].role == "system" else ()
    shown = [
        message
        for parts in _demonstrations()
        for message in (
            ChatMessage(role="user", content=parts["question"]),
            ChatMessage(role="assistant", content=compose(parts, wanted)),
        )
    ]
    return (*head, *shown, *context[len(head) :])


def compose(parts: dict[str, Any], wanted: Collection[str]) -> str:
    """One demonstrated answer that has every property in `wanted` that can be had together with the others."""
    core = next((name for name in ("short", "bullets", "detailed") if name in wanted), "plain")
    if core == "short" and "bullets" in wanted:
        core = "bullets"
    text = parts.get(f"{core}_numbers" if "numbers" in wanted else core, parts[core])
    if core == "bullets":
        items = text[:2] if "short" in wanted else text
        text = "\n".join(f"- {item}" for item in items)
    elif core == "detailed" and "numbers" in wanted:
        text = f"{parts['plain_numbers']}\n\n{text}"
    gap = "\n\n" if core == "bullets" else " "
    before = [parts["greeting"]] if "greeting" in wanted else []
    after = [parts[name] for name in ("example", "emojis", "closing_question") if name in wanted]
    return gap.join([*before, text, *after])


@cache
def _demonstrations() -> list[dict[str, Any]]:
    text = (files("rlhi_training") / "prompts" / "demonstrations.toml").read_text("utf-8")
    table: dict[str, list[dict[str, Any]]] = tomllib.loads(text)
    return table["demonstration"]
