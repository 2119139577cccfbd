"""What the stages that make and filter pairs note of a run, from the counts of its shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rlhi_training.recipe import Recipe
from rlhi_training.records import Stage
from rlhi_training.resources import Resources
from rlhi_training.scale.layout import Summary
from rlhi_training.stages.contrast import pool_notes
from rlhi_training.stages.filter import filter_notes
from rlhi_training.stages.reward import score_notes
from rlhi_training.stages.rewrite import Writers, writer_notes

ExtraWords = Mapping[str, Sequence[Mapping[str, int]]]
"""By kind, the `rlhi_training.stages.contrast.word_counts` of extra pairs that are drawn."""


def maker_notes(
    stage: Stage, recipe: Recipe, resources: Resources, parts: Sequence[Summary], drawn: ExtraWords | None = None
) -> dict[str, Any]:
    """The figures that the stage notes where one process does it all.

    Args:
        stage: Which.
        recipe: The run's.
        resources: Of this process; they name models.
        parts: What each shard says of itself.
        drawn: With contrast.
    """
    noted: Counter[str] = Counter()
    for part in parts:
        noted.update(part["stages"][stage]["noted"])
    if stage == "filter":
        return filter_notes(resources.rewrite_judges, resources.evaluation_prompts, noted)
    if not getattr(recipe, stage).enabled:
        return {"enabled": False}
    if stage == "rewrite":
        writers = Writers(rewriter=resources.client(recipe.rewrite.llm), policy=resources.client())
        return {"drafts": noted["drafts"], **writer_notes(writers, recipe.rewrite)}
    client = resources.client().model
    if stage == "reward":
        return {"client": client, "drafts": noted["drafts"], **score_notes(resources.reward_model, noted)}
    extras = drawn or {}
    for found in extras.values():
        for words in found:
            noted.update(words)
    return {
        "client": client,
        "turned": sum(part["turned"] for part in parts),
        "pairs": sum(part["proposed"] for part in parts),
        **{kind: len(found) for kind, found in extras.items()},
        **pool_notes(noted, resources.reward_model if recipe.contrast.rank_by == "reward_model" else None),
    }
