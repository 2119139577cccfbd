"""What only the whole log can decide: rows under one id, templates, near-duplicates, one user's share; and the shards.

One process goes through the rows in the order of the log and judges; nobody's text comes past it. A conversation that
stays gets a line in its shard's index: where its text is, whose it is, when it was had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from rlhi_plugin.records import Conversation
from rlhi_plugin.split import SplitPart
from rlhi_training.records import Dropped
from rlhi_training.scale.blocks import moment
from rlhi_training.scale.digest_set import DigestSet
from rlhi_training.scale.layout import Layout, Summary, finished
from rlhi_training.scale.lines import Lines, Passages, packed, unpacked
from rlhi_training.screens.screening import screens_of
from rlhi_training.screens.user_cap import UserCap
from rlhi_training.split import Span, Splitter
from rlhi_training.stages.fewer_users import user_rank
from rlhi_training.stages.ingest import dropped_row, duplicate, numbered

_EXAMPLES = 5
_PARTS = {part.value: part for part in SplitPart}


@dataclass
class Gathered:
    """What was decided about the rows.

    Attributes:
        rows: All of them.
        indexed: Those that went into shards.
        reasons: Why the others did not.
        marked: Conversations that stay, by what was noticed.
        examples: A few of them.
    """

    rows: int = 0
    indexed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    marked: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)


class Gatherer:
    """Judges rows in order and deals conversations out to shards.

    Args:
        layout: Where the indexes go.
    """

    def __init__(self, layout: Layout) -> None:
        recipe = layout.recipe
        self._layout = layout
        self._known = DigestSet()
        self._times: Counter[str] = Counter()
        self._judges: list[Any] = []
        for screen in screens_of(recipe.screens, recipe.ingest):
            if hasattr(screen, "judge") or isinstance(screen, UserCap):
                self._judges.append(screen)
        self.found = Gathered()

    def gather(self, blocks: Iterable[tuple[int, Path]], dropped: Path) -> Gathered:
        """Go through the rows of all blocks, given in order by number and file.

        Args:
            blocks: Each block's file of rows.
            dropped: File for what is dropped, in order.
        """
        with ExitStack() as stack:
            shards = range(self._layout.shards)
            files = [stack.enter_context(Lines(self._layout.shard(shard, "index.jsonl"))) for shard in shards]
            with Lines(dropped) as out:
                for number, path in blocks:
                    with path.open("rb") as rows:
                        for line in rows:
                            self._row(number, unpacked(line), files, out)
        return self.found

    def _row(self, block: int, row: list[Any], files: list[Lines], out: Lines) -> None:
        place = self.found.rows
        self.found.rows += 1
        drop = dropped_row(row[0], "malformed", row[1]) if len(row) == 2 else self._judged(row)  # noqa: PLR2004
        if drop is not None:
            self.found.reasons[drop.reason] += 1
            out.write(drop.to_line())
            return
        name, user, began, start, end, offset, length = row[0], *row[6:]
        self.found.indexed += 1
        line = packed([place, block, offset, length, name, user, began, start, end])
        files[self._layout.shard_of(user, name)].write(line)

    def _judged(self, row: list[Any]) -> Dropped | None:
        name, crc, early, late, marks, seen, user = row[:7]
        first = self._known.first(name, crc)
        count = 1
        if first is not None:
            self._times[name] += 1
            count += self._times[name]
        key = numbered(name, count)
        if early is not None:
            return dropped_row(key, early)
        if first is not None:
            return duplicate(key, count, same=crc == first)
        if late is not None:
            return dropped_row(key, *late)
        for judge in self._judges:
            if isinstance(judge, UserCap):
                finding = judge.count(user)
            else:
                part = seen[judge.name]
                finding = judge.judge(part and (tuple(part[0]), part[1]), name)
            if finding is not None:
                return dropped_row(key, finding.reason, finding.detail)
        for reason, detail in marks:
            self.found.marked[reason] += 1
            shown = self.found.examples.setdefault(reason, [])
            if len(shown) < _EXAMPLES:
                shown.append({"key": name, "detail": detail})
        return None


@dataclass(frozen=True)
class Placed:
    """One conversation of a shard.

    Attributes:
        seq: Its place in the log.
        block: Where its text is: block,
        offset: first byte
        length: and bytes.
        name: Its id.
        user: Whose it is.
        part: What it is for.
    """

    seq: int
    block: int
    offset: int
    length: int
    name: str
    user: str | None
    part: SplitPart


@dataclass(frozen=True)
class SplitShard:
    """Splits a shard by user and time, in any process, and puts it into the order in which it is worked on.

    Attributes:
        layout: Where the files are.
        digest: Of what decides.
        limit: Places in the log behind which nothing trains (`IngestSection.max_conversations`).
        draw: How many users may be drawn; None: all.
    """

    layout: Layout
    digest: str
    limit: int | None = None
    draw: int | None = None

    def __call__(self, shard: int) -> Summary:
        """The first places and the first drawn users, as far as the recipe limits them."""
        out = self.layout.shard(shard, "placed.jsonl")
        digest = f"{self.digest} {self.limit} {self.draw}"
        return finished(self.layout.shard(shard, "placed.done"), digest, (out,), lambda: self._split(shard, out))

    def _split(self, shard: int, out: Path) -> Summary:
        recipe = self.layout.recipe
        splitter = Splitter(recipe.split)
        with self.layout.shard(shard, "index.jsonl").open("rb") as lines:
            rows = [unpacked(line) for line in lines]
        late = 1 << 62
        rows.sort(
            key=lambda r: (r[5] or "", r[5] and r[6] is None, (r[6] or 0) if r[5] else late, r[4] if r[5] else "", r[0])
        )
        first: list[int] = []
        users: set[str] = set()
        with Lines(out) as lines:
            for user, theirs in _by_user(rows):
                spans = {row[4]: _span(row) for row in theirs}
                parts = splitter.parts_of_spans(user, spans)
                for row in theirs:
                    part = parts[row[4]]
                    if part is SplitPart.TRAIN:
                        first.append(row[0])
                        if user is not None and (self.limit is None or row[0] < self.limit):
                            users.add(user)
                    lines.write(packed([*row[:6], part.value]))
        most = recipe.ingest.max_conversations
        ranked = sorted([user_rank(user, recipe.seed), user] for user in users)[: self.draw or 0]
        return {"rows": len(rows), "first": sorted(first)[:most] if most else [], "users": ranked}


def _span(row: list[Any]) -> Span | None:
    start, end = moment(row[7]), moment(row[8])
    return None if start is None or end is None else Span(row[4], start, end)


def _by_user(rows: list[list[Any]]) -> Iterator[tuple[str | None, list[list[Any]]]]:
    start = 0
    for place in range(1, len(rows) + 1):
        if place == len(rows) or rows[place][5] != rows[start][5]:
            yield rows[start][5], rows[start:place]
            start = place


def placed(layout: Layout, shard: int) -> Iterator[Placed]:
    """A shard in its order: user by user, each in the order of time."""
    with layout.shard(shard, "placed.jsonl").open("rb") as lines:
        for line in lines:
            seq, block, offset, length, name, user, part = unpacked(line)
            yield Placed(seq, block, offset, length, name, user, _PARTS[part])


class Texts:
    """Reads conversations from the blocks; a few blocks are open at a time."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._passages = Passages()
        self._block = cache(lambda number: layout.block(number, "jsonl"))

    def read(self, one: Placed) -> Conversation:
        """One conversation."""
        return Conversation.model_validate_json(self._passages.read(self._block(one.block), one.offset, one.length))

    def close(self) -> None:
        """Close all files."""
        self._passages.close()
