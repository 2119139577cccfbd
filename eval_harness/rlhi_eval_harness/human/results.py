"""What a study with people found, as it stands in report.json. Win rates are the subject's, ties a half."""

from __future__ import annotations

from pydantic import Field

from rlhi_plugin.records import Record


class Measured(Record):
    """A mean or a coefficient with its 95 % interval."""

    value: float | None
    """None where there is nothing to measure, or chance alone would explain everything."""
    low: float | None = None
    high: float | None = None
    n: int = Field(default=0, ge=0)
    """Pairs, verdicts or pairs of verdicts, as the field says."""
    clusters: int = Field(default=0, ge=0)
    """Users among them, or raters where the field says so."""
    unscored: int = Field(default=0, ge=0)


class Corrected(Record):
    """The judge corrected by people: prediction-powered inference (`inference.prediction_powered`)."""

    win_rate: Measured | None
    weight: float | None = None
    """Of the judge: 0 is people alone, 1 trusts its differences fully."""
    labelled: int
    unlabelled: int
    why_not: str | None = None


class WithJudge(Record):
    """People beside the judge, on the pairs that people judged."""

    judge: Measured
    """The judge's win rate."""
    difference: Measured
    """People minus judge, pair by pair."""
    agreement: Measured
    """Share of people's verdicts that are the judge's, whose two orders make one verdict: a tie where they differ."""
    kappa: Measured
    """The same beyond chance (Cohen, win, tie and loss as names)."""
    corrected: Corrected


class DimensionResult(Record):
    """One question that people were asked."""

    dimension: str
    label: str
    people: Measured
    """Win rate: mean over pairs of the mean over their raters; the interval is over users."""
    over_raters: Measured
    """Win rate over all verdicts; the interval is over raters."""
    agreement: Measured
    """Share of pairs of raters that said the same of a pair; over pairs with two raters or more."""
    alpha: Measured
    """Krippendorff's alpha, nominal; the interval is over users."""
    left_wins: Measured
    """Share of verdicts for the left answer, ties a half: 0.5 is no position bias of people."""
    longer_wins: Measured
    """Share of verdicts for the longer answer, ties a half. Longer answers may be better: it is no proof of bias."""
    with_judge: WithJudge | None = None


class RaterResult(Record):
    """One person."""

    rater: str
    verdicts: int
    skipped: int
    undone: int
    median_seconds: float | None
    mirrored: int
    """Pairs shown again with their sides swapped."""
    mirrored_same: int
    """Of those, how many got the same verdict on every question."""
    identical: int
    """Pairs of one answer on both sides."""
    identical_tied: int
    """Of those, how many were said to be equal on every question."""


class HumanResult(Record):
    """One study."""

    study: str
    subject: str
    versus: str
    judge: str | None
    """Whom people are compared with; None where no judge compared these two."""
    seed: int
    overlap: int
    guidance: str
    eligible: int
    items: int
    judged: int
    """Pairs with a verdict."""
    complete: int
    """Pairs with as many raters as planned."""
    verdicts: int
    skipped: dict[str, int] = Field(default_factory=dict)
    left_out: dict[str, int] = Field(default_factory=dict)
    stale: int = 0
    """Verdicts on answers that are no longer there: they do not count."""
    notes: int = 0
    raters: tuple[RaterResult, ...]
    dimensions: tuple[DimensionResult, ...]
