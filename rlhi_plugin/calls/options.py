"""How models are called: limits, retries, prices, budget. One model for recipes, suites and code."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from rlhi_plugin.chat import Price


class CallOptions(BaseModel):
    """How hosted models are called. In-process models have neither limits nor prices."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    requests_per_minute: int | None = Field(default=None, ge=1)
    """The provider's limit; calls are spread so that it is reached and not broken. None: no limit of ours."""
    tokens_per_minute: int | None = Field(default=None, ge=100)
    """The provider's limit on prompt and answer tokens together. None: no limit of ours."""
    max_concurrency: int = Field(default=64, ge=1, le=4096)
    """Calls in flight at once. A limit of R a minute takes R/60 x seconds of an answer. Ours."""
    timeout_s: float = Field(default=120.0, gt=0.0)
    """Seconds for one attempt. Ours: long answers of slow models take a minute."""
    attempts: int = Field(default=6, ge=1, le=100)
    """Attempts at one call while it fails in ways that pass (429, 5xx, time-outs, cut answers). Ours."""
    invalid_attempts: int = Field(default=2, ge=1, le=10)
    """Times that a model is asked where its reply is not the JSON that was asked for. Ours."""
    first_wait_s: float = Field(default=1.0, gt=0.0)
    """Upper end of the first random wait; it doubles each time. A provider's Retry-After goes before. Ours."""
    max_wait_s: float = Field(default=60.0, gt=0.0)
    """No wait is longer."""
    max_cost_usd: float | None = Field(default=None, gt=0.0)
    """Stop before the run, all its starts together, has cost more US dollars. None: no limit."""
    max_calls: int | None = Field(default=None, ge=1)
    """Stop before the run has made more calls. None: no limit."""
    prompt_usd_per_million: float | None = Field(default=None, ge=0.0)
    """Price of a million prompt tokens, for models that LiteLLM's price list lacks."""
    completion_usd_per_million: float | None = Field(default=None, ge=0.0)
    """Price of a million answer tokens."""

    @property
    def price(self) -> Price | None:
        """The price that is given here; None where it is not."""
        if self.prompt_usd_per_million is None or self.completion_usd_per_million is None:
            return None
        return Price(
            prompt_token=self.prompt_usd_per_million / 1e6, completion_token=self.completion_usd_per_million / 1e6
        )


DEFAULT = CallOptions()
