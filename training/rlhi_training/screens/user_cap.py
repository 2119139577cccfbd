"""One user's share of a log: scripts send thousands of conversations under one name."""

from __future__ import annotations

from collections import Counter

from rlhi_plugin.records import Conversation
from rlhi_training.screens.screen import Finding


class UserCap:
    """``user_over_limit``: the user has had the recipe's number of conversations already, in the order of the log.

    Anonymous conversations are not counted: nobody knows whose they are. Remembers one number per user.
    """

    name = "user_cap"
    drops = True

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: Counter[str] = Counter()

    def __call__(self, conversation: Conversation) -> Finding | None:
        """Count this one, too."""
        return self.count(conversation.user_id)

    def count(self, user: str | None) -> Finding | None:
        """The same, for who knows only whose it is."""
        if user is None:
            return None
        self._seen[user] += 1
        if self._seen[user] <= self._limit:
            return None
        return Finding("user_over_limit", f"{user} has more than {self._limit} conversations; the first of them stay")
