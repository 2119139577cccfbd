"""The paper's ablation with fewer users (arXiv 2509.25137): only some users' conversations go further than ingest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from rlhi_plugin.records import Conversation
from rlhi_training.records import Dropped
from rlhi_training.run_directory import StageResult


def drawn_users(users: Iterable[str], max_users: int, seed: int) -> frozenset[str]:
    """So many users, drawn by a keyed digest of their names: a smaller draw is part of every larger one."""
    ranked = sorted(set(users), key=lambda user: user_rank(user, seed))
    return frozenset(ranked[:max_users])


def user_rank(user: str, seed: int) -> str:
    """Smaller ones are drawn first."""
    return hashlib.sha256(f"{seed}\0{user}".encode()).hexdigest()


def keep_fewer_users(result: StageResult, name: str, max_users: int | None, seed: int) -> StageResult:
    """The result of stage ingest with the conversations of drawn users only.

    Args:
        result: What ingest made.
        name: Its file of conversations.
        max_users: How many users; None changes nothing.
        seed: Draws them.

    Drops besides: ``user_not_drawn``, and ``anonymous_not_drawn``: those belong to no user who could be drawn.
    """
    if max_users is None:
        return result
    conversations = [record for record in result.files[name] if isinstance(record, Conversation)]
    drawn = drawn_users((c.user_id for c in conversations if c.user_id), max_users, seed)
    kept = [c for c in conversations if c.user_id in drawn]
    dropped = [
        Dropped(stage="ingest", key=c.conversation_id, reason="user_not_drawn" if c.user_id else "anonymous_not_drawn")
        for c in conversations
        if c.user_id not in drawn
    ]
    notes = {**(result.notes or {}), "users_drawn": len(drawn)}
    files = {**result.files, name: kept}
    return StageResult(result.inputs, len(kept), [*result.dropped, *dropped], files, notes, result.written)
