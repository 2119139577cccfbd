"""What stands in a stored text for something private: ``[email_bcdfgh]``.

The six letters are a keyed digest (HMAC-SHA256, RFC 2104) of the value and its conversation, under a key derived from
the identity key. So one value has one placeholder throughout a conversation, which stays readable; two conversations
cannot be linked by it; nobody without the key can test a guess; and the same message redacts to the same text in every
process, also when an app sends only the last messages of a thread. A running number would do none of the last two: the
first address of a trimmed history would be another one than the first of the whole. Six of twenty letters are 64
million names: that two of a hundred values in one conversation share one has a chance of 1 in 13,000.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import NamedTuple

from rlhi_plugin.identity import load_key

# No vowels, hence no words; no digits, hence nothing that a detector takes for a number.
_LETTERS = "bcdfghjklmnpqrstvwxz"
_LENGTH = 6

PLACEHOLDER = re.compile(rf"\[[a-z][a-z_]{{0,40}}_[{_LETTERS}]{{{_LENGTH}}}\]")
"""Every placeholder, and hardly anything else."""

# Written with and without separators, it is still the same number.
_NUMBERS = frozenset({"phone", "credit_card", "iban", "us_ssn", "mac_address"})


class Scope(NamedTuple):
    """Where a placeholder stands for the same value.

    Attributes:
        conversation_id: The thread; empty outside of any.
        user_id: The user's pseudonym, None for an anonymous one. Two users of one thread name are two scopes.
    """

    conversation_id: str = ""
    user_id: str | None = None


NO_SCOPE = Scope()
"""Texts that belong to no conversation."""


class Placeholders:
    """Names values.

    Args:
        key: Another key than this machine's identity key.

    Raises:
        ConfigError: the identity key is unusable.
    """

    def __init__(self, *, key: bytes | None = None) -> None:
        self._key = hmac.digest(load_key() if key is None else key, b"rlhi placeholders", "sha256")

    def of(self, kind: str, value: str, scope: Scope) -> str:
        """The placeholder of a value in a conversation."""
        same = "".join(c for c in value if c.isalnum()) if kind in _NUMBERS else value.strip()
        body = "\0".join((scope.user_id or "", scope.conversation_id, kind, same.casefold()))
        digest = hmac.new(self._key, body.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
        number, letters = int.from_bytes(digest[:8]), ""
        for _ in range(_LENGTH):
            number, index = divmod(number, len(_LETTERS))
            letters += _LETTERS[index]
        return f"[{kind}_{letters}]"

    @staticmethod
    def is_one(text: str) -> bool:
        """Whether the text is a placeholder and nothing else."""
        return PLACEHOLDER.fullmatch(text) is not None
