"""Conversations that are screened together, and what several screens want to know of them, worked out once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from rlhi_plugin.records import Conversation, Message
from rlhi_training.screens.screen import requests
from rlhi_training.screens.wording import Wording


@dataclass(frozen=True)
class Batch:
    """Some conversations.

    Attributes:
        conversations: In the order of the log.
        firsts: Nobody asks for the words of more than the first request of each.
    """

    conversations: Sequence[Conversation]
    firsts: bool = False

    @cached_property
    def requests(self) -> list[list[Message]]:
        """Each conversation's user messages with text."""
        return [requests(conversation) for conversation in self.conversations]

    @cached_property
    def wording(self) -> Wording:
        """Of the requests, one after the other."""
        return Wording.of(message.content for asked in self.requests for message in self._read(asked))

    @cached_property
    def first_words(self) -> list[tuple[int, int, int]]:
        """Where in `wording` each conversation's requests begin, where its first one ends, and where its last one."""
        starts, place = self.wording.starts, 0
        found = []
        for asked in self.requests:
            last = place + len(self._read(asked))
            found.append((starts[place], starts[min(place + 1, last)], starts[last]))
            place = last
        return found

    def _read(self, asked: list[Message]) -> list[Message]:
        return asked[:1] if self.firsts else asked
