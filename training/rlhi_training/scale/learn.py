"""Learning about a shard's users: labels of follow-ups, turns, and the persona before each conversation.

Conversations come user by user and in the order of time, a batch at a time, so memory holds a batch and what is known
of one user, whatever the user's share of the log.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from rlhi_plugin import terminal
from rlhi_plugin.calls.concurrently import each
from rlhi_plugin.persona import ExtractivePersonaBuilder
from rlhi_plugin.records import Conversation, FollowUp, FollowUpLabel, Persona
from rlhi_plugin.split import SplitEntry, SplitPart
from rlhi_training.draws import drawn
from rlhi_training.follow_up_table import FollowUpCounts, count_follow_ups
from rlhi_training.records import LabelledTurn, PersonaBefore
from rlhi_training.resources import Resources
from rlhi_training.scale.gather import Placed, Texts, placed
from rlhi_training.scale.layout import Layout, Summary, finished, resources_here
from rlhi_training.scale.learned import Learned
from rlhi_training.scale.lines import Lines, OrderedLines
from rlhi_training.scale.room import PEOPLE, RoomEntry, dated
from rlhi_training.stages.audience import Snapshots
from rlhi_training.stages.contrast import judged_requests, request_rank, wording
from rlhi_training.stages.ingest import WHY, dropped_row
from rlhi_training.stages.label import FOLLOW_UPS, TURNS, label
from rlhi_training.stages.persona_history import History
from rlhi_training.stages.personas import AT_ONCE, personas_of, without
from rlhi_training.stages.rewrite import room_left

_BATCH = 256
"""Conversations that are in memory at once (ours)."""
_TURN_BITS = 20
FILES = (
    "learned.jsonl",
    "follow_ups.jsonl",
    "room.jsonl",
    "people.jsonl",
    "split.lines",
    "held_out.lines",
    "ingest.dropped",
    "label.dropped",
    "requests.npy",
)


@dataclass
class _Tally:
    """What a shard adds up."""

    counts: Counter[str] = field(default_factory=Counter)
    ingest: Counter[str] = field(default_factory=Counter)
    label: Counter[str] = field(default_factory=Counter)
    split: dict[str, Counter[str]] = field(default_factory=dict)
    table: FollowUpCounts = field(default_factory=FollowUpCounts)
    wanted: Counter[str] = field(default_factory=Counter)
    labeller: str = ""
    rewrites: list[int] = field(default_factory=list)
    rewards: list[int] = field(default_factory=list)
    requests: list[tuple[int, int, int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Learn:
    """Learns about a shard, in any process.

    Attributes:
        layout: Where the files are.
        digest: Of what decides.
        limit: Places in the log behind which nothing trains.
        users: Who was drawn; None: everybody.
    """

    layout: Layout
    digest: str
    limit: int | None = None
    users: frozenset[str] | None = None

    def __call__(self, shard: int, resources: Resources | None = None) -> Summary:
        """What adds up over shards.

        Args:
            shard: Number.
            resources: Models and clients; by default this process's own.
        """
        files = tuple(self.layout.shard(shard, name) for name in FILES)
        return finished(
            self.layout.shard(shard, "learned.done"),
            f"{self.digest} {self.limit} {sorted(self.users) if self.users is not None else None}",
            files,
            lambda: _Learning(
                self, shard, resources or resources_here(self.layout.make, self.layout.recipe.model_dump_json())
            ).run(),
        )


class _Learning:
    """One shard's work."""

    def __init__(self, task: Learn, shard: int, resources: Resources) -> None:
        self._task, self._shard, self._resources = task, shard, resources
        self._recipe = task.layout.recipe
        self._seed = task.layout.sampling_seed("contrast")
        self._builder = resources.persona_builder if self._recipe.personas.enabled else None
        self._tally = _Tally()
        self._user: str | None = None
        self._history: History | None = None
        self._snapshots = Snapshots()

    def run(self) -> Summary:
        layout, shard = self._task.layout, self._shard
        texts = Texts(layout)
        with (
            terminal.quietly(),
            asyncio.Runner() as runner,
            Lines(layout.shard(shard, "learned.jsonl")) as self._learned,
            Lines(layout.shard(shard, "follow_ups.jsonl")) as self._follow_ups,
            Lines(layout.shard(shard, "room.jsonl")) as self._room,
            Lines(layout.shard(shard, PEOPLE)) as self._people,
            OrderedLines(layout.shard(shard, "split.lines")) as self._split,
            OrderedLines(layout.shard(shard, "held_out.lines")) as self._held_out,
            OrderedLines(layout.shard(shard, "ingest.dropped")) as self._ingest,
            OrderedLines(layout.shard(shard, "label.dropped")) as self._label,
        ):
            try:
                for batch in self._batches():
                    runner.run(self._work(self._usable(batch, texts)))
                runner.run(self._end_user())
            finally:
                # Calls belong to this shard's loop: what is on its way ends with it, also after an error or Ctrl-C.
                runner.run(self._resources.settle())
                texts.close()
        self._save_requests()
        return self._summary()

    def _batches(self) -> Iterator[list[Placed]]:
        """A number of conversations; whole users where the builder needs a whole history."""
        whole = self._builder is not None and type(self._builder) is not ExtractivePersonaBuilder
        batch: list[Placed] = []
        for user, theirs in groupby(placed(self._task.layout, self._shard), key=lambda one: one.user):
            told: set[SplitPart] = set()
            for one in theirs:
                self._count_split(one, told, known=user is not None)
                batch.append(one)
                if len(batch) >= _BATCH and not whole:
                    yield batch
                    batch = []
            if len(batch) >= _BATCH:
                yield batch
                batch = []
        yield batch

    def _count_split(self, one: Placed, told: set[SplitPart], *, known: bool) -> None:
        if one.part is SplitPart.TRAIN and self._beyond(one):
            return
        counts = self._tally.split.setdefault(one.part.value, Counter())
        counts["conversations"] += 1
        if known and one.part not in told:
            told.add(one.part)
            counts["users"] += 1

    def _beyond(self, one: Placed) -> bool:
        return self._task.limit is not None and one.seq >= self._task.limit

    def _usable(self, batch: Sequence[Placed], texts: Texts) -> Iterator[tuple[Placed, Conversation]]:
        """What trains; of everything else the files that say so."""
        for one in batch:
            if one.part is SplitPart.TRAIN and self._beyond(one):
                self._drop_ingest(one, 1, "over_limit")
                continue
            conversation = texts.read(one)
            entry = SplitEntry(
                conversation_id=one.name,
                user_id=one.user,
                part=one.part,
                message_ids=tuple(message.id for message in conversation.messages),
            )
            self._split.add((one.seq,), entry.to_line())
            if one.part is not SplitPart.TRAIN:
                self._drop_ingest(one, 1, WHY[one.part], one.part.value)
                if one.part is not SplitPart.SET_ASIDE:
                    self._held_out.add((one.seq,), conversation.to_line())
                    self._tally.counts["held_out"] += 1
            elif self._task.users is not None and one.user not in self._task.users:
                self._drop_ingest(one, 2, "user_not_drawn" if one.user else "anonymous_not_drawn")
                self._identify(conversation)
            else:
                self._identify(conversation)
                self._tally.counts["trained"] += 1
                yield one, conversation

    def _identify(self, conversation: Conversation) -> None:
        """Who can have a persona at all: counted before users are drawn, as ingest does."""
        counts = self._tally.counts
        counts["conversations"] += 1
        user = conversation.user_id
        counts["anonymous"] += user is None
        counts["without_time"] += user is not None and conversation.started_at is None
        if user is not None:
            again = user == self._last_user
            self._times = self._times + 1 if again else 1
            counts["users"] += not again
            counts["users_with_history"] += self._times == 2  # noqa: PLR2004 - the second one tells
            self._last_user = user

    _last_user: str | None = None
    _times = 0

    def _drop_ingest(self, one: Placed, phase: int, reason: str, detail: str = "") -> None:
        self._tally.ingest[reason] += 1
        self._ingest.add((phase, one.seq), dropped_row(one.name, reason, detail).to_line())

    async def _work(self, found: Iterator[tuple[Placed, Conversation]]) -> None:
        pairs = list(found)
        if not pairs:
            return
        conversations = [conversation for _, conversation in pairs]
        result = await label(conversations, self._resources.labeller, self._recipe.ingest, part=True)
        follow_ups = [record for record in result.files[FOLLOW_UPS] if isinstance(record, FollowUp)]
        if follow_ups and not self._tally.labeller:
            self._tally.labeller = follow_ups[0].labeller
        self._tally.table += count_follow_ups(conversations, follow_ups)
        self._tally.counts["turns"] += result.passed
        self._tally.counts["follow_ups"] += len(follow_ups)
        seq_of = {conversation.conversation_id: one.seq for one, conversation in pairs}
        for number, drop in enumerate(result.dropped):
            self._tally.label[drop.reason] += 1
            name = drop.key.rpartition("#")[0]
            self._label.add((seq_of[name], number), drop.to_line())
        for one in follow_ups:
            self._follow_ups.write(one.to_line())
        labels: dict[str, list[FollowUp]] = {}
        for one in follow_ups:
            labels.setdefault(one.conversation_id, []).append(one)
        turns: dict[str, list[LabelledTurn]] = {}
        for record in result.files[TURNS]:
            if isinstance(record, LabelledTurn):
                turns.setdefault(record.conversation_id, []).append(record)
        before = await self._before(conversations, labels)
        for place, conversation in pairs:
            name = conversation.conversation_id
            self._write(place.seq, conversation, before[name], turns.get(name, []))

    async def _before(
        self, conversations: Sequence[Conversation], labels: Mapping[str, Sequence[FollowUp]]
    ) -> dict[str, PersonaBefore]:
        """The persona before each conversation of a batch."""
        found: dict[str, PersonaBefore] = {}
        groups = [(user, list(group)) for user, group in groupby(conversations, key=lambda c: c.user_id)]
        asked = await self._asked(groups, labels)
        for place, (user, theirs) in enumerate(groups):
            if user is None or self._builder is None:
                why = "anonymous" if self._builder is not None else "personas_off"
                found |= {c.conversation_id: without(c, why) for c in theirs}
                continue
            if user != self._user:
                await self._end_user()
                self._user = user
                self._tally.counts["trained_users"] += 1
                if type(self._builder) is ExtractivePersonaBuilder:
                    self._history = History(user, self._builder)
            if self._history is not None:
                for conversation in theirs:
                    entry = await self._history.before(conversation, labels.get(conversation.conversation_id, ()))
                    found[conversation.conversation_id] = entry
            else:
                entries, latest = asked[place]
                found |= {entry.conversation_id: entry for entry in entries}
                self._latest = latest
            for conversation in theirs:
                persona = found[conversation.conversation_id].persona
                if persona is not None:
                    self._snapshots.add(persona)
        return found

    async def _asked(
        self, groups: Sequence[tuple[str | None, list[Conversation]]], labels: Mapping[str, Sequence[FollowUp]]
    ) -> dict[int, tuple[list[PersonaBefore], Persona | None]]:
        """What a builder that reads whole histories makes of the batch's users, many of them at once."""
        builder = self._builder
        if builder is None or type(builder) is ExtractivePersonaBuilder:
            return {}
        known = [(place, user, theirs) for place, (user, theirs) in enumerate(groups) if user is not None]
        built = await each(known, lambda one: personas_of(one[1], one[2], labels, builder), at_once=AT_ONCE)
        return {place: made for (place, _, _), made in zip(known, built, strict=True)}

    _latest: Persona | None = None

    async def _end_user(self) -> None:
        """Write what others may hear of the user whose conversations are all read."""
        if self._user is None:
            return
        latest = await self._history.latest() if self._history is not None else self._latest
        if latest is not None:
            self._snapshots.add(latest)
            self._tally.counts["personas"] += 1
            asked = self._resources.asked_for.of_persona(latest)
            self._tally.wanted.update(asked)
        personas = self._snapshots.personas
        checks = self._recipe.contrast.rank_by == "checks"
        asked_ever = sorted({name for p in personas for name in self._resources.asked_for.of_persona(p)})
        if self._recipe.contrast.enabled and personas and (asked_ever or not checks):
            places = {persona.digest: self._people.write(persona.to_line()) for persona in personas}
            entry = RoomEntry(
                user_id=self._user,
                shard=self._shard,
                asked=tuple(asked_ever),
                known=dated(personas, places),
                latest=self._people.write(latest.to_line()) if latest is not None else None,
            )
            self._room.write(entry.to_line())
        self._user, self._history, self._latest, self._snapshots = None, None, None, Snapshots()

    def _write(self, seq: int, conversation: Conversation, before: PersonaBefore, turns: list[LabelledTurn]) -> None:
        self._tally.counts[f"persona:{before.why_none or 'known'}"] += 1
        learned = Learned(
            seq=seq,
            conversation_id=conversation.conversation_id,
            user_id=conversation.user_id,
            started_at=conversation.started_at,
            language=conversation.language,
            source=conversation.source,
            persona=before.persona,
            turns=tuple(turns),
        )
        offset, length = self._learned.write(learned.to_line())
        recipe = self._recipe
        if recipe.contrast.enabled:
            place = offset << 16 | self._shard
            self._tally.requests += [
                (drawn(0, wording(turn)), request_rank(turn.key, self._seed), place, length << _TURN_BITS | turn.turn)
                for turn, unfit in judged_requests(turns, recipe.contrast)
                if unfit is None
            ]
        if recipe.rewrite.max_turns is not None:
            self._tally.rewrites += [
                rewrite_key(seq, turn, before.persona)
                for turn in turns
                if turn.label is FollowUpLabel.WITH_FEEDBACK and room_left(turn, recipe.rewrite) >= 0
            ]
        if recipe.reward.max_turns is not None and recipe.reward.enabled:
            persona = before.persona if recipe.reward.persona else None
            if self._resources.reward_model.unscorable(persona) is None:
                self._tally.rewards += [
                    reward_key(seq, turn) for turn in turns if turn.label is not FollowUpLabel.WITH_FEEDBACK
                ]

    def _save_requests(self) -> None:
        import numpy as np

        rows = np.array(self._tally.requests, dtype=np.uint64).reshape(-1, 4)
        with Lines(self._task.layout.shard(self._shard, "requests.npy")) as out:
            out.write_bytes(rows.tobytes())

    def _summary(self) -> Summary:
        tally, recipe = self._tally, self._recipe
        return {
            "counts": dict(tally.counts),
            "ingest": dict(tally.ingest),
            "label": dict(tally.label),
            "split": {part: dict(counts) for part, counts in tally.split.items()},
            "table": tally.table.model_dump(mode="json"),
            "wanted": dict(tally.wanted),
            "labeller": tally.labeller or self._resources.labeller.name,
            "rewrites": heapq.nsmallest(recipe.rewrite.max_turns or 0, tally.rewrites),
            "rewards": heapq.nsmallest(recipe.reward.max_turns or 0, tally.rewards),
        }


def rewrite_key(seq: int, turn: LabelledTurn, persona: Persona | None) -> int:
    """Place of a turn in the order in which a limit of rewrites is spent: users with a persona first."""
    return (persona is None) << 60 | reward_key(seq, turn)


def reward_key(seq: int, turn: LabelledTurn) -> int:
    """Place of a turn in the log."""
    return seq << _TURN_BITS | turn.turn
