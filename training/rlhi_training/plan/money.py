"""What the calls cost: with the models of the recipe, and with others."""

from __future__ import annotations

from collections.abc import Sequence

from rlhi_plugin.calls.opening import parse_spec
from rlhi_plugin.chat import Price
from rlhi_plugin.errors import MissingExtraError
from rlhi_training.plan.stand_ins import Counted
from rlhi_training.recipe import Recipe

ELSEWHERE = (
    "openai/gpt-4o",
    "openai/gpt-4o-mini",
    "openai/gpt-4.1-mini",
    "anthropic/claude-sonnet-4-5",
    "anthropic/claude-haiku-4-5",
    "gemini/gemini-2.5-flash",
    "mistral/mistral-large-latest",
    "together_ai/meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo",
)
"""Models that a plan names a price for beside the recipe's own. A choice of ours; ``--price-of`` adds others."""


def price_of(model: str, recipe: Recipe) -> Price | None:
    """The price of a model's tokens: the recipe's, else LiteLLM's price list as installed; None where neither says."""
    given = recipe.calls.price
    if given is not None:
        return given
    return listed_price(model)


def listed_price(model: str) -> Price | None:
    """What LiteLLM's price list says; None where it says nothing, or is not installed."""
    from rlhi_plugin.litellm_client import litellm_price

    try:
        return litellm_price(parse_spec(model).model)
    except MissingExtraError:
        return None


def cost(calls: Sequence[Counted], price: Price) -> float:
    """US dollars for these calls at one price."""
    return price.of(sum(row.prompt_tokens for row in calls), sum(row.completion_tokens for row in calls))
