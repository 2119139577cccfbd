"""What a user's words may be used for, asked before every use.

===========  ======================================================================================
without      then
===========  ======================================================================================
log          nothing of the turn is stored, not even anonymously, and no persona is read
personalise  the turn is logged, no persona is built from it and none is put into a prompt
train        the conversation stays out of exports for training (`for_purpose`)
===========  ======================================================================================

Nothing is personalised or trained on without a log, so each of the two also needs ``log``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeVar

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.privacy.policy import ConsentPolicy, announce, default_policy
from rlhi_plugin.records import ConsentDecision, Conversation, Purpose
from rlhi_plugin.stores import ConsentStore, ForgettingStore
from rlhi_plugin.stores.shortcuts import shortcut

_log = logging.getLogger("rlhi.privacy")

USERS_REMEMBERED = 10_000
MAX_AGE_S = 30.0
"""Seconds until another process's decision is seen (ours)."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Standing:
    """What counts for a user: looked up once for all that is done in a turn.

    Attributes:
        allowed: Purposes for which their words may be used.
        is_whole: Whether nothing of theirs may be missing from the store on purpose; else the app's history of a thread
            may hold turns that must not be stored.
    """

    allowed: frozenset[Purpose]
    is_whole: bool


@dataclass(frozen=True, slots=True)
class _Known:
    read_at: float
    decisions: Mapping[Purpose, ConsentDecision]
    standing: Standing


class ConsentCache:
    """Decisions in memory. Thread-safe; `allows` never raises.

    A decision made through this object counts at once here, and after `max_age_s` seconds at most in other processes.
    A store that cannot be read leaves what was last known of a user in place; of a user who was never read, `unread`
    says what counts.

    Args:
        store: Where decisions are; None where there are none, and the policy alone counts.
        policy: For those who have not decided; what `default_policy` says unless given. It is announced (`announce`).
        max_age_s: Seconds for which a user's decisions are not read again.
        unread: ``policy`` keeps turns of a time when the store is down; ``deny`` drops them.
        quiet: Whether the policy is not announced: for a program that serves nobody.

    Raises:
        ConfigError: an argument cannot work.
    """

    def __init__(
        self,
        store: ConsentStore | None,
        policy: ConsentPolicy | None = None,
        *,
        max_age_s: float = MAX_AGE_S,
        unread: Literal["policy", "deny"] = "policy",
        quiet: bool = False,
    ) -> None:
        if max_age_s < 0:
            raise ConfigError(f"max_age_s={max_age_s} is negative. Give seconds, 0 or more.")
        if unread not in ("policy", "deny"):
            raise ConfigError(f"unread={unread!r} is not an answer. Choose 'policy' or 'deny'.")
        self.policy = policy or default_policy()
        self._anonymous = Standing(_allowed(self.policy.anonymous), is_whole=True)
        by_policy = _allowed(self.policy.default)
        self._undecided = Standing(by_policy, Purpose.LOG in by_policy)
        self._unreadable = Standing(by_policy if unread == "policy" else frozenset(), is_whole=False)
        self._store = store
        self._max_age_s = max_age_s
        self._users: OrderedDict[str, _Known] = OrderedDict()
        # A read that began before a decision must not overwrite it.
        self._generation: dict[str, int] = {}
        self._lock = threading.Lock()
        if not quiet:
            announce(self.policy)

    def is_ready(self, user_id: str | None) -> bool:
        """Whether `allows` would answer from memory, without the store: in an event loop, ask in a thread if not."""
        return user_id is None or self._store is None or self._remembered(user_id) is not None

    def standing(self, user_id: str | None) -> Standing:
        """What counts for a user now; for a turn, ask this once in place of the two below.

        Args:
            user_id: Pseudonym; None is an anonymous user.
        """
        if user_id is None:
            return self._anonymous
        if self._store is None:
            return self._undecided
        known = self._users.get(user_id)
        if known is None or time.monotonic() - known.read_at >= self._max_age_s:
            known = self._read(user_id)
        return self._unreadable if known is None else known.standing

    def allows(self, user_id: str | None, purpose: Purpose) -> bool:
        """Whether this user's words may be used for this purpose.

        Args:
            user_id: Pseudonym; None is an anonymous user.
            purpose: See `Purpose`. Both others also need ``log``.
        """
        return purpose in self.standing(user_id).allowed

    def may_hold_refused(self, user_id: str | None) -> bool:
        """Whether the app's history of a thread may hold turns that must not be stored.

        So it is for a user who ever decided about ``log``, whom the policy does not log undecided, or who was
        forgotten: what they said before must not be stored now that they are logged. Store `since_last_request` of
        the history instead of all of it.
        """
        return not self.standing(user_id).is_whole

    def decide(self, user_id: str, purpose: Purpose, *, granted: bool) -> ConsentDecision:
        """Keep a decision, first in the store; on return it counts.

        Raises:
            ConfigError: there is no store for decisions.
            StoreError: the store cannot be written; nothing changed.
        """
        if self._store is None:
            raise ConfigError("this store keeps no decisions. Use one with the methods put_consent and consents.")
        decided_at = self._after_the_last(self._store, user_id, purpose)
        decision = ConsentDecision(user_id=user_id, purpose=purpose, granted=granted, decided_at=decided_at)
        self._store.put_consent(decision)
        with self._lock:
            self._generation[user_id] = self._generation.get(user_id, 0) + 1
            known = self._users.get(user_id)
            if known is not None:
                decisions = {**known.decisions, purpose: decision}
                whole = known.standing.is_whole and purpose is not Purpose.LOG
                self._users[user_id] = _Known(known.read_at, decisions, self._standing(decisions, whole=whole))
        return decision

    def grant(self, user_id: str, purpose: Purpose) -> ConsentDecision:
        """Allow one purpose; see `decide`."""
        return self.decide(user_id, purpose, granted=True)

    def withdraw(self, user_id: str, purpose: Purpose) -> ConsentDecision:
        """No longer allow one purpose; see `decide`."""
        return self.decide(user_id, purpose, granted=False)

    def forget(self, user_id: str) -> None:
        """Read this user again at the next question."""
        with self._lock:
            self._users.pop(user_id, None)
            self._generation[user_id] = self._generation.get(user_id, 0) + 1

    def _after_the_last(self, store: ConsentStore, user_id: str, purpose: Purpose) -> datetime:
        """Now or, where the clock was set back, the time of the last decision: else that one would go on counting."""
        try:
            decisions = store.consents(user_id)
        except Exception:  # noqa: BLE001 - a store that cannot be read may still be written, and says so itself if not
            known = self._users.get(user_id)
            decisions = {} if known is None else known.decisions
        now, last = datetime.now(UTC), decisions.get(purpose)
        return now if last is None else max(now, last.decided_at)

    def _standing(self, decisions: Mapping[Purpose, ConsentDecision], *, whole: bool) -> Standing:
        decided = {purpose: decision.granted for purpose, decision in decisions.items()}
        return Standing(_allowed({**self.policy.default, **decided}), whole)

    def _remembered(self, user_id: str) -> _Known | None:
        known = self._users.get(user_id)
        return known if known and time.monotonic() - known.read_at < self._max_age_s else None

    def _read(self, user_id: str) -> _Known | None:
        """What the store says of a user, else what it said last; None where it never did."""
        assert self._store is not None  # noqa: S101 - without a store, nobody asks
        with self._lock:
            generation = self._generation.get(user_id, 0)
        try:
            decisions = self._store.consents(user_id)
            forgotten = _is_forgotten(self._store, user_id)
        except Exception:  # noqa: BLE001 - any store may raise anything, and must not end the turn
            _log.exception("the consent of %s could not be read", user_id)
            with self._lock:
                return self._users.get(user_id)
        whole = self.policy.allows(Purpose.LOG) and Purpose.LOG not in decisions and not forgotten
        fresh = _Known(time.monotonic(), dict(decisions), self._standing(decisions, whole=whole))
        with self._lock:
            if self._generation.get(user_id, 0) == generation:
                self._users[user_id] = fresh
                self._users.move_to_end(user_id)
                if len(self._users) > USERS_REMEMBERED:
                    gone, _ = self._users.popitem(last=False)
                    self._generation.pop(gone, None)
                return fresh
        return self._remembered(user_id) or self._read(user_id)


def _is_forgotten(store: ConsentStore, user_id: str) -> bool:
    """Whether a user was ever forgotten; where the store can only list all who were, it is asked for that."""
    forgotten_at = shortcut(store, "tombstones", "forgotten_at")
    if forgotten_at is not None:
        return forgotten_at(user_id) is not None
    return isinstance(store, ForgettingStore) and any(stone.user_id == user_id for stone in store.tombstones())


def _allowed(rules: Mapping[Purpose, bool]) -> frozenset[Purpose]:
    """What rules allow: nothing without a log."""
    return frozenset(purpose for purpose in Purpose if rules[Purpose.LOG] and rules[purpose])


def since_last_request(messages: Sequence[_T], is_user: Callable[[_T], bool]) -> Sequence[_T]:
    """The end of a history that begins with the last thing that the user said; all of it where they said nothing.

    Args:
        messages: A thread, in order.
        is_user: Whether the user said a message.
    """
    return messages[last_request(messages, is_user) :]


def last_request(messages: Sequence[_T], is_user: Callable[[_T], bool]) -> int:
    """Index of the last thing that the user said; 0 where they said nothing. Arguments as for `since_last_request`."""
    for index in range(len(messages) - 1, 0, -1):
        if is_user(messages[index]):
            return index
    return 0


def for_purpose(
    conversations: Iterable[Conversation],
    purpose: Purpose,
    allows: Callable[[str | None, Purpose], bool],
    *,
    left_out: Callable[[Conversation], None] = lambda _: None,
) -> Iterator[Conversation]:
    """The conversations whose users allow a purpose.

    Args:
        conversations: Of any users; each is asked about once for each conversation.
        purpose: What they are for.
        allows: `ConsentCache.allows`, or a function of your own.
        left_out: Told each conversation that is not among them, so that a caller can count.
    """
    for conversation in conversations:
        if allows(conversation.user_id, purpose):
            yield conversation
        else:
            left_out(conversation)
