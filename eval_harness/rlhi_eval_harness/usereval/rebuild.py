"""A suite by its manifest: the same users and turns out of the same log, or an error that says what differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from rlhi_eval_harness.usereval.records import Manifest
from rlhi_eval_harness.usereval.select import Choice, Chosen
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import Conversation


def as_in(frozen: Manifest, conversations: Sequence[Conversation], excluded: Collection[str]) -> Choice:
    """The manifest's choice, out of this log.

    Args:
        frozen: The manifest.
        conversations: The log.
        excluded: Users who must not be evaluated.

    Raises:
        ConfigError: the log lacks a conversation, or a user of the manifest is excluded.
    """
    by_id = {(c.user_id, c.conversation_id): c for c in conversations}
    wanted: dict[str, list[str]] = {}
    for item in frozen.items:
        mine = wanted.setdefault(item.user, [])
        if item.conversation_id not in mine:
            mine.append(item.conversation_id)
    names = [(user, name) for user, key in frozen.users.items() for name in (*key.history, *wanted[user])]
    if missing := [name for user, name in names if (user, name) not in by_id]:
        raise ConfigError(
            f"the log lacks {len(missing)} of {len(names)} conversations of the manifest, such as {missing[0]}. "
            "Give the log that the suite was built from."
        )
    if overlap := sorted(set(excluded) & frozen.users.keys()):
        raise ConfigError(
            f"{len(overlap)} users of the manifest are excluded, such as {overlap[0]}. Build a new suite."
        )
    return Choice(
        [
            Chosen(user, [by_id[user, name] for name in key.history], [by_id[user, name] for name in wanted[user]])
            for user, key in frozen.users.items()
        ],
        Counter(frozen.dropped_users),
    )


def compare(frozen: Manifest, manifest: Manifest, log: Path) -> None:
    """Make sure that a rebuilt suite is the same one.

    Raises:
        ConfigError: its users or items differ; the message says how many.
    """
    if frozen.digest == manifest.digest:
        return
    differ = [user for user, key in frozen.users.items() if manifest.users.get(user) != key]
    raise ConfigError(
        f"{log} does not give the suite of the manifest: {len(differ)} of {len(frozen.users)} users and "
        f"{len(set(frozen.items) ^ set(manifest.items))} items differ (labeller {frozen.labeller}, now "
        f"{manifest.labeller}; personas by {frozen.persona_builder}, now {manifest.persona_builder}). "
        "Use the same log, labeller and version, or build a new suite."
    )
