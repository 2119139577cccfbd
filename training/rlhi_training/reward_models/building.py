"""From the recipe's words to a reward model and to what decides about rewrites."""

from __future__ import annotations

from collections.abc import Callable

from rlhi_plugin.chat import ChatClient
from rlhi_plugin.errors import ConfigError
from rlhi_training.asked_for import AskedFor
from rlhi_training.filters.rewrites import RewriteJudges
from rlhi_training.recipe import Recipe, RewardSection
from rlhi_training.reward_models.checked import CheckedReward
from rlhi_training.reward_models.classifier import ClassifierOptions, ClassifierReward
from rlhi_training.reward_models.comparing import Comparer
from rlhi_training.reward_models.judge import LLMJudgeReward, PairwiseJudgeReward
from rlhi_training.reward_models.protocol import RewardModel

POLICY = "policy"
"""In place of a model id: the policy itself judges."""

Clients = Callable[[str | None], ChatClient]
"""A client by model id; None is the policy."""


def build_reward_model(section: RewardSection, clients: Clients, asked_for: Callable[[], AskedFor]) -> RewardModel:
    """What `RewardSection.model` names.

    Raises:
        ConfigError: it needs an option that is not set, or cannot score without a persona.
    """
    kind = section.model
    if kind == "auto":
        kind = "classifier" if section.classifier else "judge" if section.llm else "checked"
    if kind == "classifier":
        return _classifier(section)
    if kind in {"judge", "judge_pairs"}:
        if section.llm is None:
            raise ConfigError(f'reward.model = "{kind}" needs a model. Add: --set reward.llm=openai/gpt-4o')
        client = client_of(section.llm, clients)
        return LLMJudgeReward(client) if kind == "judge" else PairwiseJudgeReward(client)
    if not section.persona:
        raise ConfigError(
            "reward.persona = false leaves the embedded reward nothing to check."
            " Add: --set reward.llm=openai/gpt-4o, or --set reward.classifier=FOLDER"
        )
    return CheckedReward(asked_for())


def build_rewrite_judges(recipe: Recipe, clients: Clients) -> RewriteJudges:
    """What the two filters of rewrites decide with.

    Raises:
        ConfigError: a filter needs a model that the recipe does not name.
    """
    section = recipe.filter
    kinds = {"addresses_feedback": section.addresses_feedback, "not_worse": section.not_worse}
    if not section.quality:
        return RewriteJudges()
    judged = [name for name, kind in kinds.items() if kind == "judge"]
    llm = section.llm or recipe.reward.llm
    if judged and llm is None:
        raise ConfigError(f'filter.{judged[0]} = "judge" needs a model. Add: --set filter.llm=openai/gpt-4o')
    judge = client_of(llm, clients) if judged and llm else None
    scored = [name for name, kind in kinds.items() if kind == "reward_model"]
    model: RewardModel | None = None
    if scored:
        model = _without_persona(recipe.reward, clients, scored[0])
    return RewriteJudges(
        addresses=Comparer(judge, "judge_addresses_feedback") if judge and "addresses_feedback" in judged else None,
        not_worse=Comparer(judge, "judge_not_worse") if judge and "not_worse" in judged else None,
        reward_model=model,
    )


def client_of(llm: str, clients: Clients) -> ChatClient:
    """The policy for ``policy``, else a hosted model."""
    return clients(None if llm == POLICY else llm)


def _without_persona(section: RewardSection, clients: Clients, used_by: str) -> RewardModel:
    if section.classifier is not None:
        return _classifier(section)
    if section.llm is not None:
        return LLMJudgeReward(client_of(section.llm, clients))
    raise ConfigError(
        f'filter.{used_by} = "reward_model" needs one that scores without a persona.'
        " Add: --set reward.classifier=FOLDER, or --set reward.llm=openai/gpt-4o"
    )


def _classifier(section: RewardSection) -> ClassifierReward:
    if section.classifier is None:
        raise ConfigError('reward.model = "classifier" needs one. Add: --set reward.classifier=FOLDER')
    return ClassifierReward(
        ClassifierOptions(
            path=section.classifier,
            persona_as=section.persona_as,
            no_system_role=section.no_system_role,
            label=section.classifier_label,
            max_tokens=section.classifier_max_tokens,
            share_prefixes=section.share_prefixes,
        )
    )
