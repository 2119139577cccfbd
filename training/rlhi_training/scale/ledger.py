"""What the pairing of a shard counts, and what it drops: files of drops that say on what they depend."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhi_training.counts import COUNTS
from rlhi_training.filters.caps import Claim
from rlhi_training.records import Dropped, LabelledTurn, Stage
from rlhi_training.run_directory import StageResult
from rlhi_training.scale.layout import Summary
from rlhi_training.scale.lines import PLAIN, Key, Lines, OrderedLines
from rlhi_training.scale.proposal import IRRELEVANT, NEUTRAL

MAKERS: tuple[Stage, ...] = ("rewrite", "reward", "contrast", "filter")


@dataclass
class Counts:
    """Of one stage."""

    inputs: int = 0
    passed: int = 0
    outputs: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    """What the stage's notes are made of."""


class Ledger:
    """Counts and drops of one shard, each drop in the order of the log.

    Args:
        drops: Where each stage's drops go.

    Attributes:
        counts: By stage.
        extras: Of neutral and of irrelevant pairs the draw, and the words of both answers.
        proposed: Contrast pairs that are no extras.
        turned: How many contrast pairs another persona ranks the other way.
    """

    def __init__(self, drops: Mapping[Stage, OrderedLines]) -> None:
        self.counts = {stage: Counts() for stage in MAKERS}
        self.extras: dict[str, list[tuple[int, Mapping[str, int]]]] = {NEUTRAL: [], IRRELEVANT: []}
        self.proposed = self.turned = 0
        self._drops = drops
        self._claims: list[tuple[int, int, str, bool, str | None, int]] = []
        self._seq: Mapping[str, int] = {}

    def turn_to(self, seq: Mapping[str, int]) -> None:
        """Go on with these conversations, given by name with their places in the log."""
        self._seq = seq

    def count(self, stage: Stage, result: StageResult, over: Sequence[LabelledTurn], outputs: int) -> None:
        """Count what a stage said of a part of its turns, and of those that are over a limit."""
        counts = self.counts[stage]
        counts.inputs += result.inputs + len(over)
        counts.passed += result.passed
        counts.outputs += outputs
        notes = result.notes or {}
        counts.noted.update({"drafts": notes.get("drafts", 0), **notes.get(COUNTS, {})})
        for drop in result.dropped:
            self.drop(stage, drop)
        for turn in over:
            self.drop(stage, Dropped.trusted(stage=stage, key=turn.key, reason="over_limit"))

    def claim(self, claimed: Claim, kind: str | None, rank: int) -> None:
        """Remember what the caps will want to know of a pair."""
        self._claims.append((claimed.rank, claimed.owner, claimed.source, claimed.neutral, kind, rank))

    def drop(
        self,
        stage: Stage,
        drop: Dropped,
        *,
        key: Key | None = None,
        unless: Sequence[Any] = (),
        only: Any = None,
    ) -> None:
        """Write down what is dropped; `unless` one of these extra pairs is drawn, or `only` if this one is."""
        if key is None:
            name, _, turn = drop.key.rpartition("#")
            key = (self._seq[name], int(turn))
        body = drop.to_line()
        if not unless and only is None:
            self.counts[stage].reasons[drop.reason] += 1
            self._drops[stage].add(key, PLAIN + body)
            return
        line = b'{"drop":' + body
        if unless:
            line += b',"unless":' + _dump(unless)
        if only is not None:
            line += b',"only":' + _dump(only)
        self._drops[stage].add(key, line + b"}")

    def save_claims(self, out: Lines) -> None:
        """A line each."""
        with out:
            for row in self._claims:
                out.write(_dump(row))

    def summary(self) -> Summary:
        """What adds up over shards."""
        return {
            "stages": {
                stage: {
                    "inputs": counts.inputs,
                    "passed": counts.passed,
                    "outputs": counts.outputs,
                    "reasons": dict(counts.reasons),
                    "noted": dict(counts.noted),
                }
                for stage, counts in self.counts.items()
            },
            "extras": self.extras,
            "proposed": self.proposed,
            "turned": self.turned,
        }


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
