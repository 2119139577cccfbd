"""Reward models conditioned on a persona: how well an answer suits one user.

Read in this order: `protocol` (what a reward model is), `checked` (code counts the user's wishes), `classifier`
(trained sequence classifiers, with `classifier_model` and `shared_prefix` below it), `judge` and `comparing` (any
language model, rating one answer or choosing between two in both orders), `length_bias` (what a reward thinks of
length), `building` (from the recipe's words to one of them).
"""

from rlhi_training.reward_models.checked import CheckedReward, checked_score
from rlhi_training.reward_models.judge import LLMJudgeReward, PairwiseJudgeReward
from rlhi_training.reward_models.protocol import RewardModel, Verdict

__all__ = ["CheckedReward", "LLMJudgeReward", "PairwiseJudgeReward", "RewardModel", "Verdict", "checked_score"]
