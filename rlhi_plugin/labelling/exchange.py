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
    follow_up: str


def exchanges(conversation: Conversation) -> tuple[Exchange, ...]:
    """Every user message after the first that has a reply before it, in order.

    The reply is the last assistant message before the follow-up (of several, regenerated ones, the last), the request
    the last user message before that reply. A message that comes before any reply follows up on nothing, and is left
    out. System and tool messages are passed over.
    """
    found: list[Exchange] = []
    turn, last_user, request, reply = -1, "", "", None
    for message in conversation.messages:
        if message.role == "assistant":
            request, reply = last_user, message.content
        elif message.role == "user":
            turn, last_user = turn + 1, message.content
            if reply is not None and turn > 0:
                found.append(
                    Exchange(
                        conversation_id=conversation.conversation_id,
                        turn=turn,
                        message_id=message.id,
                        request=request,
                        reply=reply,
                        follow_up=message.content,
                    )
                )
    return tuple(found)
