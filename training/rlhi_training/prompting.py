"""Prompts that the stages have in common: a persona in front of a context, and templates with named places."""

from __future__ import annotations

from rlhi_plugin.persona import render_persona, with_persona
from rlhi_plugin.records import ChatMessage, Persona


def with_persona_message(context: tuple[ChatMessage, ...], persona: Persona | None) -> tuple[ChatMessage, ...]:
    """The context as serving would send it: the app's system message and the persona joined, then the conversation."""
    head, rest = (context[0].content, context[1:]) if context[0].role == "system" else (None, context)
    system = with_persona(head, render_persona(persona))
    return (ChatMessage(role="system", content=system), *rest) if system else rest


def conversation_text(context: tuple[ChatMessage, ...]) -> str:
    """What a judge reads as the request: the request itself, or where there was talk before it, all of that too.

    "And in winter?" can be answered well or badly only by what was asked before.
    """
    if len(context) == 1:
        return context[0].content
    said = [f"{message.role.capitalize()}: {message.content}" for message in context]
    return "\n\n".join(["(A conversation; the request is its last message.)", *said])


def fill(template: str, **places: str) -> str:
    """Put values into ``{name}`` places. Values are never read as templates themselves."""
    pieces = [template]
    for name, value in places.items():
        pieces = [part for piece in pieces for part in _split(piece, f"{{{name}}}", value)]
    return "".join(pieces)


class _Value(str):
    """A value that has been filled in already."""

    __slots__ = ()


def _split(piece: str, place: str, value: str) -> list[str]:
    if isinstance(piece, _Value):
        return [piece]
    parts: list[str] = []
    for index, text in enumerate(piece.split(place)):
        parts += [_Value(value), text] if index else [text]
    return parts
