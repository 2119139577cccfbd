"""What the pairs report says, gathered from the files of a run."""

from __future__ import annotations

import json
import random
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhi_plugin.checks import word_count
from rlhi_training.follow_up_table import KINDS, FollowUpTable
from rlhi_training.records import LabelledTurn, PreferencePair
from rlhi_training.report.word_diff import word_diff
from rlhi_training.run_directory import Manifest, StageEntry
from rlhi_training.screens.screen import quote

_JUDGED = ("addresses_feedback", "not_worse")
"""Notes of stage filter about its judges."""
EXAMPLES = 4
"""Dropped items that are shown for each reason."""
_SHOWN_CHARS = 4000
"""Of one message of a sample pair; what is left out is said there."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why items were dropped.

    Attributes:
        name: Of the vocabulary of `Dropped.reason`.
        count: How many.
        share: Of what the stage read.
        examples: Key and detail of a few.
    """

    name: str
    count: int
    share: float
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class FunnelRow:
    """One stage.

    Attributes:
        stage: Its name.
        entry: Its numbers.
        reasons: Most frequent first.
        marked: What was noticed and kept, in the same form; only ingest has any.
    """

    stage: str
    entry: StageEntry
    reasons: tuple[Reason, ...]
    marked: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class LengthBias:
    """How long chosen answers are beside rejected ones.

    Attributes:
        source: Pairs of which source; ``all`` for all.
        pairs: How many.
        chosen: Median words.
        rejected: Median words.
        longer: Share of pairs whose chosen answer has more words.
        equal: Share of pairs with equally many.
        margin: Median margin of those that were scored; None where none was.
        scored: Pairs with a margin other than 0.
    """

    source: str
    pairs: int
    chosen: float
    rejected: float
    longer: float
    equal: float
    margin: float | None
    scored: int


def funnel_rows(manifest: Manifest, folder: Path, turns: Mapping[str, LabelledTurn]) -> list[FunnelRow]:
    """Every finished stage with its reasons, and a few dropped items for each of them.

    Args:
        manifest: Of the run.
        folder: The run directory.
        turns: By key; an item that is one of them and has no detail is shown by its request.
    """
    rows = []
    for stage, entry in manifest.stages.items():
        examples = _examples(folder / "dropped" / f"{stage}.jsonl", turns)
        reasons = tuple(
            Reason(name, count, count / max(1, entry.inputs), tuple(examples.get(name, ())))
            for name, count in sorted(entry.reasons.items(), key=lambda item: (-item[1], item[0]))
        )
        noticed = entry.notes.get("marked_examples", {})
        marked = tuple(
            Reason(name, n, n / max(1, entry.inputs), tuple((e["key"], e["detail"]) for e in noticed.get(name, ())))
            for name, n in sorted(entry.notes.get("marked", {}).items(), key=lambda item: (-item[1], item[0]))
        )
        rows.append(FunnelRow(stage, entry, reasons, marked))
    return rows


def _examples(file: Path, turns: Mapping[str, LabelledTurn]) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    if file.is_file():
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if len(found[row["reason"]]) < EXAMPLES:
                    turn = turns.get(row["key"])
                    asked = quote(turn.context[-1].content) if turn else ""
                    found[row["reason"]].append((row["key"], row.get("detail") or asked))
    return found


def length_bias(pairs: Sequence[PreferencePair]) -> list[LengthBias]:
    """For all pairs, and for each source of them."""
    groups = {"all": list(pairs)}
    for pair in pairs:
        groups.setdefault(pair.source, []).append(pair)
    return [_bias(name, theirs) for name, theirs in groups.items() if theirs]


def _bias(source: str, pairs: Sequence[PreferencePair]) -> LengthBias:
    counts = [(word_count(pair.chosen), word_count(pair.rejected)) for pair in pairs]
    margins = [pair.margin for pair in pairs if pair.margin]
    return LengthBias(
        source=source,
        pairs=len(pairs),
        chosen=statistics.median(c for c, _ in counts),
        rejected=statistics.median(r for _, r in counts),
        longer=sum(c > r for c, r in counts) / len(counts),
        equal=sum(c == r for c, r in counts) / len(counts),
        margin=statistics.median(margins) if margins else None,
        scored=len(margins),
    )


def findings(manifest: Manifest, pairs: Sequence[PreferencePair], table: FollowUpTable | None) -> list[str]:
    """Sentences that are computed from the numbers, the one that sums up first."""
    users = {pair.user_id for pair in pairs if pair.user_id}
    read = manifest.stages["ingest"].inputs if "ingest" in manifest.stages else 0
    talks = {pair.provenance.conversation_id for pair in pairs}
    said = [
        f"{len(pairs)} pairs from {len(talks)} of {read} logged conversations; {len(users)} users' personas in prompts."
    ]
    by_source = Counter(pair.source for pair in pairs)
    if by_source:
        said.append("Sources: " + ", ".join(f"{name} {count}" for name, count in by_source.most_common()) + ".")
    said += _about_lengths(pairs)
    said += _about_scores(manifest)
    if table is not None:
        said += _about_labels(table)
    bare = sum(pair.persona_digest is None for pair in pairs)
    if bare:
        said.append(
            f"{bare} pairs have no persona in their prompt: they teach every user what one user, or none, asked."
        )
    top = Counter(pair.user_id for pair in pairs if pair.user_id).most_common(1)
    if top:
        said.append(f"The user with the most pairs has {100 * top[0][1] / len(pairs):.0f} % of them.")
    return said


def _about_lengths(pairs: Sequence[PreferencePair]) -> Iterator[str]:
    if not pairs:
        return
    bias = _bias("all", pairs)
    decided = 1.0 - bias.equal
    longer = bias.longer / decided if decided else 0.5
    which = "longer" if longer >= 0.5 else "shorter"  # noqa: PLR2004 - the middle
    share = max(longer, 1.0 - longer)
    said = f"Where lengths differ, the chosen answer is the {which} one in {100 * share:.0f} % of pairs"
    said += f" (median {bias.chosen:.0f} words against {bias.rejected:.0f})"
    # Ours: from about two thirds on, DPO learns length before anything else.
    yield f"{said}; a model can learn that instead of what users said." if share >= 0.65 else f"{said}."  # noqa: PLR2004 - see above


def _about_scores(manifest: Manifest) -> Iterator[str]:
    """What the reward thinks of length, and judges of position."""
    notes = {name: manifest.stages[name].notes for name in ("reward", "filter") if name in manifest.stages}
    bias = notes.get("reward", {}).get("length_bias")
    if bias and bias["longer_wins"] is not None:
        yield (
            f"The reward {notes['reward']['reward_model']} scores the longer of two answers higher in"
            f" {100 * bias['longer_wins']:.0f} % of {bias['comparisons']} comparisons (50 %: no length bias)."
        )
    judges = [notes.get("reward", {}).get("position_bias"), *map(notes.get("filter", {}).get, _JUDGED)]
    for judge in judges:
        if judge and judge["comparisons"]:
            first = judge["first_position_share"]
            named = "" if first is None else f", and names the answer shown first in {100 * first:.0f} % of its choices"
            yield (
                f"The judge {judge['judge']} contradicts itself in {100 * judge['undecided_share']:.0f} % of"
                f" {judge['comparisons']} comparisons when the answers change places{named} (50 %: no position bias)."
            )


def _about_labels(table: FollowUpTable) -> Iterator[str]:
    ours, paper = table.overall.get("reattempt_with_feedback"), table.paper["reattempt_with_feedback"]
    if ours is not None:
        yield (
            f"{100 * ours:.1f} % of user messages are re-attempts with feedback as {table.labeller} labels them; the"
            f" paper, labelling WildChat-1M with GPT-4o, has {100 * paper:.1f} %."
        )


def curve_rows(table: FollowUpTable) -> list[tuple[str, int, list[float]]]:
    """Place in the conversation, messages there, and the share of each kind but the initial request."""
    kinds = [kind for kind in KINDS if kind != "initial"]
    return [
        (place, table.counts_by_turn[place], [table.by_turn[place].get(kind, 0.0) for kind in kinds])
        for place in table.by_turn
        if table.counts_by_turn[place]
    ]


def sample_pairs(
    pairs: Sequence[PreferencePair], turns: dict[str, LabelledTurn], *, most: int, seed: int = 0
) -> list[dict[str, Any]]:
    """At most so many pairs as the page's script wants them, drawn evenly over sources, in the order of the file."""
    by_source: dict[str, list[int]] = defaultdict(list)
    for number, pair in enumerate(pairs):
        by_source[pair.source].append(number)
    draw = random.Random(seed)
    for numbers in by_source.values():
        draw.shuffle(numbers)
    chosen: list[int] = []
    while len(chosen) < most and any(by_source.values()):
        chosen += [numbers.pop() for numbers in by_source.values() if numbers]
    return [_sample(pairs[number], turns) for number in sorted(chosen[:most])]


def _sample(pair: PreferencePair, turns: dict[str, LabelledTurn]) -> dict[str, Any]:
    origin = pair.provenance
    turn = turns.get(f"{origin.conversation_id}#{origin.turn}")
    system = [message.content for message in pair.prompt if message.role == "system"]
    return {
        "id": pair.pair_id,
        "source": pair.source,
        "user": pair.user_id or "",
        "label": pair.label.value if pair.label else "",
        "persona": _short(system[0]) if system else "",
        "context": [{"role": m.role, "text": _short(m.content)} for m in pair.prompt if m.role != "system"],
        "followUp": _short(turn.follow_up) if turn and turn.follow_up else "",
        "chosen": word_count(pair.chosen),
        "rejected": word_count(pair.rejected),
        "margin": pair.margin,
        "diff": word_diff(_short(pair.rejected), _short(pair.chosen)),
        "models": [pair.chosen_model or "", pair.rejected_model or ""],
        "ids": {name: value for name, value in origin.model_dump(mode="json").items() if value},
    }


def _short(text: str) -> str:
    rest = len(text) - _SHOWN_CHARS
    return text if rest <= 0 else f"{text[:_SHOWN_CHARS]} … [{rest} more characters]"
