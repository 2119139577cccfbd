"""A run in shards: the stages of `rlhi_training.pipeline`, in five passes over files.

The pairs are those that `Pipeline` makes of the same log and recipe, whatever the number of shards and of processes and
whoever does the work. A piece of work that is done is not done again (`rlhi_training.scale.layout.finished`), so a run
that was killed goes on where it stopped.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rlhi_plugin import terminal
from rlhi_plugin.privacy.tombstones import by_user
from rlhi_training.data_card import DataFacts
from rlhi_training.export import PARQUET, write_beside
from rlhi_training.follow_up_table import FollowUpCounts
from rlhi_training.labelling.tiers import ASKING
from rlhi_training.records import Stage
from rlhi_training.run_directory import StageEntry, digest_of, digest_path, write_atomically
from rlhi_training.scale.blocks import ReadBlock, blocks_of
from rlhi_training.scale.gather import Gathered, Gatherer, SplitShard
from rlhi_training.scale.layout import Layout, Summary
from rlhi_training.scale.learn import Learn
from rlhi_training.scale.learnt import Learnt
from rlhi_training.scale.ledger import MAKERS
from rlhi_training.scale.lines import Lines, merged
from rlhi_training.scale.maker_notes import maker_notes
from rlhi_training.scale.merge import (
    Drawn,
    PairFiles,
    RenderShard,
    circle_of,
    decide_caps,
    draw_extras,
    merge_dropped,
    merge_lines,
)
from rlhi_training.scale.pairing import Limits, PairShard
from rlhi_training.scale.proposal import IRRELEVANT, NEUTRAL
from rlhi_training.scale.room import Room, build_room, choose_requests, deal, limit_of, places, wishes_of
from rlhi_training.scale.sharded_run import PASSES, ShardedRun
from rlhi_training.stages.contrast import Material, has_seat
from rlhi_training.stages.fewer_users import drawn_users
from rlhi_training.stages.filter import KEPT
from rlhi_training.stages.ingest import HELD_OUT, SPLIT
from rlhi_training.stages.label import TURNS
from rlhi_training.stages.pairs import PAIRS
from rlhi_training.steps import TABLE


class ShardedPipeline(ShardedRun):
    """One run in shards. Arguments and errors are those of `ShardedRun`."""

    def work_on(self, stage: Stage) -> dict[Stage, StageEntry]:
        """See `ShardedRun.work_on`."""
        return {"ingest": self._learn, "rewrite": self._pair, "pairs": self._render}[stage]()

    def _learn(self) -> dict[Stage, StageEntry]:
        """Ingest, label and personas: the log is read once, and each conversation that stays once more."""
        folder, layout = self.run_dir.path, self._layout
        screened = layout.folder / "screened.jsonl"
        gathered = self._read(screened, spool=False) or self._read(screened, spool=True)
        assert gathered is not None  # noqa: S101 - what is spooled is never spread
        limit, users = self._limited()
        learn = Learn(layout, digest_of([self._digests[name] for name in PASSES[0]]), limit, users)
        here = self._asks_while_learning()
        parts = self._each("label, personas", partial(learn, resources=self.resources) if here else learn, here=here)
        self._room_is(parts)
        for name, file in (("held_out.lines", HELD_OUT), ("split.lines", SPLIT)):
            merge_lines(layout, name, folder / file)
        _join(folder / "dropped" / "ingest.jsonl", screened, layout, "ingest.dropped")
        _join(folder / "dropped" / "label.jsonl", None, layout, "label.dropped")
        _join(folder / "dropped" / "personas.jsonl", None, layout, None)
        labeller = next((part["labeller"] for part in parts if part["counts"].get("follow_ups")), parts[0]["labeller"])
        table = sum((FollowUpCounts.model_validate(part["table"]) for part in parts), FollowUpCounts()).table(labeller)
        write_atomically(folder / TABLE, table.model_dump_json(indent=2) + "\n")
        return self._learned(gathered, parts, labeller, table.model_dump(mode="json"), users)

    def _learned(
        self, gathered: Gathered, parts: Sequence[Summary], labeller: str, table: Any, users: frozenset[str] | None
    ) -> dict[Stage, StageEntry]:
        counts = _sum(part["counts"] for part in parts)
        ingest = gathered.reasons + _sum(part["ingest"] for part in parts)
        label = _sum(part["label"] for part in parts)
        identity = ("conversations", "anonymous", "without_time", "users", "users_with_history")
        notes: dict[str, Any] = {
            "identity": {name: counts[name] for name in identity},
            "marked": dict(gathered.marked),
            "marked_examples": gathered.examples,
            "split": _split_notes(parts),
        }
        notes |= {"users_drawn": len(users)} if users is not None else {}
        kept, turns = counts["trained"], counts["turns"]
        said = {"labeller": labeller, "follow_ups": counts["follow_ups"], "table": table}
        built: dict[str, Any] = {"enabled": False}
        if self.recipe.personas.enabled:
            built = {"builder": self.resources.persona_builder.name, "users": counts["trained_users"]}
        return {
            "ingest": self._entry("ingest", (gathered.rows, kept, kept), ingest, [HELD_OUT, SPLIT], notes),
            "label": self._entry("label", (turns + label.total(), turns, turns), label, [TABLE], said),
            "personas": self._entry("personas", (kept, kept, kept), {}, [], built),
        }

    def _asks_while_learning(self) -> bool:
        """Whether labels or personas come from a model: then this process asks it."""
        label, built = self.recipe.label, self.recipe.personas
        return (label.labeller in ASKING and label.llm is not None) or (built.enabled and built.builder == "llm")

    def _room_is(self, parts: list[Summary]) -> None:
        """Remember what the next pass needs to know of this one, also for the next start."""
        contrast = self.recipe.contrast
        wishes = wishes_of(parts, contrast.min_users_per_property) if contrast.enabled else []
        facts = {
            "wishes": wishes,
            "rewrites": limit_of(parts, "rewrites", self.recipe.rewrite.max_turns),
            "rewards": limit_of(parts, "rewards", self.recipe.reward.max_turns),
            "labeller": next((p["labeller"] for p in parts if p["counts"].get("follow_ups")), parts[0]["labeller"]),
        }
        build_room(self._layout, wishes, self._layout.folder / "room.jsonl")
        write_atomically(self._layout.folder / "learned.json", json.dumps(facts) + "\n")

    def _read(self, screened: Path, *, spool: bool) -> Gathered | None:
        """Read and judge all rows; None where rows turn out to belong together."""
        size = max(1 << 16, min(8 << 20, (self.logs.path.stat().st_size if self.logs.path.is_file() else 1 << 30) // 4))
        read = ReadBlock(
            self._layout,
            digest_of([self._digests["ingest"], spool]),
            dict(by_user(self.logs.tombstones())),
            self.logs.exclusions(),
        )
        blocks = blocks_of(self.logs, self._layout, size=size, spool=spool)
        spread = False

        def rows() -> Iterator[tuple[int, Path]]:
            nonlocal spread
            for number in _in_order(self._engine.map(read, blocks), watch):
                if number is None:
                    spread = True
                    return
                yield number, self._layout.block(number, "rows")

        with terminal.progress("read and screen", self._count_blocks(size)) as watch:
            found = Gatherer(self._layout).gather(rows(), screened)
        return None if spread else found

    def _count_blocks(self, size: int) -> int:
        from rlhi_plugin.importers.files import size_of

        return max(1, -(-size_of(self.logs.path) // size)) if not self.logs.hub else 1

    def _limited(self) -> tuple[int | None, frozenset[str] | None]:
        """The place in the log behind which nothing trains, and who was drawn."""
        recipe = self.recipe
        split = SplitShard(self._layout, self._digests["ingest"])
        parts = self._each("split by user and time", split)
        limit, most = None, recipe.ingest.max_conversations
        if most is not None:
            first = sorted(place for part in parts for place in part["first"])[:most]
            limit = first[-1] + 1 if len(first) == most else None
        if recipe.users.max_users is None:
            return limit, None
        parts = self._each("draw users", replace(split, limit=limit, draw=recipe.users.max_users))
        names = [name for part in parts for _, name in part["users"]]
        return limit, drawn_users(names, recipe.users.max_users, recipe.seed)

    def _pair(self) -> dict[Stage, StageEntry]:
        """Rewrite, reward, contrast and filter."""
        layout = self._layout
        facts = json.loads((layout.folder / "learned.json").read_text("utf-8"))
        room = layout.folder / "room.jsonl"
        wishes = tuple(facts["wishes"])
        limits = Limits(facts["rewrites"], facts["rewards"], None, wishes)
        if self.recipe.contrast.enabled:
            rows = choose_requests(layout)
            deal(layout, rows)
            if self.recipe.contrast.max_requests is not None:
                limits = replace(limits, requests=self._last_request(rows, wishes, room))
        digest = digest_of([self._digests[name] for name in MAKERS])
        work = PairShard(layout, digest, limits, room)
        here = not self._sharding.pairs_in_workers
        parts = self._each("make pairs", partial(work, resources=self.resources) if here else work, here=here)
        extras = draw_extras(parts, self.recipe)
        capped = decide_caps(layout, extras)
        circle = circle_of(layout, extras, capped)
        render = RenderShard(
            layout, digest_of([digest, self._digests_of_pairs()]), extras, facts["labeller"], capped, circle
        )
        rendered = self._each("render pairs", render)
        merge_lines(layout, "filtered.lines", self.run_dir.path / KEPT)
        return {stage: self._maker_entry(stage, parts, rendered, extras) for stage in MAKERS}

    def _maker_entry(
        self, stage: Stage, parts: Sequence[Summary], rendered: Sequence[Summary], extras: Drawn
    ) -> StageEntry:
        made = [part["stages"][stage] for part in parts]
        inputs, passed, outputs = (sum(one[name] for one in made) for name in ("inputs", "passed", "outputs"))
        reasons = _sum(one["reasons"] for one in made)
        names = [f"{stage}.dropped", *(["capped.dropped"] if stage == "filter" else [])]
        late = merge_dropped(
            layout=self._layout, names=names, out=self.run_dir.path / "dropped" / f"{stage}.jsonl", extras=extras
        )
        found = late.pop("passed", 0)
        reasons += late
        if stage == "filter":
            counts = _sum(one["counts"] for one in rendered)
            reasons += _sum(one["reasons"] for one in rendered)
            inputs += counts["extras_passed"] + late.total()
            passed = outputs = counts["kept"]
            notes: dict[str, Any] = {
                "by_source": {name[5:]: n for name, n in sorted(counts.items()) if name.startswith("from:")}
            }
            notes |= maker_notes(stage, self.recipe, self.resources, parts)
            return self._entry(stage, (inputs, passed, outputs), reasons, [KEPT], notes)
        drawn: dict[str, list[Mapping[str, int]]] = {}
        if stage == "contrast":
            drawn = {
                kind: [words for part in parts for rank, words in part["extras"][kind] if extras.holds(kind, rank)]
                for kind in (NEUTRAL, IRRELEVANT)
            }
            passed, outputs = passed + found, outputs + sum(map(len, drawn.values()))
        notes = maker_notes(stage, self.recipe, self.resources, parts, drawn)
        if stage == "contrast" and self.recipe.contrast.enabled:
            notes["wishes"] = json.loads((self._layout.folder / "learned.json").read_text("utf-8"))["wishes"]
        return self._entry(stage, (inputs, passed, outputs), reasons, [], notes)

    def _last_request(self, rows: Any, wishes: tuple[str, ...], room: Path) -> int | None:
        """The draw of the last request that contrast has room for; None where it has room for all."""
        section, seed = self.recipe.contrast, self._layout.sampling_seed("contrast")
        audience = Room(room)
        seated = 0
        with Learnt(self._layout) as learnt:
            for place in places(rows):
                one, turn = learnt.read(place)
                here = audience.at({one.conversation_id: one.started_at}, {one.conversation_id: one.persona})
                material = Material(audience=here, asked_for=self.resources.asked_for)
                seated += has_seat(turn, material, frozenset(wishes), section, seed)
                if seated == section.max_requests:
                    return place.rank
        return None

    def _digests_of_pairs(self) -> str:
        recipe = self.recipe.model_dump(mode="json")
        return digest_of([recipe[name] for name in ("seed", "pairs", "contrast", "screens")])

    def _render(self) -> dict[Stage, StageEntry]:
        """Pairs, once each, with what goes with them."""
        folder, layout = self.run_dir.path, self._layout
        entry = self.manifest.stages["filter"]
        files = PairFiles()
        files.write(layout, folder / PAIRS, folder / PARQUET)
        merge_lines(layout, "turns.lines", folder / TURNS)
        out = folder / "dropped" / "pairs.jsonl"
        merge_dropped(layout, ["pairs.dropped"], out, Drawn(-1, -1), files.dropped)
        with out.open("rb") as lines:
            reasons = Counter(json.loads(line)["reason"] for line in lines)
        digests = {PAIRS: digest_path(folder / PAIRS), PARQUET: digest_path(folder / PARQUET)}
        written = write_beside(folder, DataFacts(self.manifest, self.recipe, files.totals, digests))
        totals = files.totals
        notes = {
            "by_source": dict(sorted(totals.sources.items())),
            "users": len(totals.users),
            "without_persona": totals.without_persona,
        }
        counts = (entry.passed, totals.pairs, totals.pairs)
        return {"pairs": self._entry("pairs", counts, reasons, [PAIRS, TURNS, *written], notes)}


def _in_order(found: Iterable[tuple[int, Summary]], advance: Callable[[int], None]) -> Iterator[int | None]:
    """Numbers of blocks in the order of the log; None where one is part of something larger."""
    done: dict[int, Summary] = {}
    following = 0
    for number, summary in found:
        done[number] = summary
        advance(1)
        while following in done:
            yield None if done.pop(following)["spread"] else following
            following += 1


def _join(out: Path, first: Path | None, layout: Layout, name: str | None) -> None:
    """A file of what was dropped: what was written as a whole, then the shards' in order."""
    with Lines(out) as lines:
        if first is not None:
            with first.open("rb") as known:
                for line in known:
                    lines.write(line.rstrip(b"\n"))
        if name is not None:
            for line in merged(layout.shard(shard, name) for shard in range(layout.shards)):
                lines.write(line)


def _sum(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return total


def _split_notes(parts: Sequence[Summary]) -> dict[str, dict[str, int]]:
    total: dict[str, Counter[str]] = {}
    for part in parts:
        for name, counts in part["split"].items():
            total.setdefault(name, Counter()).update(counts)
    return {name: {"conversations": n["conversations"], "users": n["users"]} for name, n in sorted(total.items())}
