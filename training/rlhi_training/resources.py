"""What stages share and nobody should load twice or in vain: models, clients, the encoder, the labeller."""

from __future__ import annotations

import asyncio
import logging
from functools import cached_property

from rlhi_plugin.chat import ChatClient, ChatReply, ChatRequest
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.labelling import Labeller
from rlhi_plugin.persona import ExtractivePersonaBuilder, LLMPersonaBuilder, PersonaBuilder
from rlhi_training.asked_for import AskedFor
from rlhi_training.labelling.tiers import make_labeller
from rlhi_training.recipe import ModelSection, Recipe
from rlhi_training.reward_models import CheckedReward, LLMJudgeReward, RewardModel
from rlhi_training.sentence_encoder import Encoder, SentenceEncoder

logger = logging.getLogger("rlhi.training")

_BATCH_SIZE = 48
"""Rows that the in-process model decodes together. Ours: the best rate on two CPU cores."""


class PolicyClient:
    """The recipe's base model in this process, loaded at its first call: a run that needs no text needs no model."""

    def __init__(self, model: ModelSection) -> None:
        self._section = model
        self._lock = asyncio.Lock()
        self._client: ChatClient | None = None

    @property
    def model(self) -> str:
        """The base model's name."""
        return self._section.base

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """See `ChatClient.complete`."""
        async with self._lock:
            if self._client is None:
                self._client = await asyncio.to_thread(self._load)
        return await self._client.complete(request)

    def _load(self) -> ChatClient:
        from rlhi_adapters.local_client import LocalClient
        from rlhi_adapters.local_model import LocalModel

        logger.info("loading %s", self._section.base)
        model = LocalModel.load(self._section.base, dtype=self._section.dtype)
        return LocalClient(model, batch_size=_BATCH_SIZE)

    def release(self) -> None:
        """Let the model go, so that training has the memory."""
        close = getattr(self._client, "close", None)
        self._client = None
        if close is not None:
            close()


class Resources:
    """Everything that stages use, each made when first asked for.

    Args:
        recipe: Says which.
        policy: Stands in for the recipe's base model (tests, a served model).
        labeller: Stands in for the recipe's labeller.
        encoder: Stands in for the embedded sentence encoder.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        policy: ChatClient | None = None,
        labeller: Labeller | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        self._recipe = recipe
        self._given = (policy, labeller, encoder)
        self._clients: dict[str, ChatClient] = {}

    def client(self, llm: str | None = None) -> ChatClient:
        """A hosted model by its LiteLLM id, or the policy."""
        if llm is None:
            return self._policy
        if llm not in self._clients:
            from rlhi_plugin.litellm_client import LiteLLMClient

            self._clients[llm] = LiteLLMClient(llm)
        return self._clients[llm]

    @cached_property
    def _policy(self) -> ChatClient:
        return self._given[0] or PolicyClient(self._recipe.model)

    @cached_property
    def encoder(self) -> Encoder:
        """Sentence embeddings."""
        return self._given[2] or SentenceEncoder()

    @cached_property
    def asked_for(self) -> AskedFor:
        """Reads wishes from feedback."""
        return AskedFor(self.encoder)

    @cached_property
    def labeller(self) -> Labeller:
        """Labels follow-ups."""
        section = self._recipe.label
        return self._given[1] or make_labeller(section.labeller, llm=section.llm, votes=section.votes)

    @cached_property
    def persona_builder(self) -> PersonaBuilder:
        """Summarises a user's history."""
        section = self._recipe.personas
        if section.builder == "extractive":
            return ExtractivePersonaBuilder(max_statements=section.max_statements)
        if section.llm is None:
            raise ConfigError('personas.builder = "llm" needs a model. Add: --set personas.llm=openai/gpt-4o')
        return LLMPersonaBuilder(self.client(section.llm), max_statements=section.max_statements)

    @cached_property
    def reward_model(self) -> RewardModel:
        """Scores candidates under a persona."""
        section = self._recipe.reward
        if section.llm is not None:
            return LLMJudgeReward(self.client(section.llm))
        if not section.persona:
            raise ConfigError(
                "reward.persona = false leaves the embedded reward nothing to check."
                " Add: --set reward.llm=openai/gpt-4o"
            )
        return CheckedReward(self.asked_for)

    def release(self) -> None:
        """Let go of the in-process model, if one was loaded."""
        if isinstance(self._policy, PolicyClient):
            self._policy.release()
