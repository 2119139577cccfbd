"""Who may listen to others' requests, which requests are asked about, and where the limits of a recipe fall."""

from __future__ import annotations

import heapq
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from rlhi_plugin.records import Persona, Record, UserId
from rlhi_training.asked_for import AskedFor
from rlhi_training.draws import drawn
from rlhi_training.scale.blocks import microseconds
from rlhi_training.scale.layout import Layout, Summary, shard_file
from rlhi_training.scale.lines import Lines
from rlhi_training.stages.audience import ROOM, Audience

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Table = NDArray[np.uint64]

TEXT, RANK, PLACE, SIZE = range(4)
"""Columns of a shard's requests: digest of the wording, draw, offset and shard, length and turn."""
_SHARD_BITS, _TURN_BITS = 16, 20


PEOPLE = "people.jsonl"
"""A shard's personas. Whoever listens to them reads single ones: together they may be larger than memory."""
_AT_HAND = 2_000
"""Personas that are in memory (ours)."""


class RoomEntry(Record):
    """A user whose personas ask for something."""

    user_id: UserId
    shard: int
    """Where the personas are."""
    asked: tuple[str, ...]
    """What any of them asks for."""
    known: tuple[tuple[int, int, int], ...]
    """Until when each covers (microseconds since 1970), its offset and length; in the order of time."""
    latest: tuple[int, int] | None = None
    """Offset and length."""


def dated(personas: Sequence[Persona], places: Mapping[str, tuple[int, int]]) -> tuple[tuple[int, int, int], ...]:
    """`RoomEntry.known` of personas, which are written at these places by their digests."""
    known = sorted(
        (covers, persona.digest) for persona in personas if (covers := microseconds(persona.covers_until)) is not None
    )
    return tuple((covers, *places[digest]) for covers, digest in known)


def wishes_of(summaries: Sequence[Summary], least: int) -> list[str]:
    """Properties that at least so many users' latest personas ask for."""
    total: Counter[str] = Counter()
    for summary in summaries:
        total.update(summary["wanted"])
    return sorted(name for name, count in total.items() if count >= least)


def limit_of(summaries: Sequence[Summary], name: str, most: int | None) -> int | None:
    """The largest key that a limit on `most` items lets through; None where there is no limit or it is not reached."""
    if most is None:
        return None
    keys = heapq.nsmallest(most, (key for summary in summaries for key in summary[name]))
    return keys[-1] if len(keys) == most else None


def build_room(layout: Layout, wishes: Sequence[str], out: Path) -> None:
    """Write the users who may listen: of those whose personas ask for one of the wishes, the first drawn."""
    wanted, seed = frozenset(wishes), layout.sampling_seed("contrast")
    checks = layout.recipe.contrast.rank_by == "checks"

    def found() -> Iterator[tuple[int, str, bytes]]:
        for shard in range(layout.shards):
            with layout.shard(shard, "room.jsonl").open("rb") as lines:
                for line in lines:
                    entry = json.loads(line)
                    if not checks or wanted.intersection(entry["asked"]):
                        yield drawn(seed, "room", entry["user_id"]), entry["user_id"], line.rstrip(b"\n")

    with Lines(out) as room:
        for _, _, line in heapq.nsmallest(ROOM, found()):
            room.write(line)


class Room(Audience):
    """The users who may listen, without knowing of any conversation: `at` tells it of some.

    Args:
        path: What `build_room` wrote, beside the shards.
    """

    def __init__(self, path: Path) -> None:
        super().__init__((), (), ())
        with path.open("rb") as lines:
            entries = [RoomEntry.model_validate_json(line) for line in lines]
        self._entries = {entry.user_id: entry for entry in entries}
        self._folder = path.parent
        self._at_hand: dict[tuple[int, int], Persona] = {}

    def persona_of(self, user_id: str, moment: datetime | None) -> Persona | None:
        """See `Audience.persona_of`."""
        entry, at = self._entries.get(user_id), microseconds(moment)
        if entry is None or at is None:
            return None
        place = bisect_left(entry.known, at, key=itemgetter(0))
        return self._read(entry.shard, entry.known[place - 1][1:]) if place else None

    def latest_of(self, user_id: str) -> Persona | None:
        """See `Audience.latest_of`."""
        entry = self._entries.get(user_id)
        return None if entry is None or entry.latest is None else self._read(entry.shard, entry.latest)

    def users_asking(self, wishes: frozenset[str] | None, asked_for: AskedFor) -> list[str]:  # noqa: ARG002 - was read when they were written
        """See `Audience.users_asking`."""
        return [user for user, entry in self._entries.items() if wishes is None or wishes.intersection(entry.asked)]

    def _read(self, shard: int, place: tuple[int, int]) -> Persona:
        key = shard, place[0]
        persona = self._at_hand.get(key)
        if persona is None:
            if len(self._at_hand) >= _AT_HAND:
                self._at_hand.clear()
            offset, length = place
            with shard_file(self._folder, shard, PEOPLE).open("rb", buffering=0) as stream:
                stream.seek(offset)
                persona = Persona.model_validate_json(stream.read(length))
            self._at_hand[key] = persona
        return persona


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request is.

    Attributes:
        rank: Its draw.
        shard: Shard,
        offset: first byte of its conversation there
        length: and bytes.
        turn: Which turn.
    """

    rank: int
    shard: int
    offset: int
    length: int
    turn: int


def choose_requests(layout: Layout) -> Table:
    """Of each wording the request that is drawn first, all in the order of their draws; shape (requests, 4).

    Takes 32 bytes a request.
    """
    import numpy as np

    tables = [
        np.fromfile(layout.shard(shard, "requests.npy"), dtype=np.uint64).reshape(-1, 4)
        for shard in range(layout.shards)
    ]
    rows = np.concatenate(tables) if tables else np.empty((0, 4), dtype=np.uint64)
    rows = rows[np.lexsort((rows[:, RANK], rows[:, TEXT]))]
    first = np.ones(len(rows), dtype=np.bool_)
    first[1:] = rows[1:, TEXT] != rows[:-1, TEXT]
    rows = rows[first]
    chosen: Table = rows[np.argsort(rows[:, RANK])]
    return chosen


def places(rows: Table) -> Iterator[Place]:
    """The rows one after the other."""
    for row in rows:
        place, size = int(row[PLACE]), int(row[SIZE])
        yield Place(
            int(row[RANK]),
            place & ((1 << _SHARD_BITS) - 1),
            place >> _SHARD_BITS,
            size >> _TURN_BITS,
            size & ((1 << _TURN_BITS) - 1),
        )


def deal(layout: Layout, rows: Table) -> None:
    """Tell each shard the draws of its requests that are asked about, sorted."""
    import numpy as np

    shard_of = rows[:, PLACE] & np.uint64((1 << _SHARD_BITS) - 1)
    for shard in range(layout.shards):
        with Lines(layout.shard(shard, "asked.npy")) as out:
            out.write_bytes(rows[shard_of == shard, RANK].tobytes())
