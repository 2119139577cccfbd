"""The work of ``rlhi export``: write what may be written, and count what may not, by reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from rlhi_plugin.logs import write_conversations
from rlhi_plugin.parquet_logs import write_parquet, write_parquet_columns
from rlhi_plugin.privacy.consent import ConsentCache, for_purpose
from rlhi_plugin.privacy.exclusions import exclusions_in, without_excluded
from rlhi_plugin.privacy.tombstones import append_tombstones, without_forgotten
from rlhi_plugin.records import Conversation, FeedbackEvent, Purpose
from rlhi_plugin.sqlite_parquet import ExportCounts, Selection, write_store
from rlhi_plugin.stores import SQLStore
from rlhi_plugin.stores.columnar import ConversationColumns


def export_store(
    store: SQLStore, out: Path, purpose: Purpose | None = None, *, advance: Callable[[int], None] = lambda _: None
) -> ExportCounts:
    """Write a store's conversations to a file, and with them who was forgotten and what is not to be learned from.

    Args:
        store: Where they are.
        out: ``.jsonl``, ``.jsonl.gz`` or ``.parquet``. A Parquet file cannot name what was left out of it.
        purpose: Leaves out users who do not allow it; None leaves out none.
        advance: Told how many more conversations were looked at.

    Raises:
        ConfigError: the folder does not exist or cannot be written.
        MissingExtraError: a Parquet file, and pyarrow is not installed.
        StoreError: the store cannot be read.
    """
    tombstones, exclusions = store.tombstones(), exclusions_in(store)
    allows = ConsentCache(store, quiet=True).allows
    if out.suffix == ".parquet":
        selection = Selection(
            users=None if purpose is None else {user: allows(user, purpose) for user in (None, *store.user_ids())},
            excluded=exclusions.conversations,
            forgotten={stone.user_id: stone.forgotten_at.isoformat() for stone in tombstones},
        )
        if (counts := _by_columns(store, out, selection, advance)) is not None:
            append_tombstones(out, tombstones)
            return counts
    refused: list[str] = []
    excluded: list[FeedbackEvent] = []

    def looked_at() -> Iterator[Conversation]:
        for conversation in store.conversations():
            yield conversation
            advance(1)

    chosen: Iterator[Conversation] = without_forgotten(looked_at(), tombstones)
    if purpose is not None:
        chosen = for_purpose(chosen, purpose, allows, left_out=lambda c: refused.append(c.conversation_id))
    chosen = without_excluded(chosen, exclusions, left_out=lambda _, event: excluded.append(event))

    def records() -> Iterator[Conversation | FeedbackEvent]:
        yield from chosen
        yield from excluded

    if out.suffix == ".parquet":
        written = write_parquet(out, chosen)
        append_tombstones(out, tombstones)
    else:
        written = write_conversations(out, records(), tombstones=tombstones) - len(excluded)
    return ExportCounts(written, len(refused), len(excluded))


def _by_columns(
    store: SQLStore, out: Path, selection: Selection, advance: Callable[[int], None]
) -> ExportCounts | None:
    """A Parquet file straight from the database's columns; None where records have to be looked at."""
    counts = write_store(store, out, selection, advance=advance)
    if counts is None and selection == Selection():
        return ExportCounts(write_parquet_columns(out, _counted(store.columns(), advance)))
    return counts


def _counted(batches: Iterator[ConversationColumns], advance: Callable[[int], None]) -> Iterator[ConversationColumns]:
    for batch in batches:
        yield batch
        advance(len(batch.starts) - 1)
