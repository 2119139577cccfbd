"""The nouns of evaluation. A score is a value or "unscored, because"; an estimate carries its interval and its n."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from rlhi_eval_harness.human.results import HumanResult
from rlhi_eval_harness.judge_identity import JudgeIdentity
from rlhi_plugin.chat import FinishReason
from rlhi_plugin.records import ChatMessage, Record

REPORT_SCHEMA_VERSION = 4
"""2: the report describes its metrics itself, and a sample may say why it has no answer. 3: studies with people.
4: who the judges are by their names, and who answered."""


class PlannedSample(Record):
    """One prompt that one subject is to answer."""

    sample_id: str
    """``user/item/subject``; unique in a plan."""
    suite: str
    subject: str
    source: str = "base"
    """What answers, as `rlhi_eval_harness.subjects` writes it: ``base``, ``adapter=PATH``, ``endpoint=MODEL@URL``."""
    user: str
    """The cluster: intervals resample users, never single answers."""
    group: str = "all"
    """A split to be reported apart: the wording of complaints, initial or follow-up turns, the distance in turns."""
    request: str
    """Answers to the same request of the same user are compared with one another."""
    prompt: tuple[ChatMessage, ...]
    max_tokens: int
    temperature: float
    seed: int
    options: tuple[str, ...] = ()
    """Choices to be weighed by their likelihood; where nothing can weigh them, a letter is generated instead."""
    logged: str | None = None
    """What the log's own assistant answered here, for the subject ``logged``."""
    facts: dict[str, Any] = Field(default_factory=dict)
    """What the suite's scoring has to know of this sample. Never shown to a subject."""

    @property
    def item_id(self) -> str:
        """``user/item``: the same for every subject. Outputs made elsewhere are told by it."""
        return self.sample_id.removesuffix(f"/{self.subject}")

    @property
    def pair_key(self) -> str:
        """What two subjects' answers are compared on."""
        return self.item_id


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
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    cost_usd: float | None = Field(default=None, ge=0.0)
    """US dollars that the call cost; None where the price is not known, as in this process."""
    likelihoods: tuple[float, ...] = ()
    """Natural log-likelihood of each option, where the subject could weigh them."""
    failed: str | None = None
    """Why there is no answer. Tried again when the run goes on; scored as unscored, never as a bad answer."""


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


class Metric(Record):
    """What a report says about one metric beside its numbers."""

    name: str
    label: str
    """Column head."""
    meaning: str
    """One sentence."""
    unit: Literal["share", "count"] = "share"
    """A share lies in [0, 1] and is printed in per cent; a count is printed as it is."""
    better: Literal["higher", "lower", "neither"] = "higher"
    role: Literal["headline", "dimension", "harm", "health", "detail"] = "dimension"
    """What subjects are ranked by; further sides of the same gain; what it costs; length and the like; single parts."""
    throughout: bool = True
    """Whether a share can be 0 or 1 for every answer; its interval is then the exact binomial one."""
    neutral: float = 0.0
    """What the value would be without any effect: 0.5 for a win rate."""


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
    metrics: tuple[Metric, ...] = Field(min_length=1)
    """What was measured; the first is what subjects are ranked by."""
    estimates: tuple[Estimate, ...]
    differences: tuple[Estimate, ...]
    samples: tuple[EvalSample, ...]
    scores: tuple[Score, ...]
    findings: tuple[str, ...]
    """What the numbers say, in sentences computed from them; includes what did not help."""
    config: dict[str, Any]
    """Suite options, seeds, versions, digests, machine."""
    judges: tuple[JudgeIdentity, ...] = ()
    """Whose judgments are on record; the numbers are the first one's."""
    human: tuple[HumanResult, ...] = ()
    """What people said of the stored answers (`rlhi-eval human`)."""


class PromotionDecision(Record):
    """What was decided about one adapter on one report, with reasons: what `AdapterRegistry.promote` takes."""

    adapter_id: str
    decision: Literal["promote", "hold"]
    reasons: tuple[str, ...] = Field(min_length=1)
    report_digest: str
    decided_at: AwareDatetime
