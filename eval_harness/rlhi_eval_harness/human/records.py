"""The nouns of a study with people: what is compared, and what somebody said of one pair."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from rlhi_plugin.records import Record

Side = Literal["left", "right", "tie"]
Check = Literal["mirrored", "identical"]
"""A pair that was judged before, with its sides swapped; or one answer on both sides."""

SKIP_REASONS = {
    "cannot_tell": "I cannot tell, or know too little of the subject",
    "language": "Not in a language that I read well",
    "broken": "The text is broken or cut off",
    "unpleasant": "I would rather not read this",
    "other": "Another reason",
}
"""Why a pair was left without a verdict, as it is stored and as it is asked."""


class StudyItem(Record):
    """One pair of answers."""

    item_id: str
    user: str
    """Whose request it is: the cluster of intervals."""
    shown: str
    """Digest of the request and of both answers: a verdict counts for exactly these."""


class Study(Record):
    """What people are asked: ``study.json``, written once."""

    name: str
    subject: str
    """Win rates are this one's ..."""
    versus: str
    """... against this one: the suite's first subject where it is one of the two."""
    dimensions: dict[str, str]
    """Label by name, in the order in which they are asked."""
    items: tuple[StudyItem, ...] = Field(min_length=1)
    eligible: int
    """Pairs that could have been shown; the items are a random sample of them."""
    left_out: dict[str, int] = Field(default_factory=dict)
    """Pairs that could not, by reason."""
    seed: int = 0
    """Of the sample of items, each rater's order of items, and each rater's sides."""
    overlap: int = Field(default=2, ge=1)
    """Raters that every pair is to have."""
    check_every: int = Field(default=10, ge=0)
    """An attention check after so many verdicts of a rater; 0: none."""
    guidance: str = ""
    """Version of the file with the questions that people are asked."""


class HumanVerdict(Record):
    """What one person said of one pair, or why they said nothing."""

    verdict_id: str
    rater: str
    """As they called themselves."""
    item_id: str
    shown: str
    """Digest of what they saw; see `StudyItem`."""
    left: str
    """The subject whose answer stood on the left; in an identical pair the one on both sides."""
    check: Check | None = None
    answers: dict[str, Side] = Field(default_factory=dict)
    """By dimension; empty where skipped."""
    skipped: str | None = None
    """One of `SKIP_REASONS`."""
    note: str = ""
    seconds: float | None = Field(default=None, ge=0.0)
    """From the moment at which the pair was shown; None where the page was left in between."""
    given_at: AwareDatetime


class Undo(Record):
    """A person took their last verdict back. Its line stays in the file."""

    undoes: str
    rater: str
    given_at: AwareDatetime
