"""Forgetting a user: everything goes but a tombstone and what they refused, and what cannot be undone is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhi_plugin.durability.folders import erase_user
from rlhi_plugin.durability.turn_file import files_in, is_owned
from rlhi_plugin.errors import StoreError
from rlhi_plugin.privacy.journals import erase_from_journals, erase_lines
from rlhi_plugin.privacy.protocols import UserStore
from rlhi_plugin.privacy.tombstones import append_tombstones
from rlhi_plugin.privacy.traces import AdapterTrace, RunTrace, default_registry, find_adapters, find_runs
from rlhi_plugin.privacy.vault import forget_in_vault
from rlhi_plugin.records import ConsentDecision, Purpose, Tombstone
from rlhi_plugin.stores import ConsentStore, ForgettingStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where else than in the store a user's data may be.

    Attributes:
        journals: Folders with journals; a user's lines are taken out.
        logs: Exported logs; a user's lines are taken out and the tombstone is put in.
        vaults: Files of a `FernetVault`; a user's values are deleted.
        caches: Functions that a user's pseudonym is given to, to delete elsewhere: `ConsentCache.forget`,
            `Vault.forget`, `LangGraphPersonaStore.forget`.
        runs: Folders with training runs, which are searched and left as they are.
        registry: Folder of the adapter registry, which is searched and left as it is.
    """

    journals: Sequence[Path] = ()
    logs: Sequence[Path] = ()
    vaults: Sequence[Path] = ()
    caches: Sequence[Callable[[str], object]] = ()
    runs: Sequence[Path] = ()
    registry: Path = field(default_factory=default_registry)


@dataclass(frozen=True, slots=True)
class Forgetting:
    """What was forgotten, and what still knows the user.

    Attributes:
        user_id: Pseudonym.
        deleted: How many things of which kind were deleted.
        erased: Whether the store says that no byte of it is left in its files.
        runs: Training runs that hold the user's data: delete them.
        adapters: Adapters that learned from it: retire them and train again.
        refused: Purposes that the user had refused: that stays, or they would be logged again when they come back.
    """

    user_id: str
    deleted: Mapping[str, int]
    erased: bool
    runs: Sequence[RunTrace]
    adapters: Sequence[AdapterTrace]
    refused: Sequence[Purpose] = ()


def is_known(store: UserStore, user_id: str) -> bool:
    """Whether the store holds anything that a user said, did, or is believed to like.

    Raises:
        StoreError: the store cannot be read.
    """
    return (
        store.get_persona(user_id) is not None
        or next(iter(store.conversations(user_id=user_id)), None) is not None
        or next(iter(store.feedback(user_id=user_id)), None) is not None
    )


def forget_user(store: ForgettingStore, user_id: str, places: Places) -> Forgetting:
    """Delete everything of one user, and leave a tombstone and what they refused.

    The store comes first: its tombstone keeps what other processes still hold from coming back. Forgetting somebody
    again is no error, and continues where an earlier attempt failed.

    Args:
        store: Keeps the tombstone.
        user_id: Pseudonym.
        places: Where else to delete and to search.

    Raises:
        StoreError: the store or a file cannot be written; call again when it can.
        ConfigError: a folder, log or vault does not exist.
    """
    refusals = _refusals(store, user_id)
    result = store.forget(user_id)
    if isinstance(store, ConsentStore):
        for refusal in refusals:
            store.put_consent(refusal)
    deleted = _counts(result)
    for cache in places.caches:
        cache(user_id)
    if places.journals:
        deleted["journal lines"] = _erase_from_journals(places.journals, user_id)
    if places.logs:
        stones = [stone for stone in store.tombstones() if stone.user_id == user_id]
        deleted["lines of exported logs"] = _erase_from_logs(places.logs, user_id, stones)
    if places.vaults:
        deleted["values in a vault"] = sum(forget_in_vault(vault, user_id) for vault in places.vaults)
    runs = find_runs(places.runs, user_id)
    erased = bool(getattr(result, "erased", False))
    adapters = find_adapters(places.registry, user_id, runs)
    return Forgetting(user_id, deleted, erased, runs, adapters, [refusal.purpose for refusal in refusals])


def _refusals(store: ForgettingStore, user_id: str) -> list[ConsentDecision]:
    decisions = store.consents(user_id) if isinstance(store, ConsentStore) else {}
    return [decision for decision in decisions.values() if not decision.granted]


def _erase_from_journals(folders: Sequence[Path], user_id: str) -> int:
    """Ours, and line files of other programs in the same folders.

    A journal that a living process owns is left to it: what it holds goes to the store, whose tombstone refuses it.
    """
    try:
        # Its owner may hold the lock of such a file for as long as the store is down.
        owned = {file for folder in folders for file in files_in(folder) if is_owned(file)}
        erased = erase_from_journals(folders, user_id, leave=owned)
        return erased + sum(erase_user(folder, user_id)[0] for folder in folders)
    except OSError as error:
        raise StoreError(f"cannot erase from a journal: {error}. Correct that, and forget the user again.") from error


def _erase_from_logs(logs: Sequence[Path], user_id: str, stones: Sequence[Tombstone]) -> int:
    erased = 0
    for log in logs:
        append_tombstones(log, stones)
        if ".jsonl" in log.suffixes:
            erased += erase_lines(log, user_id)
    return erased


def _counts(result: Any) -> dict[str, int]:
    """What a store says that it deleted: the numbers of the dataclass or mapping that it gives."""
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        result = {field_.name: getattr(result, field_.name) for field_ in dataclasses.fields(result)}
    if not isinstance(result, Mapping):
        return {}
    return {str(name): n for name, n in result.items() if isinstance(n, int) and not isinstance(n, bool)}
