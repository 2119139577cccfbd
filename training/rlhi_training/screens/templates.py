"""Prompt templates that many users send: the same instructions with another noun filled in.

In WildChat thousands of conversations begin with one of a few "Midjourney prompt maker" texts. They are many people's
clicks rather than one person's words, and would swamp what users have to say themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

from rlhi_plugin.records import Conversation
from rlhi_training.recipe import ScreensSection
from rlhi_training.screens.near_duplicates import encoded_words
from rlhi_training.screens.screen import Finding, SeenPart, quote, requests

MIN_WORDS = 30
"""Shorter openings are often equal because people ask the same things (ours)."""
_SHINGLE = 8
_SAMPLED = 4
"""One shingle in so many is remembered, chosen by its hash, so that equal texts keep equal ones."""
_REMEMBERED = 1_000_000
"""Shingles in memory, of about 150 bytes each; when there are more, those with the fewest senders are forgotten."""


_FACTORS = [pow(0x9E3779B97F4A7C15, place + 1, 1 << 64) for place in range(_SHINGLE)]
"""By place in the run, what a word's digest is multiplied with: the order of the words counts."""


def _sampled(tokens: Sequence[bytes]) -> list[int]:
    """Of some of the runs of `_SHINGLE` words, 32 bits each, sorted."""
    import numpy as np

    words = np.fromiter(map(crc32, tokens), dtype=np.uint64, count=len(tokens))
    runs = len(tokens) - _SHINGLE + 1
    total = np.zeros(runs, dtype=np.uint64)
    for place, factor in enumerate(_FACTORS):
        total += words[place : place + runs] * np.uint64(factor)
    digests = total >> np.uint64(32)
    return sorted(set(digests[digests % np.uint64(_SAMPLED) == 0].tolist()))


class Templates:
    """``template``: most of the first message was sent by at least so many others before.

    A message is cut into runs of eight words; those that the recipe's number of senders have used are the template's.
    The first senders of a template stay, since nobody knew then; so a few specimens of each remain. A user counts
    once, an anonymous conversation as a user of its own.
    """

    name = "templates"
    drops = True

    def __init__(self, recipe: ScreensSection) -> None:
        self._users = recipe.template_users
        self._share = recipe.template_share
        self._senders: dict[int, tuple[int, ...]] = {}

    def __call__(self, conversation: Conversation) -> Finding | None:
        """Compare with all before it, and remember it."""
        return self.judge(self.read(conversation), conversation.conversation_id)

    def read(self, conversation: Conversation) -> SeenPart:
        """The sender and the sampled pieces of the first message."""
        asked = requests(conversation)
        tokens = encoded_words(asked[0].content) if asked else ()
        if len(tokens) < MIN_WORDS:
            return None
        sampled = _sampled(tokens)
        if not sampled:
            return None
        sender = crc32((conversation.user_id or f"\0{conversation.conversation_id}").encode())
        return (sender, *sampled), quote(asked[0].content)

    def judge(self, part: SeenPart, key: str) -> Finding | None:  # noqa: ARG002 - part of the protocol
        """See `Seen.judge`."""
        if part is None:
            return None
        (sender, *sampled), passage = part
        common = self._count(sampled, sender)
        self._forget()
        if common < self._share * len(sampled):
            return None
        share = f"{100 * common / len(sampled):.0f} %"
        return Finding("template", f"{share} of it was sent by {self._users} others before: {passage}")

    def _count(self, pieces: list[int], sender: int) -> int:
        """Remember the sender; how many of the pieces enough others sent before."""
        senders, users, common = self._senders, self._users, 0
        for piece in pieces:
            known = senders.get(piece)
            if known is None:
                senders[piece] = (sender,)
                continue
            others = len(known) - (sender in known)
            if len(known) <= users and sender not in known:
                senders[piece] = (*known, sender)
            common += others >= users
        return common

    def _forget(self) -> None:
        if len(self._senders) <= _REMEMBERED:
            return
        for few in range(1, self._users + 2):
            self._senders = {piece: known for piece, known in self._senders.items() if len(known) > few}
            # Half, so that this is seldom.
            if len(self._senders) <= _REMEMBERED // 2:
                return
