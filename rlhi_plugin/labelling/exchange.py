"""What a labeller sees of one follow-up: the request, the reply to it, and what the user said next."""

from __future__ import annotations

from pydantic import Field

from rlhi_plugin.records import Conversation, Record


class Exchange(Record):
    """One follow-up and what it follows."""

    conversation_id: str
    turn: int = Field(ge=1)
    """0-based count of the follow-up among the conversation's user messages."""
    message_id: str
    """Of the follow-up."""
    request: str
    """The user message that the reply answers."""
    reply: str
    """Empty where nothing answered the request."""
    follow_up: str
    earlier: tuple[str, ...] = ()
    """What the user had said before the request, oldest first: an old request may come back."""


def exchanges(conversation: Conversation, *, unanswered: bool = False) -> tuple[Exchange, ...]:
    """Every user message after the first that has a reply before it, in order.

    The reply is the last assistant message before the follow-up (of several, regenerated ones, the last), the request
    the last user message before that reply. A message that comes before any reply follows up on nothing, and is left
    out. System and tool messages are passed over.

    Args:
        conversation: What is read.
        unanswered: Give every user message after the first. One that comes straight after another user message
            follows up on that one, with an empty reply.
    """
    found: list[Exchange] = []
    said: list[str] = []
    asked, reply = 0, None
    for message in conversation.messages:
        if message.role == "assistant":
            asked, reply = len(said) - 1, message.content
        elif message.role == "user":
            turn = len(said)
            before, answer = asked, reply
            if unanswered and (reply is None or asked != turn - 1):
                before, answer = turn - 1, ""
            if answer is not None and turn > 0:
                found.append(
                    Exchange(
                        conversation_id=conversation.conversation_id,
                        turn=turn,
                        message_id=message.id,
                        request=said[before] if before >= 0 else "",
                        reply=answer,
                        follow_up=message.content,
                        earlier=tuple(said[: max(before, 0)]),
                    )
                )
            said.append(message.content)
    return tuple(found)
