"""The run's own stages, later rounds' too, with stand-ins for models: what they would ask is counted.

So the forecast cannot drift away from the stages. What it cannot know is named: labels come from the embedded labeller
where a model would give them, personas from quotations, and the length of new answers from those in the log.
"""

from __future__ import annotations

import logging
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rlhi_adapters.opening import open_client
from rlhi_plugin.chat import FREE, Capabilities, ChatClient
from rlhi_plugin.labelling import Labeller
from rlhi_plugin.persona import LLMPersonaBuilder, PersonaBuilder
from rlhi_plugin.records import Conversation
from rlhi_plugin.split import SplitEntry, SplitPart
from rlhi_training.asked_for import AskedFor
from rlhi_training.filters.rewrites import RewriteJudges
from rlhi_training.labelling.tiers import ASKING, make_labeller
from rlhi_training.log_source import log_source
from rlhi_training.methods import choice
from rlhi_training.pipeline import Pipeline
from rlhi_training.plan.filtering import filter_calls
from rlhi_training.plan.other_methods import Logged, later_rounds, logged_answers
from rlhi_training.plan.stand_ins import (
    Counted,
    ForecastClient,
    ForecastComparer,
    ForecastLabeller,
    ForecastPersonaBuilder,
    ForecastReward,
    Ledger,
    NoEncoder,
    Scored,
)
from rlhi_training.plan.tokens import TokenCounter
from rlhi_training.recipe import Recipe
from rlhi_training.records import Dropped, Stage
from rlhi_training.resources import Resources
from rlhi_training.reward_models import RewardModel
from rlhi_training.reward_models.classifier import ClassifierReward
from rlhi_training.run_directory import Manifest, RunDirectory, StageEntry
from rlhi_training.sentence_encoder import Encoder, SentenceEncoder
from rlhi_training.stages.ingest import HELD_OUT, SPLIT

_ANSWERS = 2_000
"""Answers of the log's assistant that stand for new ones, drawn by chance (ours)."""
FREE_LABELLER = "embedded"


@dataclass(frozen=True)
class Forecast:
    """What a run's stages would do.

    Attributes:
        manifest: Counts of every stage, as a run's manifest has them.
        calls: What each stage asks of each model.
        conversations: Usable conversations.
        guided: Contrast candidates' specifications that a persona asked for: each is about one pair.
        answer_tokens: Tokens of the log's average answer.
        counted_by: How tokens were counted.
        history: For each user with more than one dated conversation, the requests of the last one.
        held_out: For each user whom the recipe holds out for evaluation, the requests of those conversations.
        later: For each round after the first, its stages' counts.
        logged: What self-distillation learns from; None for methods that learn from pairs.
        scored: What a trained reward model would read.
    """

    manifest: Manifest
    calls: tuple[Counted, ...]
    conversations: int
    guided: int
    answer_tokens: float
    counted_by: str
    history: dict[str, int]
    held_out: dict[str, int] = field(default_factory=dict)
    later: tuple[Mapping[Stage, StageEntry], ...] = ()
    logged: Logged | None = None
    scored: Scored = field(default_factory=Scored)


def forecast(logs: str | Path, recipe: Recipe, *, encoder: Encoder | None = None) -> Forecast:
    """Forecast a run. No model is called.

    Args:
        logs: The conversation log.
        recipe: What would be done.
        encoder: Stands in for the embedded sentence encoder.

    Raises:
        UserError: the log cannot be read, or holds nothing usable.
        ConfigError: a training method that the rest of the recipe does not allow.
    """
    choice.check(recipe)
    answers = _answers(logs)
    counter = TokenCounter(recipe.rewrite.llm or recipe.model.base)
    resources = ForecastResources(recipe, answers, counter, encoder=encoder)
    with tempfile.TemporaryDirectory(prefix="rlhi-plan-") as folder, _quiet():
        pipeline = ForecastPipeline(logs, recipe, RunDirectory(folder), resources=resources, say=lambda _: None)
        manifest = pipeline.run(until="contrast")
        conversations = pipeline.conversations()
        held_out = _held_out(pipeline)
        filter_calls(pipeline, resources.ledger)
        later = later_rounds(pipeline, resources.ledger)
        logged = logged_answers(pipeline, counter)
    sample = answers[:200]
    return Forecast(
        manifest,
        tuple(resources.ledger.rows.values()),
        len(conversations),
        guided(manifest.stages["contrast"], recipe),
        sum(counter.text(text) for text in sample) / len(sample),
        counter.by,
        _history(conversations),
        held_out,
        later,
        logged,
        resources.scored,
    )


def guided(entry: StageEntry, recipe: Recipe) -> int:
    """Specifications of contrast's candidates that a persona asked for."""
    drafts = int(entry.notes.get("drafts", 0))
    asked = entry.inputs - sum(entry.reasons.get(reason, 0) for reason in _NOT_ASKED)
    plain = asked if recipe.contrast.plain_samples and drafts else 0
    return max(0, drafts - plain)


_NOT_ASKED = (
    "not_a_request",
    "feedback_in_context",
    "duplicate_request",
    "cross_user_off",
    "no_persona",
    "over_limit",
)
"""Reasons of the contrast stage for asking nothing about a turn."""


class ForecastPipeline(Pipeline):
    """A pipeline whose ledger knows which stage asks."""

    def before(self, stage: Stage) -> None:
        """See `Pipeline.before`."""
        if isinstance(self.resources, ForecastResources):
            self.resources.ledger.stage = stage

    def where_dropped(self, stage: Stage) -> str:
        """The first dropped item itself: nobody can look into a forecast's folder, which is gone."""
        first = self.run_dir.read(f"dropped/{stage}.jsonl", Dropped)[0]
        return f"See the first, {first.key} ({(first.detail or first.reason).rstrip('.')})"


class ForecastResources(Resources):
    """Stand-ins for everything that costs.

    Args:
        recipe: Says what would be asked.
        answers: Answers of the log's own assistant.
        counter: Counts tokens.
        encoder: Stands in for the embedded sentence encoder.
    """

    def __init__(
        self, recipe: Recipe, answers: Sequence[str], counter: TokenCounter, *, encoder: Encoder | None = None
    ) -> None:
        super().__init__(recipe, encoder=encoder)
        self.ledger = Ledger()
        self.scored = Scored()
        self._recipe = recipe
        self._answers = answers
        self._counter = counter
        self._reader = encoder
        self._made: dict[str, ChatClient] = {}

    def client(self, llm: str | None = None) -> ChatClient:
        """A stand-in for the model; hosted ones are opened to learn what they offer, and not called."""
        name = llm or self._recipe.model.served
        if name is None:
            model = self._recipe.model.base
            offered = Capabilities(json_schema="constrained", seed=True, many=True, remote=False, price=FREE)
        elif name.startswith(("local:", "vllm:")):
            model = name.partition(":")[2]
            offered = Capabilities(json_schema="constrained", seed=True, many=True, remote=False, price=FREE)
        else:
            bare = open_client(name, self._recipe.calls)
            model, offered = bare.model, bare.capabilities
        if model not in self._made:
            self._made[model] = ForecastClient(model, offered, self.ledger, self._answers, self._counter)
        return self._made[model]

    @cached_property
    def encoder(self) -> Encoder:
        """Nothing that is counted depends on nearness."""
        return NoEncoder()

    @cached_property
    def asked_for(self) -> AskedFor:
        """Reads wishes as a run does: contrast depends on them."""
        return AskedFor(self._reader or SentenceEncoder())

    @cached_property
    def labeller(self) -> Labeller:
        """One that costs nothing."""
        section = self._recipe.label
        if section.labeller not in ASKING or section.llm is None:
            return super().labeller
        paid = make_labeller(section.labeller, client=self.client(section.llm), votes=section.votes)
        return ForecastLabeller(make_labeller(FREE_LABELLER), paid)

    @cached_property
    def reward_model(self) -> RewardModel:
        """The recipe's, asking stand-ins; nobody for a classifier, which costs no calls."""
        section = self._recipe.reward
        if section.model == "classifier" or (section.model == "auto" and section.classifier):
            return self._classifier()
        return super().reward_model

    @cached_property
    def rewrite_judges(self) -> RewriteJudges:
        """The recipe's, asking stand-ins, who find every rewrite good enough."""
        paid = super().rewrite_judges
        return RewriteJudges(
            addresses=ForecastComparer(paid.addresses) if paid.addresses else None,
            not_worse=ForecastComparer(paid.not_worse) if paid.not_worse else None,
            reward_model=self._classifier() if isinstance(paid.reward_model, ClassifierReward) else paid.reward_model,
        )

    def _classifier(self) -> ForecastReward:
        return ForecastReward(self._recipe.reward.classifier or "", self.scored, self._counter)

    def check_pair_sources(self) -> None:
        """Nothing: what a recipe names need not be here yet."""

    @cached_property
    def persona_builder(self) -> PersonaBuilder:
        """One that costs nothing."""
        built = super().persona_builder
        if not isinstance(built, LLMPersonaBuilder):
            return built
        return ForecastPersonaBuilder(built, max_statements=self._recipe.personas.max_statements)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the remarks of live code on answers that nobody gave."""
    noisy = logging.getLogger("rlhi.persona")
    level = noisy.level
    noisy.setLevel(logging.WARNING)
    try:
        yield
    finally:
        noisy.setLevel(level)


def _answers(logs: str | Path) -> list[str]:
    """Answers of the log's assistant, a sample that does not depend on their order alone; never empty."""
    draw = random.Random(0)
    kept: list[str] = []
    seen = 0
    for item in log_source(logs).conversations():
        if not isinstance(item, Conversation):
            continue
        for message in item.messages:
            if message.role != "assistant" or not message.content.strip():
                continue
            seen += 1
            # Reservoir sampling (Vitter 1985, algorithm R).
            if len(kept) < _ANSWERS:
                kept.append(message.content)
            elif (place := draw.randrange(seen)) < _ANSWERS:
                kept[place] = message.content
    return kept or ["There is no answer in this log."]


def _history(conversations: Sequence[Conversation]) -> dict[str, int]:
    """Users of whom something is known before their last conversation, and its requests."""
    by_user: dict[str, list[Conversation]] = {}
    for conversation in conversations:
        if conversation.user_id is not None and conversation.started_at is not None:
            by_user.setdefault(conversation.user_id, []).append(conversation)
    last = {user: max(theirs, key=_began) for user, theirs in by_user.items() if len(theirs) > 1}
    return {user: sum(message.role == "user" for message in found.messages) for user, found in last.items()}


def _held_out(pipeline: Pipeline) -> dict[str, int]:
    """Users who are evaluated on, and the requests that are for that."""
    entries = pipeline.run_dir.read(SPLIT, SplitEntry)
    evaluated = {entry.conversation_id for entry in entries if entry.part is SplitPart.EVALUATION}
    found: Counter[str] = Counter()
    for conversation in pipeline.run_dir.read(HELD_OUT, Conversation):
        if conversation.conversation_id in evaluated and conversation.user_id is not None:
            found[conversation.user_id] += sum(message.role == "user" for message in conversation.messages)
    return dict(found)


def _began(conversation: Conversation) -> float:
    return conversation.started_at.timestamp() if conversation.started_at else 0.0
