"""What stages share and nobody should load twice or in vain: models, clients, the encoder, the labeller."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from rlhi_adapters.opening import open_client
from rlhi_plugin import terminal
from rlhi_plugin.calls.budget import Budget
from rlhi_plugin.calls.journal import CallJournal
from rlhi_plugin.calls.per_loop import PerLoop
from rlhi_plugin.calls.stack import equip
from rlhi_plugin.chat import FREE, Capabilities, ChatClient, ChatReply, ChatRequest
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.labelling import Labeller
from rlhi_plugin.persona import ExtractivePersonaBuilder, LLMPersonaBuilder, PersonaBuilder
from rlhi_training.asked_for import AskedFor
from rlhi_training.filters.contamination import EvaluationPrompts, evaluation_files, read_prompts
from rlhi_training.filters.rewrites import RewriteJudges
from rlhi_training.labelling.tiers import ASKING, make_labeller
from rlhi_training.recipe import ModelSection, Recipe
from rlhi_training.reward_models import RewardModel
from rlhi_training.reward_models.building import build_reward_model, build_rewrite_judges
from rlhi_training.reward_models.classifier import ClassifierReward
from rlhi_training.sentence_encoder import Encoder, SentenceEncoder
from rlhi_training.stages.pair_personas import put_personas

logger = logging.getLogger("rlhi.training")

_BATCH_SIZE = 48
"""Rows that the in-process model decodes together. Ours: the best rate on two CPU cores."""


class PolicyClient:
    """The recipe's base model in this process, loaded at its first call: a run that needs no text needs no model.

    Args:
        model: The recipe's section.
        adapter: Name and folder of the adapter to answer with; None: the base alone.
    """

    def __init__(self, model: ModelSection, adapter: tuple[str, Path] | None = None) -> None:
        self._section = model
        self._adapter = adapter
        self._lock = PerLoop(asyncio.Lock)
        self._client: ChatClient | None = None

    @property
    def model(self) -> str:
        """The base model's name, and the adapter's."""
        return self._section.base + (f"+{self._adapter[0]}" if self._adapter else "")

    @property
    def capabilities(self) -> Capabilities:
        """Those of the client in this process."""
        return Capabilities(json_schema="constrained", logprobs=True, seed=True, many=True, remote=False, price=FREE)

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """See `ChatClient.complete`."""
        async with self._lock.get():
            if self._client is None:
                self._client = await asyncio.to_thread(self._load)
        return await self._client.complete(request)

    def _load(self) -> ChatClient:
        if self._section.engine == "vllm":
            from rlhi_adapters.vllm_client import VLLMClient

            return VLLMClient(self._section.base, dtype=self._section.dtype)
        from rlhi_adapters.local_client import LocalClient
        from rlhi_adapters.local_model import LocalModel

        logger.info("loading %s", self.model)
        adapters = dict([self._adapter] if self._adapter else [])
        model = LocalModel.load(self._section.base, adapters=adapters, dtype=self._section.dtype)
        return LocalClient(model, adapter=next(iter(adapters), None), batch_size=_BATCH_SIZE)

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
        self._clients: dict[str | None, ChatClient] = {}
        self._bare: list[ChatClient] = []
        self._journal: CallJournal | None = None
        self._budget: Budget | None = None

    @contextmanager
    def calling(self, journal: Path) -> Iterator[None]:
        """Keep a journal of every call that is made inside; what it holds already is not asked for again.

        Raises:
            ArtefactError: the journal cannot be used.
            ConfigError: the recipe's budget buys nothing.
        """
        options = self._recipe.calls
        with CallJournal(journal) as opened:
            if opened.resumed:
                logger.info("%d calls were in flight when the last run ended", opened.resumed)
            spent_usd, calls = opened.spent()
            self._budget = Budget(options.max_cost_usd, options.max_calls, spent_usd=spent_usd, calls=calls)
            self._journal = opened
            # What was made before, to look at it, writes into no journal.
            self._forget()
            self._bare.clear()
            try:
                yield
            finally:
                self._journal = self._budget = None
                # What was made inside writes into this journal.
                self._forget()

    def _forget(self) -> None:
        self._clients.clear()
        for name in ("labeller", "persona_builder", "reward_model", "rewrite_judges"):
            self.__dict__.pop(name, None)

    @property
    def purpose(self) -> str:
        """The stage that the journal records with each call."""
        return self._journal.purpose if self._journal else ""

    @purpose.setter
    def purpose(self, name: str) -> None:
        if self._journal is not None:
            self._journal.purpose = name

    async def settle(self) -> None:
        """Wait for calls that are still in flight, and close connections."""
        if self._journal is not None and self._journal.in_flight:
            terminal.stderr.print(
                f"waiting for {self._journal.in_flight} calls in flight; their answers are kept (Ctrl-C: do not wait)"
            )
            await self._journal.land()
        for client in self._bare:
            aclose = getattr(client, "aclose", None)
            if aclose is not None:
                await aclose()

    def client(self, llm: str | None = None) -> ChatClient:
        """A hosted model (`rlhi_plugin.calls.opening`), or the policy; journalled inside `calling`."""
        llm = llm or (None if self._given[0] else self._recipe.model.served)
        if llm not in self._clients:
            bare = self._policy if llm is None else open_client(llm, self._recipe.calls)
            self._bare.append(bare)
            self._clients[llm] = equip(bare, self._recipe.calls, journal=self._journal, budget=self._budget)
        return self._clients[llm]

    @contextmanager
    def speaking(self, policy: ChatClient) -> Iterator[None]:
        """Inside, `client` without a name is this one; judges and reward models stay what they are."""
        self.check_pair_sources()
        before = self._clients.get(None)
        self._clients[None] = equip(policy, self._recipe.calls, journal=self._journal, budget=self._budget)
        try:
            yield
        finally:
            del self._clients[None]
            if before is not None:
                self._clients[None] = before

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
        if self._given[1] is not None:
            return self._given[1]
        if section.labeller in ASKING and section.llm is not None:
            return make_labeller(section.labeller, client=self.client(section.llm), votes=section.votes)
        return make_labeller(section.labeller, llm=section.llm, votes=section.votes)

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
        return build_reward_model(self._recipe.reward, self.client, lambda: self.asked_for)

    @cached_property
    def rewrite_judges(self) -> RewriteJudges:
        """Decides whether rewrites address the feedback, and whether they are not worse."""
        return build_rewrite_judges(self._recipe, self.client)

    @cached_property
    def evaluation_prompts(self) -> EvaluationPrompts | None:
        """What may not be in a pair; None where the recipe names no files."""
        section = self._recipe.filter
        if not section.evaluation_prompts:
            return None
        prompts = read_prompts(section.evaluation_prompts)
        return EvaluationPrompts(prompts, ngram=section.contamination_ngram, share=section.contamination_share)

    def check_pair_sources(self) -> None:
        """Find what is wrong with the options of the pair sources and filters before anything is spent on them.

        Raises:
            UserError: an option needs another one, or names what does not exist or cannot do what is asked of it.
        """
        recipe = self._recipe
        ranks = recipe.contrast.enabled and recipe.contrast.rank_by == "reward_model"
        if recipe.reward.enabled or ranks:
            _check(self.reward_model)
        _check(self.rewrite_judges.reward_model)
        evaluation_files(recipe.filter.evaluation_prompts)
        put_personas([], recipe)

    def release(self) -> None:
        """Let go of the in-process model, if one was loaded."""
        if isinstance(self._policy, PolicyClient):
            self._policy.release()
        for name in ("reward_model", "rewrite_judges"):
            made = self.__dict__.pop(name, None)
            model = made.reward_model if isinstance(made, RewriteJudges) else made
            if isinstance(model, ClassifierReward):
                model.release()


def _check(model: RewardModel | None) -> None:
    if isinstance(model, ClassifierReward):
        model.check()
