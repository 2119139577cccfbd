"""Prompt templates that many users send: the same instructions with another noun filled in.

In WildChat thousands of conversations begin with one of a few "Midjourney prompt maker" texts. They are many people's
clicks rather than one person's words, and would swamp what users have to say themselves.
"""

from __future__ import annotations

from zlib import crc32

from rlhi_plugin.records import Conversation
from rlhi_training.recipe import ScreensSection
from rlhi_training.screens.batch import Batch
from rlhi_training.screens.screen import Finding, SeenPart, quote

MIN_WORDS = 30
"""Shorter openings are often equal because people ask the same things (ours)."""
_SHINGLE = 8
_SAMPLED = 4
"""One shingle in so many (a power of two) is remembered, chosen by its hash: equal texts keep equal ones."""
_REMEMBERED = 1_000_000
"""Shingles in memory, of about 150 bytes each; when there are more, those with the fewest senders are forgotten."""


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
        (part,) = self.read(Batch([conversation], firsts=True))
        return self.judge(part, conversation.conversation_id)

    def read(self, batch: Batch) -> list[SeenPart]:
        """Of each conversation the sender and the sampled pieces of the first message."""
        import numpy as np

        # 32 bits are enough to tell pieces apart.
        digests = batch.wording.runs(_SHINGLE) >> np.uint64(32)
        places = np.flatnonzero(digests & np.uint64(_SAMPLED - 1) == 0)
        bounds = [(start, max(start, end - _SHINGLE + 1)) for start, end, _ in batch.first_words]
        pieces, within = digests[places].tolist(), places.searchsorted(np.array(bounds).reshape(-1, 2)).tolist()
        found: list[SeenPart] = []
        for number, (start, end, _) in enumerate(batch.first_words):
            first, last = within[number]
            if end - start < MIN_WORDS or first == last:
                found.append(None)
                continue
            conversation = batch.conversations[number]
            sender = crc32((conversation.user_id or f"\0{conversation.conversation_id}").encode())
            passage = quote(batch.requests[number][0].content)
            found.append(((sender, *sorted(set(pieces[first:last]))), passage))
        return found

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
