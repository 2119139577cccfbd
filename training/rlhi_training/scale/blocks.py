"""Reading: a log in parts, each parsed and screened apart, as far as one conversation alone tells.

A part leaves its conversations as lines of our own form and, for each row, what the whole log has still to decide.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from rlhi_plugin.errors import RecordError
from rlhi_plugin.identity import same_key
from rlhi_plugin.importers.files import Part, parts_of, plain_files, rows_of_part
from rlhi_plugin.importers.reading import is_spread, read_rows
from rlhi_plugin.importers.row import Row
from rlhi_plugin.privacy.exclusions import Exclusions
from rlhi_plugin.privacy.tombstones import remembered
from rlhi_plugin.records import Conversation, FeedbackEvent, Tombstone
from rlhi_training.log_source import LogSource
from rlhi_training.scale.layout import Layout, Summary, finished
from rlhi_training.scale.lines import Lines, packed
from rlhi_training.screens.screen import Screen
from rlhi_training.screens.screening import Screened, screen_apart, screens_of
from rlhi_training.split import span_of
from rlhi_training.stages.ingest import checksum, malformed

BLOCK_BYTES = 8 << 20
"""Of a log that is read at once (ours)."""
_BATCH = 512
"""Conversations that are screened together (ours)."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORM = ("id", "crc", "early", "late", "marks", "seen", "user", "began", "start", "end", "offset", "length")


def microseconds(time: datetime | None) -> int | None:
    """Since 1970, exactly."""
    if time is None:
        return None
    since = time - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def moment(value: int | None) -> datetime | None:
    """What `microseconds` counted."""
    return None if value is None else _EPOCH + timedelta(microseconds=value)


@dataclass(frozen=True)
class Block:
    """One part of the log: lines of a file, in its own form, or spooled in ours.

    Attributes:
        number: From 0, in the order of the log.
        part: Where the lines are.
        spooled: Whether they are conversations of ours.
    """

    number: int
    part: Part
    spooled: bool


def blocks_of(logs: LogSource, layout: Layout, *, size: int = BLOCK_BYTES, spool: bool = False) -> Iterator[Block]:
    """The log in parts: JSONL as it is, everything else spooled by one reader.

    Args:
        logs: The log.
        layout: Says where to spool.
        size: Bytes of a part.
        spool: Read JSONL like everything else, since its rows belong together.
    """
    files = None if logs.hub or spool else plain_files(logs.path)
    if files is not None:
        parts = (part for file in files for part in parts_of(file, size))
        yield from (Block(number, part, spooled=False) for number, part in enumerate(parts))
        return
    file = layout.folder / "spool.jsonl"
    with Lines(file) as lines:
        for item in logs.conversations():
            lines.write(_spooled(item))
    yield from (Block(number, part, spooled=True) for number, part in enumerate(parts_of(file, size)))


def _spooled(item: Conversation | RecordError) -> bytes:
    if isinstance(item, Conversation):
        return item.to_line()
    return json.dumps({"malformed": [malformed(item).key, str(item)]}).encode()


@dataclass(frozen=True)
class ReadBlock:
    """Reads and screens a block, in any process.

    Attributes:
        layout: Where the files go.
        digest: Of log and options.
        tombstones: By user.
        exclusions: What is not to be learned from.
    """

    layout: Layout
    digest: str
    tombstones: dict[str, Tombstone]
    exclusions: Exclusions

    def __call__(self, block: Block) -> Summary:
        """Counts; and whether its rows turn out to belong with others, so that this was in vain."""
        kept, rows = self.layout.block(block.number, "jsonl"), self.layout.block(block.number, "rows")
        part = f"{block.part.start}-{block.part.end}:{block.part.path.name}"
        return finished(
            self.layout.block(block.number, "done"),
            f"{self.digest} {part}",
            (kept, rows),
            lambda: self._read(block, kept, rows),
        )

    def _read(self, block: Block, kept: Path, rows: Path) -> Summary:
        screens = screens_of(self.layout.recipe.screens, self.layout.recipe.ingest)
        count = 0
        with same_key(), Lines(kept) as conversations, Lines(rows) as facts:
            items = _items(block)
            while some := list(islice(items, _BATCH)):
                if some[-1] is None:
                    return {"rows": 0, "spread": True}
                count += len(some)
                for row in self._look([item for item in some if item is not None], screens, conversations):
                    facts.write(packed(row))
        return {"rows": count, "spread": False}

    def _look(
        self, items: Sequence[Conversation | tuple[str, str]], screens: Sequence[Screen], out: Lines
    ) -> Iterator[list[Any]]:
        """Each row as a list, in the order of `_FORM`; of a malformed one, key and reason alone."""
        looked = [None if isinstance(item, tuple) else self._early(item) for item in items]
        known = [one[1] for one in looked if one is not None and one[1] is not None]
        screened = iter(zip(known, screen_apart(known, screens), strict=True))
        for item, one in zip(items, looked, strict=True):
            if isinstance(item, tuple) or one is None:
                yield list(item)
            elif one[1] is None:
                yield [item.conversation_id, checksum(item), one[0], *[None] * 9]
            else:
                yield [item.conversation_id, checksum(item), None, *_facts(*next(screened), out)]

    def _early(self, item: Conversation) -> tuple[str | None, Conversation | None]:
        """What keeps a conversation out before it is looked at, or what may be known of it."""
        known = remembered(item, self.tombstones)
        if known is None:
            return "forgotten", None
        return ("excluded", None) if self.exclusions.of(item) is not None else (None, known)


def _facts(known: Conversation, found: Screened, out: Lines) -> list[Any]:
    """What is in a row from ``late`` on."""
    marks = [(mark.reason, mark.detail) for mark in found.marks]
    if found.drop is not None:
        return [(found.drop.reason, found.drop.detail), [], {}, *[None] * 6]
    span = span_of(known)
    times = (known.started_at, span.start if span else None, span.end if span else None)
    place = out.write(known.to_line())
    return [None, marks, found.seen, known.user_id, *map(microseconds, times), *place]


def _items(block: Block) -> Iterator[Conversation | tuple[str, str] | None]:
    """Conversations and, of malformed rows, key and message; None where rows belong together across the log."""
    if block.spooled:
        yield from _unspooled(block)
        return
    spread = False

    def rows() -> Iterator[Row | RecordError]:
        nonlocal spread
        for row in rows_of_part(block.part):
            if isinstance(row, Row) and is_spread(row.value):
                spread = True
                return
            yield row

    for item in read_rows(rows()):
        if isinstance(item, RecordError):
            drop = malformed(item)
            yield drop.key, drop.detail
        elif not isinstance(item, FeedbackEvent):
            yield item
    if spread:
        yield None


def _unspooled(block: Block) -> Iterator[Conversation | tuple[str, str]]:
    with block.part.path.open("rb") as stream:
        stream.seek(block.part.start)
        while stream.tell() < block.part.end:
            line = stream.readline()
            if line.startswith(b'{"malformed":'):
                key, message = json.loads(line)["malformed"]
                yield key, message
            else:
                yield Conversation.model_validate_json(line)
