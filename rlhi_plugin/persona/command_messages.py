"""Commands and their replies as LangChain messages: given in the model's place, logged by nobody, shown to no model."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage

from rlhi_plugin.persona.commands import CommandResult
from rlhi_plugin.persona.phrases import REPLIES, is_command

SOURCE = "rlhi_source"
"""Key of `additional_kwargs` in every message that we wrote."""


def reply_message(result: CommandResult) -> AIMessage:
    """The reply to a command, marked as ours."""
    return AIMessage(result.reply, additional_kwargs={SOURCE: "command"}, response_metadata={"model_name": "rlhi"})


def last_user_text(messages: Sequence[BaseMessage]) -> str | None:
    """What the user has just said: the text of the last message where that is the user's, else None."""
    if not messages or not isinstance(messages[-1], HumanMessage):
        return None
    return messages[-1].text


def is_command_traffic(message: BaseMessage) -> bool:
    """Whether a message is a command, or our reply to one; also where an app's own history has lost our mark."""
    if SOURCE in message.additional_kwargs:
        return True
    # Every turn asks this of the whole thread: LangChain's `text` builds an object, and is left to content blocks.
    if isinstance(message, HumanMessage):
        return is_command(message.content if isinstance(message.content, str) else message.text)
    if not isinstance(message, AIMessage):
        return False
    return (message.content if isinstance(message.content, str) else message.text).startswith(REPLIES)


def without_commands(messages: Sequence[AnyMessage]) -> list[AnyMessage]:
    """The messages that the model and the log should see."""
    return [message for message in messages if not is_command_traffic(message)]
