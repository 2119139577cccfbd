"""Too short to mean anything, or so long that it is a pasted document rather than a conversation."""

from __future__ import annotations

from rlhi_plugin.records import Conversation
from rlhi_training.recipe import ScreensSection
from rlhi_training.screens.screen import Finding, quote, requests


class Length:
    """``too_short``, ``turn_too_long``, ``conversation_too_long``: by characters, the limits are the recipe's."""

    name = "length"
    drops = True

    def __init__(self, recipe: ScreensSection) -> None:
        self._recipe = recipe

    def __call__(self, conversation: Conversation) -> Finding | None:
        """Count characters."""
        limits = self._recipe
        asked = sum(len(message.content.strip()) for message in requests(conversation))
        if asked < limits.min_user_chars:
            first = requests(conversation)
            said = f": {first[0].content.strip()}" if first else ""
            return Finding("too_short", f"the user wrote {asked} characters{said}")
        longest = max(conversation.messages, key=lambda message: len(message.content))
        if len(longest.content) > limits.max_turn_chars:
            detail = f"message {longest.id} has {len(longest.content)} characters: {quote(longest.content)}"
            return Finding("turn_too_long", detail)
        whole = sum(len(message.content) for message in conversation.messages)
        if whole > limits.max_conversation_chars:
            return Finding("conversation_too_long", f"{whole} characters in {len(conversation.messages)} messages")
        return None
