"""Resources: the real in-process policy on a tiny model, and settings that cannot work."""

from __future__ import annotations

import pytest

from rlhi_plugin.chat import ChatClient, ChatRequest
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import ChatMessage
from rlhi_training.recipe import Recipe
from rlhi_training.recipe_files import override_recipe
from rlhi_training.resources import PolicyClient, Resources
from rlhi_training.reward_models import CheckedReward, LLMJudgeReward


def _resources(*overrides: str) -> Resources:
    return Resources(override_recipe(Recipe(name="t", summary="-").model_dump(mode="json"), overrides))


async def test_the_policy_loads_at_its_first_call_and_repeats_itself(tiny_model_dir):
    resources = _resources(f"model.base='{tiny_model_dir}'", "model.dtype=float32")
    policy = resources.client()
    assert isinstance(policy, PolicyClient)
    assert isinstance(policy, ChatClient)
    assert policy.model == str(tiny_model_dir)
    request = ChatRequest(
        messages=(ChatMessage(role="user", content="Why?"),), n=2, temperature=1.0, max_tokens=6, seed=5
    )
    first = await policy.complete(request)
    assert len(first) == 2
    assert first == await policy.complete(request)
    resources.release()
    assert first == await policy.complete(request)
    resources.release()


def test_what_needs_a_model_says_which_option_names_it():
    with pytest.raises(ConfigError, match=r"--set personas\.llm="):
        _ = _resources("personas.builder=llm").persona_builder
    with pytest.raises(ConfigError, match=r"--set reward\.llm="):
        _ = _resources("reward.persona=false").reward_model
    with pytest.raises(ConfigError, match="no labeller"):
        _ = _resources("label.labeller=oracle").labeller


def test_one_option_puts_an_llm_in_a_role():
    pytest.importorskip("litellm")
    resources = _resources("reward.llm=openai/gpt-4o", "personas.builder=llm", "personas.llm=openai/gpt-4o")
    assert isinstance(resources.reward_model, LLMJudgeReward)
    assert "openai/gpt-4o" in resources.persona_builder.name
    assert resources.client("openai/gpt-4o") is resources.client("openai/gpt-4o")
    assert isinstance(_resources().reward_model, CheckedReward)
