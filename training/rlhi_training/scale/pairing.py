"""Pairs of a shard: rewrites, rewards, persona contrast and the filters, a batch of conversations at a time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

from rlhi_plugin import terminal
from rlhi_plugin.records import FollowUpLabel, Persona
from rlhi_training.filters.caps import claim, owner
from rlhi_training.generation import Sampling
from rlhi_training.records import Candidate, Dropped, LabelledTurn, ScoredCandidate, Stage
from rlhi_training.resources import Resources
from rlhi_training.run_directory import StageResult
from rlhi_training.scale.blocks import microseconds
from rlhi_training.scale.layout import Layout, Summary, finished, resources_here
from rlhi_training.scale.learn import reward_key, rewrite_key
from rlhi_training.scale.learned import Learned
from rlhi_training.scale.ledger import MAKERS, Ledger
from rlhi_training.scale.lines import Lines, OrderedLines
from rlhi_training.scale.pair_order import in_order
from rlhi_training.scale.proposal import IRRELEVANT, NEUTRAL, Head, Proposal
from rlhi_training.scale.room import Room
from rlhi_training.stages.audience import Audience
from rlhi_training.stages.contrast import (
    Contrasted,
    Material,
    contrast_slots,
    eligible,
    extra_rank,
    pool_counts,
    request_rank,
    seats,
    word_counts,
)
from rlhi_training.stages.filter import judge_pairs
from rlhi_training.stages.reward import REWARDS, SCORED, reward
from rlhi_training.stages.rewrite import REWRITES, REWRITTEN, Writers, rewrite, room_left

HERE_BATCH, WORKER_BATCH = 2000, 512
"""Conversations at once: many where calls to a model are in flight together, few where nothing is waited for (ours)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the whole run decided before pairs are made.

    Attributes:
        rewrites: Largest `rewrite_key` that is rewritten; None: all.
        rewards: Largest `reward_key` that is sampled for.
        requests: Largest draw of a request that contrast asks about.
        wishes: What enough users ask for.
    """

    rewrites: int | None
    rewards: int | None
    requests: int | None
    wishes: tuple[str, ...]


@dataclass(frozen=True)
class PairShard:
    """Makes and filters a shard's pairs, in any process.

    Attributes:
        layout: Where the files are.
        digest: Of what decides.
        limits: Of the whole run.
        room: File of those who listen.
    """

    layout: Layout
    digest: str
    limits: Limits
    room: Path

    def __call__(self, shard: int, resources: Resources | None = None) -> Summary:
        """What adds up over shards.

        Args:
            shard: Number.
            resources: Models and clients; by default this process's own.
        """
        names = ("proposals.lines", *(f"{stage}.dropped" for stage in MAKERS))
        made = resources or resources_here(self.layout.make, self.layout.recipe.model_dump_json())
        batch = WORKER_BATCH if resources is None else HERE_BATCH
        return finished(
            self.layout.shard(shard, "paired.done"),
            f"{self.digest} {self.limits}",
            tuple(self.layout.shard(shard, name) for name in names),
            lambda: _Pairing(self, shard, made).run(batch),
        )


@lru_cache(maxsize=1)
def _audience(room: Path, changed: int) -> Audience:  # noqa: ARG001 - another file under the same name is another room
    return Room(room)


class _Pairing:
    """One shard's work."""

    def __init__(self, task: PairShard, shard: int, resources: Resources) -> None:
        self._task, self._shard, self._resources = task, shard, resources
        self._recipe = task.layout.recipe
        self._asked = frozenset(self._numbers("asked.npy"))

    def _numbers(self, name: str) -> list[int]:
        import numpy as np

        path = self._task.layout.shard(self._shard, name)
        found: list[int] = np.fromfile(path, dtype=np.uint64).tolist() if path.exists() else []
        return found

    def run(self, batch: int) -> Summary:
        def file(name: str) -> Path:
            return self._task.layout.shard(self._shard, name)

        with terminal.quietly(), asyncio.Runner() as runner, ExitStack() as stack:
            self._out = stack.enter_context(OrderedLines(file("proposals.lines")))
            drops = {stage: stack.enter_context(OrderedLines(file(f"{stage}.dropped"))) for stage in MAKERS}
            self._ledger = Ledger(drops)
            try:
                for some in self._batches(batch):
                    runner.run(self._work(some))
            finally:
                # Calls belong to this shard's loop: what is on its way ends with it, also after an error or Ctrl-C.
                runner.run(self._resources.settle())
        self._ledger.save_claims(Lines(file("claims.jsonl")))
        return self._ledger.summary()

    def _batches(self, size: int) -> Iterator[list[Learned]]:
        with self._task.layout.shard(self._shard, "learned.jsonl").open("rb") as lines:
            batch: list[Learned] = []
            for line in lines:
                batch.append(Learned.from_line(line))
                if len(batch) == size:
                    yield batch
                    batch = []
            if batch:
                yield batch

    def _sampling(self, stage: Stage) -> Sampling:
        model = self._recipe.model
        return Sampling(model.temperature, model.max_new_tokens, self._task.layout.sampling_seed(stage), part=True)

    async def _work(self, batch: Sequence[Learned]) -> None:
        turns = [turn for one in batch for turn in one.turns]
        self._seq = {one.conversation_id: one.seq for one in batch}
        self._ledger.turn_to(self._seq)
        self._of = {one.conversation_id: one for one in batch}
        personas = {one.conversation_id: one.persona for one in batch}
        rewritten = await self._rewrite(turns, personas)
        rewarded = await self._reward(turns, personas)
        contrasted = await self._contrast(batch, turns, rewritten, rewarded)
        await self._filter(turns, rewritten, rewarded, contrasted)

    async def _rewrite(self, turns: Sequence[LabelledTurn], personas: dict[str, Persona | None]) -> StageResult | None:
        section, most = self._recipe.rewrite, self._task.limits.rewrites
        if not section.enabled:
            return None
        used, over = list(turns), []
        if most is not None:
            over = [
                turn
                for turn in turns
                if turn.label is FollowUpLabel.WITH_FEEDBACK
                and room_left(turn, section) >= 0
                and rewrite_key(self._seq[turn.conversation_id], turn, personas[turn.conversation_id]) > most
            ]
            beyond = {turn.key for turn in over}
            used = [turn for turn in turns if turn.key not in beyond]
        result = await rewrite(
            used,
            personas,
            Writers(rewriter=self._resources.client(section.llm), policy=self._resources.client()),
            (self._resources.asked_for, self._resources.encoder),
            (section.model_copy(update={"max_turns": None}), self._sampling("rewrite")),
        )
        self._ledger.count("rewrite", result, over, len(result.files[REWRITES]))
        return result

    async def _reward(self, turns: Sequence[LabelledTurn], personas: dict[str, Persona | None]) -> StageResult | None:
        section, most = self._recipe.reward, self._task.limits.rewards
        if not section.enabled:
            return None
        resources = self._resources
        over = []
        if most is not None:
            over = [
                turn
                for turn in turns
                if turn.label is not FollowUpLabel.WITH_FEEDBACK
                and reward_key(self._seq[turn.conversation_id], turn) > most
                and resources.reward_model.unscorable(personas[turn.conversation_id] if section.persona else None)
                is None
            ]
        beyond = {turn.key for turn in over}
        result = await reward(
            [turn for turn in turns if turn.key not in beyond],
            personas,
            resources.client(),
            (resources.reward_model, resources.asked_for),
            (section.model_copy(update={"max_turns": None}), self._sampling("reward")),
        )
        self._ledger.count("reward", result, over, len(result.files[REWARDS]))
        return result

    async def _contrast(
        self,
        batch: Sequence[Learned],
        turns: Sequence[LabelledTurn],
        rewritten: StageResult | None,
        rewarded: StageResult | None,
    ) -> Contrasted | None:
        section = self._recipe.contrast
        if not section.enabled:
            return None
        sampling = self._sampling("contrast")
        requests, dropped = eligible(turns, section)
        asked: list[LabelledTurn] = []
        for turn in requests:
            draw = request_rank(turn.key, sampling.seed)
            if draw not in self._asked:
                dropped.append(Dropped.trusted(stage="contrast", key=turn.key, reason="duplicate_request"))
            elif self._task.limits.requests is not None and draw > self._task.limits.requests:
                dropped.append(Dropped.trusted(stage="contrast", key=turn.key, reason="over_limit"))
            else:
                asked.append(turn)
        asked.sort(key=lambda turn: request_rank(turn.key, sampling.seed))
        material = Material(
            audience=self._audience().at(
                {one.conversation_id: one.started_at for one in batch},
                {one.conversation_id: one.persona for one in batch},
            ),
            asked_for=self._resources.asked_for,
            more=self._more(rewritten, rewarded),
            reward_model=self._resources.reward_model if section.rank_by == "reward_model" else None,
        )
        wishes = self._task.limits.wishes
        open_ended = section.model_copy(update={"max_requests": None})
        slots, unused = seats(asked, material, frozenset(wishes), open_ended, sampling.seed)
        found = await contrast_slots(slots, material, self._resources.client(), (section, sampling), wishes)
        self._ledger.proposed += len(found.proposed)
        self._ledger.turned += found.turned
        counts = self._ledger.counts["contrast"]
        counts.noted.update(pool_counts(found, found.proposed))
        counts.inputs += len(turns)
        counts.outputs += len(found.proposed)
        counts.passed += len({f"{p.conversation_id}#{p.turn}" for p in found.proposed})
        for drop in (*dropped, *unused):
            self._ledger.drop("contrast", drop)
        extras = {
            kind: {f"{pair.conversation_id}#{pair.turn}": (extra_rank(pair, sampling.seed), pair) for pair in pairs}
            for kind, pairs in ((NEUTRAL, found.neutral), (IRRELEVANT, found.irrelevant))
        }
        for kind, ranked in extras.items():
            self._ledger.extras[kind] += [(rank, word_counts(pair)) for rank, pair in ranked.values()]
        for key, drop in found.empty_handed.items():
            waiting = [[kind, ranked[key][0]] for kind, ranked in extras.items() if key in ranked]
            self._ledger.drop("contrast", drop, unless=waiting)
        return found

    def _audience(self) -> Audience:
        room = self._task.room
        return _audience(room, room.stat().st_mtime_ns)

    def _more(self, rewritten: StageResult | None, rewarded: StageResult | None) -> dict[str, list[Candidate]]:
        section = self._recipe.contrast
        written: list[Candidate] = []
        if rewritten is not None and section.use_rewrites:
            written += cast("Sequence[Candidate]", rewritten.files[REWRITTEN])
        if rewarded is not None and section.use_samples:
            written += [one.candidate for one in cast("Sequence[ScoredCandidate]", rewarded.files[SCORED])]
        more: dict[str, list[Candidate]] = defaultdict(list)
        for candidate in written:
            more[f"{candidate.conversation_id}#{candidate.turn}"].append(candidate)
        return more

    async def _filter(
        self,
        turns: Sequence[LabelledTurn],
        rewritten: StageResult | None,
        rewarded: StageResult | None,
        contrasted: Contrasted | None,
    ) -> None:
        proposed = in_order((rewritten, rewarded), contrasted, self._of)
        by_key = {turn.key: turn for turn in turns}
        tools = (self._resources.encoder, self._resources.rewrite_judges, self._resources.evaluation_prompts)
        before = self._resources.rewrite_judges.seen
        verdicts = await judge_pairs([pair for _, pair, _, _ in proposed], by_key, tools, self._recipe.filter)
        self._ledger.counts["filter"].noted.update(self._resources.rewrite_judges.seen - before)
        for (key, pair, kind, rank), drop in zip(proposed, verdicts, strict=True):
            if kind is None:
                self._ledger.counts["filter"].inputs += 1
            if drop is not None:
                self._ledger.drop("filter", drop, key=key, only=[kind, rank] if kind else None)
                continue
            turn, one = by_key[f"{pair.conversation_id}#{pair.turn}"], self._of[pair.conversation_id]
            claimed = claim(pair, owner(pair, by_key), self._recipe.seed)
            self._ledger.claim(claimed, kind, rank)
            head = Head(
                key=pair.key,
                source=pair.source,
                conversation_id=pair.conversation_id,
                turn=pair.turn,
                rank=claimed.rank,
                extra=kind,
                extra_rank=rank,
                started_at=microseconds(one.started_at),
                language=one.language,
                log=one.source,
            )
            self._out.add(key, Proposal(head, pair.to_line(), turn.to_line()).to_line())
