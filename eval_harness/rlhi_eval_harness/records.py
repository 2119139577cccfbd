"""The nouns of evaluation. A score is a value or "unscored, because"; an estimate carries its interval and its n."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from rlhi_plugin.chat import FinishReason
from rlhi_plugin.records import ChatMessage, Record

REPORT_SCHEMA_VERSION = 1


class EvalSample(Record):
    """What one subject answered to one prompt of one user."""

    sample_id: str
    """``user/request/subject``; unique in a report."""
    suite: str
    subject: str
    user: str
    """The cluster: intervals resample users, never single answers."""
    group: str = "all"
    """A split to be reported apart (for instance the wording of the user's complaints)."""
    prompt: tuple[ChatMessage, ...]
    output: str
    finish_reason: FinishReason
    latency_s: float | None = Field(default=None, ge=0.0)


class Score(Record):
    """One metric of one sample."""

    sample_id: str
    metric: str
    value: float | None = Field(default=None, allow_inf_nan=False)
    unscored: str | None = None
    """Why there is no value. Unscored never enters a mean."""

    @model_validator(mode="after")
    def _value_or_reason(self) -> Self:
        if (self.value is None) == (self.unscored is None):
            raise ValueError("a score has either a value or a reason why it has none")
        return self


class Estimate(Record):
    """A mean over users with its 95 % interval."""

    metric: str
    subject: str
    group: str = "all"
    value: float | None
    """None when nothing could be scored."""
    low: float | None
    high: float | None
    n: int = Field(ge=0)
    """Scored samples."""
    clusters: int = Field(ge=0)
    """Users among them."""
    unscored: int = Field(default=0, ge=0)
    versus: str | None = None
    """Set for a paired difference: `subject` minus this subject, on the same prompts."""


class EvalReport(Record):
    """Everything a reader needs to decide, and everything needed to do it again."""

    schema_version: int = REPORT_SCHEMA_VERSION
    suite: str
    created_at: AwareDatetime
    estimates: tuple[Estimate, ...]
    differences: tuple[Estimate, ...]
    samples: tuple[EvalSample, ...]
    scores: tuple[Score, ...]
    findings: tuple[str, ...]
    """What the numbers say, in sentences computed from them; includes what did not help."""
    config: dict[str, Any]
    """Suite options, seeds, versions, digests, machine."""


class PromotionDecision(Record):
    """The gate's answer for one adapter and one report, with a reason for each rule."""

    adapter_id: str
    decision: Literal["promote", "hold"]
    reasons: tuple[str, ...] = Field(min_length=1)
    report_digest: str
    decided_at: AwareDatetime
