"""Turns that nobody could learn from: nothing asked, nothing answered, or roles in an order that means nothing."""

from __future__ import annotations

from itertools import pairwise

from rlhi_plugin.records import Conversation
from rlhi_training.screens.screen import Finding


class Unanswered:
    """``empty``: no user message with text. ``no_reply``: no answer with text after one."""

    name = "unanswered"
    drops = True

    def __call__(self, conversation: Conversation) -> Finding | None:
        """Look at every message."""
        asked = False
        for message in conversation.messages:
            if message.content.strip():
                if asked and message.role == "assistant":
                    return None
                asked = asked or message.role == "user"
        return Finding("no_reply" if asked else "empty")


class RolesOutOfOrder:
    """``roles_out_of_order``: the assistant speaks first, or answers twice, or a system message comes later.

    Apps that greet, regenerate or send two messages in a row do this too, and turns are cut from such conversations
    without harm (`rlhi_training.stages.label.turns_of`), so by default it is only counted. Tool messages do not count.
    """

    name = "roles"

    def __init__(self, *, drops: bool) -> None:
        self.drops = drops

    def __call__(self, conversation: Conversation) -> Finding | None:
        """Look at the roles alone."""
        said = [message.role for message in conversation.messages if message.role != "tool"]
        talk = [role for role in said if role != "system"]
        if talk and talk[0] == "assistant":
            return Finding("roles_out_of_order", "the assistant speaks first")
        if talk and "system" in said[said.index(talk[0]) :]:
            return Finding("roles_out_of_order", "a system message after the conversation began")
        if any(first == second == "assistant" for first, second in pairwise(talk)):
            return Finding("roles_out_of_order", "two answers in a row")
        return None


class EmptyTurns:
    """``empty_turns``: a user or assistant message without text among others that have some.

    Tool calls are logged as assistant messages without text, so only the user's are looked at. Counted, not dropped:
    an empty message is passed over when turns are cut.
    """

    name = "empty_turns"
    drops = False

    def __call__(self, conversation: Conversation) -> Finding | None:
        """Look at the user's messages."""
        empty = [
            message.id for message in conversation.messages if message.role == "user" and not message.content.strip()
        ]
        return Finding("empty_turns", f"user message {empty[0]} is empty") if empty else None
