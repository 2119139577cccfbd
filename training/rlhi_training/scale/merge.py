"""From shards to one set of pairs: which extra pairs are drawn, what the caps take, and the files of the run."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rlhi_plugin.records import Conversation
from rlhi_training.contrasting.choosing import share_of
from rlhi_training.data_card import PairTotals, counted_of
from rlhi_training.filters.caps import Claim
from rlhi_training.pair_rows import row_line, row_of, write_lines_parquet
from rlhi_training.recipe import Recipe
from rlhi_training.records import Dropped, PreferencePair, ProposedPair
from rlhi_training.scale.blocks import moment
from rlhi_training.scale.digest_set import DigestSet
from rlhi_training.scale.layout import Layout, Summary, finished
from rlhi_training.scale.lines import PLAIN, Lines, keyed, merged, packed, unpacked
from rlhi_training.scale.proposal import IRRELEVANT, NEUTRAL, Proposal
from rlhi_training.stages.audience import Snapshots
from rlhi_training.stages.filter import capped_pair, what_caps_leave
from rlhi_training.stages.pair_personas import Circle, put_persona
from rlhi_training.stages.pairs import PairOrigin, render_each

_BATCH = 256
"""Pairs that are rendered together (ours)."""


@dataclass(frozen=True)
class Drawn:
    """Which extra pairs there are: those whose draw is at most this, by kind."""

    neutral: int
    irrelevant: int

    def holds(self, kind: str | None, rank: int) -> bool:
        """Whether a pair is in; every one is that is no extra."""
        return kind is None or rank <= (self.neutral if kind == NEUTRAL else self.irrelevant)


def draw_extras(summaries: Sequence[Summary], recipe: Recipe) -> Drawn:
    """The recipe's shares of all contrast pairs that are proposed."""
    proposed = sum(summary["proposed"] for summary in summaries)
    shares = {NEUTRAL: recipe.contrast.neutral_share, IRRELEVANT: recipe.contrast.irrelevant_share}
    last = {}
    for kind, share in shares.items():
        ranks = sorted(rank for summary in summaries for rank, _ in summary["extras"][kind])[
            : share_of(share, proposed)
        ]
        last[kind] = ranks[-1] if ranks else -1
    return Drawn(last[NEUTRAL], last[IRRELEVANT])


def decide_caps(layout: Layout, extras: Drawn) -> dict[int, str]:
    """By its draw, which cap takes a pair; what stays is not in it. About 200 bytes a pair."""
    claims: list[Claim] = []
    for shard in range(layout.shards):
        with layout.shard(shard, "claims.jsonl").open("rb") as lines:
            for line in lines:
                rank, owner, source, neutral, kind, extra = unpacked(line)
                if extras.holds(kind, extra):
                    claims.append(Claim(rank, owner, source, neutral))
    taken, within = what_caps_leave(claims, layout.recipe.filter)
    return {
        one.rank: "over_limit" if place in within else "user_cap"
        for place, one in enumerate(claims)
        if place not in taken
    }


def circle_of(layout: Layout, extras: Drawn, capped: Mapping[int, str]) -> Circle | None:
    """Who gets whose persona, where the recipe shuffles them; the personas of all pairs are in memory then."""
    if layout.recipe.pairs.persona != "shuffled":
        return None
    personas: dict[str, Snapshots] = defaultdict(Snapshots)
    for shard in range(layout.shards):
        for proposal in proposals(layout, shard, extras):
            persona = proposal.pair.persona
            if persona is not None and proposal.head.rank not in capped:
                personas[persona.user_id].add(persona)
    return Circle([persona for theirs in personas.values() for persona in theirs.personas], layout.recipe.seed)


def proposals(layout: Layout, shard: int, extras: Drawn) -> Iterator[Proposal]:
    """A shard's pairs that passed the filters, in order."""
    for _, line in keyed(layout.shard(shard, "proposals.lines")):
        proposal = Proposal.from_line(line)
        if extras.holds(proposal.head.extra, proposal.head.extra_rank):
            yield proposal


@dataclass(frozen=True)
class RenderShard:
    """Renders a shard's pairs as rows, in any process.

    Attributes:
        layout: Where the files are.
        digest: Of what decides.
        extras: Which extra pairs there are.
        labeller: What labelled the follow-ups.
        capped: By shard, the draws of the pairs that a cap takes.
        circle: Whose persona goes where, where they are shuffled.
    """

    layout: Layout
    digest: str
    extras: Drawn
    labeller: str
    capped: dict[int, str]
    circle: Circle | None = None

    def __call__(self, shard: int) -> Summary:
        """Counts of stages filter and pairs."""
        names = ("rows.lines", "filtered.lines", "turns.lines", "capped.dropped", "pairs.dropped")
        files = tuple(self.layout.shard(shard, name) for name in names)
        return finished(
            self.layout.shard(shard, "rendered.done"), self.digest, files, lambda: self._render(shard, files)
        )

    def _render(self, shard: int, files: Sequence[Path]) -> Summary:
        counts: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        told: set[tuple[str, int]] = set()
        # What is read is in order, and so is what is written.
        rows, filtered, turns, capped, lost = (Lines(file) for file in files)
        with rows, filtered, turns, capped, lost:
            held = self._held(shard)
            while some := list(islice(held, _BATCH)):
                for (key, proposal), made in zip(some, self._rows([one for _, one in some]), strict=True):
                    head = proposal.head
                    counts["extras_passed"] += head.extra is not None
                    if head.rank in self.capped:
                        drop = capped_pair(head.key, within=self.capped[head.rank] == "over_limit")
                        reasons[drop.reason] += 1
                        capped.write(key + PLAIN + drop.to_line())
                        continue
                    counts["kept"] += 1
                    counts[f"from:{head.source}"] += 1
                    filtered.write(key + proposal.pair_line)
                    if isinstance(made, Dropped):
                        counts["lost"] += 1
                        lost.write(key + PLAIN + made.to_line())
                    elif made is not None:
                        rows.write(key + _row_line(head.key, row_of(made)))
                        if proposal.turn_name not in told:
                            told.add(proposal.turn_name)
                            turns.write(key + proposal.turn_line)
        return {"counts": dict(counts), "reasons": dict(reasons)}

    def _held(self, shard: int) -> Iterator[tuple[bytes, Proposal]]:
        for key, line in keyed(self.layout.shard(shard, "proposals.lines")):
            proposal = Proposal.from_line(line)
            if self.extras.holds(proposal.head.extra, proposal.head.extra_rank):
                yield key, proposal

    def _rows(self, proposals: Sequence[Proposal]) -> list[PreferencePair | Dropped | None]:
        """What becomes of each pair; None of one that a cap takes."""
        found: list[PreferencePair | Dropped | None] = [None] * len(proposals)
        kept: dict[int, ProposedPair] = {}
        for place, proposal in enumerate(proposals):
            if proposal.head.rank not in self.capped:
                placed = put_persona(proposal.pair, self.layout.recipe, self.circle)
                if isinstance(placed, Dropped):
                    found[place] = placed
                else:
                    kept[place] = placed
        turns = [proposals[place].turn for place in kept]
        origin = PairOrigin(
            conversations={
                turn.conversation_id: _conversation(proposals[place]) for place, turn in zip(kept, turns, strict=True)
            },
            labeller=self.labeller,
            against_refusals=self.layout.recipe.screens.train_against_refusals,
        )
        for place, made in zip(kept, render_each(list(kept.values()), turns, origin), strict=True):
            found[place] = made
        return found


def _conversation(proposal: Proposal) -> Conversation:
    """Time, log and language, which is all that is wanted of it."""
    return Conversation.trusted(
        conversation_id=proposal.head.conversation_id,
        user_id=None,
        messages=(),
        started_at=moment(proposal.head.started_at),
        language=proposal.head.language,
        source=proposal.head.log,
    )


def _row_line(key: str, row: dict[str, Any]) -> bytes:
    """What `PairFiles` has to know of a row, and the row as it goes into the file."""
    return packed([row["pair_id"], key, counted_of(row)]) + b"\t" + row_line(row).encode()


class PairFiles:
    """Writes ``pairs.jsonl`` and ``pairs.parquet`` from all shards, each pair once.

    Attributes:
        totals: What the data card counts.
        dropped: Pairs that render to the same as an earlier one.
    """

    def __init__(self) -> None:
        self.totals = PairTotals()
        self.dropped: list[Dropped] = []

    def write(self, layout: Layout, jsonl: Path, parquet: Path) -> None:
        """Merge."""
        with Lines(jsonl) as out:
            write_lines_parquet(parquet, self._rows(layout, out))

    def _rows(self, layout: Layout, out: Lines) -> Iterator[bytes]:
        seen = DigestSet()
        for line in merged(layout.shard(shard, "rows.lines") for shard in range(layout.shards)):
            head, _, row = line.partition(b"\t")
            name, key, counted = unpacked(head)
            if seen.first(name, 0) is not None:
                self.dropped.append(Dropped(stage="pairs", key=key, reason="duplicate"))
                continue
            out.write(row)
            self.totals.add(counted)
            yield row


def merge_lines(layout: Layout, name: str, out: Path) -> int:
    """One file of the lines of all shards, in order; how many there are."""
    count = 0
    with Lines(out) as lines:
        for line in merged(layout.shard(shard, name) for shard in range(layout.shards)):
            lines.write(line)
            count += 1
    return count


def merge_dropped(
    layout: Layout, names: Sequence[str], out: Path, extras: Drawn, more: Sequence[Dropped] = ()
) -> Counter[str]:
    """What a stage dropped, in one file; counts of what is in it only because of which extra pairs were drawn."""
    late: Counter[str] = Counter()
    with Lines(out) as lines:
        for name in names:
            for line in merged(layout.shard(shard, name) for shard in range(layout.shards)):
                if line.startswith(PLAIN):
                    lines.write(line.removeprefix(PLAIN))
                    continue
                found = unpacked(line)
                if any(extras.holds(kind, rank) for kind, rank in found.get("unless", ())):
                    late["passed"] += 1
                    continue
                if "only" in found and not extras.holds(*found["only"]):
                    continue
                late[found["drop"]["reason"]] += 1
                lines.write(_line(found["drop"]))
        for drop in more:
            lines.write(drop.to_line())
    return late


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
