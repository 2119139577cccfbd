"""What the filter of rewrites would ask a judge or a reward model, counted."""

from __future__ import annotations

import asyncio

from rlhi_training.pipeline import Pipeline
from rlhi_training.plan.stand_ins import Ledger
from rlhi_training.recipe import FilterSection
from rlhi_training.records import ProposedPair
from rlhi_training.stages.filter import judge_pairs
from rlhi_training.stages.rewrite import REWRITES

_ANYTHING = 1e9
"""A difference of scores that none exceeds."""


def asks(section: FilterSection) -> bool:
    """Whether one of the two questions about a rewrite is for a model."""
    return section.quality and {section.addresses_feedback, section.not_worse} & {"judge", "reward_model"} != set()


def filter_calls(pipeline: Pipeline, ledger: Ledger) -> None:
    """Count what is asked about the rewrites of a forecast.

    Stand-ins for answers say neither whether feedback is met nor in which language an answer will be, so every rewrite
    without a flaw is asked about, and passes: the most that a run may ask.

    Args:
        pipeline: A forecast whose stages are done.
        ledger: Its.
    """
    section = pipeline.recipe.filter
    if not asks(section):
        return
    ledger.stage = "filter"
    off = {"addresses_feedback": "off"} if section.addresses_feedback == "code" else {}
    open_to_all = section.model_copy(
        update={"match_language": False, "min_margin": 0.0, "min_gain": -_ANYTHING, "max_loss": _ANYTHING, **off}
    )
    rewrites = pipeline.run_dir.read(REWRITES, ProposedPair)
    turns = {turn.key: turn for turn in pipeline.turns()}
    tools = (pipeline.resources.encoder, pipeline.resources.rewrite_judges, None)
    asyncio.run(judge_pairs(rewrites, turns, tools, open_to_all))
