"""Where a persona stands in the conversation that a reward model reads: a system message, or before the request."""

from __future__ import annotations

from typing import Literal

from rlhi_plugin.persona import render_persona
from rlhi_plugin.records import ChatMessage, Persona
from rlhi_training.prompting import with_persona_message

PersonaAs = Literal["system", "user_prefix"]

Messages = tuple[ChatMessage, ...]


def place_persona(context: Messages, persona: Persona | None, where: PersonaAs) -> Messages:
    """The conversation up to the request, with the persona in it.

    Args:
        context: Ends with the user's request; may begin with the app's system message.
        persona: None leaves the context as it is.
        where: ``system`` is what serving sends; ``user_prefix`` puts the same text before the request, for reward
            models that were trained without system messages.
    """
    text = render_persona(persona)
    if where == "system" or not text:
        return with_persona_message(context, persona)
    request = context[-1]
    return (*context[:-1], ChatMessage(role=request.role, content=f"{text}\n\n{request.content}"))


def without_system(messages: Messages) -> Messages:
    """The same conversation for a template that takes no system message: its text goes before the first user message.

    A conversation without a user message is returned without its system messages' role only where there is one to
    take the text, so nothing of it is lost: it then stays as it is, and the template says what it refuses.
    """
    head = "\n\n".join(m.content for m in messages if m.role == "system")
    rest = [m for m in messages if m.role != "system"]
    first = next((i for i, m in enumerate(rest) if m.role == "user"), None)
    if not head or first is None:
        return messages
    rest[first] = ChatMessage(role="user", content=f"{head}\n\n{rest[first].content}")
    return tuple(rest)
