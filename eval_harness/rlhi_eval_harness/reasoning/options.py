"""Options of a reasoning suite: which of lm_eval's tasks, its rows, and how it is asked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlhi_eval_harness.suites.suite import Suite


class ReasoningOptions(Suite):
    """A reasoning benchmark."""

    kind: Literal["reasoning"] = "reasoning"
    """This kind of suite."""
    task: str
    """Task or group, as lm_eval calls it; several with commas between."""
    folder: str | None = None
    """Where its file lies: one of lm_eval's task folders, or a path; none is ours."""
    metric: str
    """What is correct: ``metric,filter``, as lm_eval's results have it."""
    group_by: str | None = None
    """Column that results are reported apart by."""
    data: str | None = None
    """Folder with local files; without one, lm_eval downloads the benchmark."""
    items_file: str | None = None
    """In that folder: what is asked."""
    examples_file: str | None = None
    """In that folder: what few-shot examples are taken from, where they do not stand in the task itself."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Columns of the local files, each with the name that the task expects."""
    how_to_get: str = "Leave out --data to load it from the hub."
    """What is said where a local file is missing."""
    published_items: int | None = Field(default=None, ge=1)
    """How many the whole benchmark has, where that is known; local files with fewer are refused."""
    partial: bool = False
    """Ask what is there where files do not hold the whole benchmark; the report says so."""
    limit: int | None = Field(default=None, ge=1)
    """So many items, drawn at random by the seed; the report says so. None is all."""
    few_shot: int | None = Field(default=None, ge=0)
    """Examples in each prompt; None is the benchmark's own number."""
    few_shot_as_turns: bool = False
    """Examples as earlier turns of the conversation, instead of all in the one user message."""
    persona: tuple[str, ...] = ()
    """Statements that a subject with +persona has in its prompt."""
    other_persona: tuple[str, ...] = ()
    """Statements that a subject with +shuffled-persona has in its prompt."""
    notice: str | None = None
    """Something that whoever reads the report has to know."""
    subjects: tuple[str, ...] = ("base",)
    """Who answers, unless --subject says so."""
    max_new_tokens: int = Field(default=2048, ge=1)
    """Cap on every answer; what is cut before it declares its answer is unscored."""
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    """Of the evaluated answers; 0 is greedy."""
