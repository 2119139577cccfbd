"""What stands in for models while a run is forecast: nobody is asked, and every call is written down.

Answers are those that the log's own assistant gave, drawn by chance: the best guess at how long new ones will be. Where
JSON is asked for, it is the plainest object of the schema.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhi_plugin.calls.journal import call_digest
from rlhi_plugin.chat import Capabilities, ChatReply, ChatRequest
from rlhi_plugin.labelling import Exchange, Labeller
from rlhi_plugin.persona import ExtractivePersonaBuilder, LLMPersonaBuilder
from rlhi_plugin.records import Conversation, FollowUp, Persona
from rlhi_training.asked_for import AskedFor
from rlhi_training.plan.tokens import TokenCounter
from rlhi_training.records import Candidate, LabelledTurn
from rlhi_training.reward_models import Verdict
from rlhi_training.reward_models.comparing import Comparer, Comparison
from rlhi_training.reward_models.placement import place_persona

SHORT = 1 / 3
"""Length of an answer that was asked to be short, as a share of others: 22 words against 70 in our demo's runs."""
_WORDS_OF_A_STRING = "as long as the answers that such a place in an object holds are"


@dataclass
class Counted:
    """The calls of one stage to one model.

    Attributes:
        stage: The stage.
        model: The model.
        calls: Calls that will be sent.
        prompt_tokens: Tokens of all prompts, as often as they are paid for.
        completion_tokens: Tokens of all answers.
        longest_prompt: Tokens of the longest one.
    """

    stage: str
    model: str
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    longest_prompt: int = 0


@dataclass
class Ledger:
    """Every call of a forecast. Equal calls are one call, as they are in a run.

    Attributes:
        stage: What is being forecast: a stage, or a stage of a later round.
        rows: What was counted, by stage and model.
    """

    stage: str = ""
    rows: dict[tuple[str, str], Counted] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    def forget(self) -> None:
        """Take no later call for one that was made before."""
        self._seen.clear()

    def add(self, model: str, request: ChatRequest, *, calls: int, prompt: int, completion: int) -> None:
        """Write a call down."""
        digest = call_digest(model, request)
        if digest in self._seen:
            return
        self._seen.add(digest)
        row = self.rows.setdefault((self.stage, model), Counted(self.stage, model))
        row.calls += calls
        row.prompt_tokens += prompt
        row.completion_tokens += completion
        row.longest_prompt = max(row.longest_prompt, prompt // calls)


class ForecastClient:
    """A `ChatClient` that asks nobody.

    Args:
        model: Name of the model that it stands in for.
        offered: What that model's client offers.
        ledger: Where calls are written down.
        answers: Answers of the log's own assistant, at least one.
        counter: Counts tokens.
    """

    def __init__(
        self, model: str, offered: Capabilities, ledger: Ledger, answers: Sequence[str], counter: TokenCounter
    ) -> None:
        self._model = model
        self._offered = offered
        self._ledger = ledger
        self._answers = answers
        self._counter = counter
        self._reader = AskedFor()

    @property
    def model(self) -> str:
        """The name of the model that it stands in for."""
        return self._model

    @property
    def capabilities(self) -> Capabilities:
        """Those of the client that it stands in for."""
        return self._offered

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """See `ChatClient.complete`. The same request gets the same answers."""
        draw = random.Random(call_digest(self._model, request))
        texts = self._texts(request, draw)
        sizes = [min(self._counter.text(text), request.max_tokens) for text in texts]
        if request.json_schema is None and self._asks_for_brevity(request):
            sizes = [max(1, round(SHORT * size)) for size in sizes]
        calls = 1 if self._offered.many else request.n
        prompt = calls * self._counter.prompt(request.messages)
        self._ledger.add(self._model, request, calls=calls, prompt=prompt, completion=sum(sizes))
        return tuple(
            ChatReply(text=_cut(text, size, self._counter.text(text)), completion_tokens=size)
            for text, size in zip(texts, sizes, strict=True)
        )

    def _asks_for_brevity(self, request: ChatRequest) -> bool:
        said = [m.content for m in request.messages if m.role == "system"] + [request.messages[-1].content]
        return any("short" in wishes for wishes in self._reader.read_all(said))

    def _texts(self, request: ChatRequest, draw: random.Random) -> list[str]:
        """As many as are asked for; different ones where the log has so many."""
        if request.json_schema is not None:
            return [json.dumps(example_of(request.json_schema, request.json_schema))] * request.n
        if request.n <= len(self._answers):
            return draw.sample(self._answers, request.n)
        return draw.choices(self._answers, k=request.n)


def _cut(text: str, size: int, whole: int) -> str:
    """About the first `size` tokens of a text of `whole`."""
    return text if size >= whole else text[: max(1, len(text) * size // whole)]


def example_of(schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """The plainest value of a JSON schema of the kind that pydantic writes.

    Strings have a dozen words, and objects in lists come in twos.
    """
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        return example_of(schema["anyOf"][0], root)
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        return {name: example_of(part, root) for name, part in schema.get("properties", {}).items()}
    if schema.get("type") == "array":
        item = example_of(schema["items"], root)
        return [item] * max(2 if isinstance(item, dict) else 1, schema.get("minItems", 1))
    return {"integer": schema.get("minimum", 0), "number": schema.get("minimum", 0), "boolean": True}.get(
        schema.get("type", "string"), _WORDS_OF_A_STRING
    )


class ForecastLabeller:
    """Labels with a labeller that costs nothing, and counts what the one that costs would be asked.

    Args:
        free: Labels.
        paid: Asked for the count only.
    """

    def __init__(self, free: Labeller, paid: Labeller) -> None:
        self._free = free
        self._paid = paid

    @property
    def name(self) -> str:
        """That of the labeller that costs."""
        return self._paid.name

    async def label(self, exchanges: Sequence[Exchange]) -> list[FollowUp]:
        """See `Labeller.label`."""
        await self._paid.label(exchanges)
        return await self._free.label(exchanges)


class ForecastPersonaBuilder:
    """Quotes, and counts what a model would be asked.

    Args:
        paid: Asked for the count only.
        max_statements: Statements of a persona.
    """

    def __init__(self, paid: LLMPersonaBuilder, *, max_statements: int) -> None:
        self._paid = paid
        self._free = ExtractivePersonaBuilder(max_statements=max_statements)

    @property
    def name(self) -> str:
        """That of the builder that costs."""
        return self._paid.name

    async def build(
        self, user_id: str, conversations: Sequence[Conversation], follow_ups: Sequence[FollowUp]
    ) -> Persona:
        """See `PersonaBuilder.build`."""
        await self._paid.build(user_id, conversations, follow_ups)
        return await self._free.build(user_id, conversations, follow_ups)


@dataclass
class Scored:
    """What a trained reward model would read.

    Attributes:
        answers: Answers, each as often as it is scored under another persona.
        tokens: Tokens, what the answers to a request have in common counted once.
    """

    answers: int = 0
    tokens: int = 0


class ForecastReward:
    """In place of a trained reward model, which costs no calls: a score by chance, the same for the same answer.

    Args:
        path: Of the reward model.
        scored: Where what it would read is written down.
        counter: Counts tokens.
    """

    def __init__(self, path: str, scored: Scored, counter: TokenCounter) -> None:
        self._path = path
        self._scored = scored
        self._counter = counter

    @property
    def name(self) -> str:
        """That of the reward model."""
        return f"classifier/{self._path}"

    def unscorable(self, persona: Persona | None) -> str | None:  # noqa: ARG002 - part of the protocol
        """Nothing: a reward model scores without a persona too."""
        return None

    async def score(
        self, turn: LabelledTurn, candidates: Sequence[Candidate], persona: Persona | None
    ) -> list[Verdict]:
        """See `RewardModel.score`."""
        self._scored.answers += len(candidates)
        self._scored.tokens += self._counter.prompt(place_persona(turn.context, persona, "system"))
        self._scored.tokens += sum(self._counter.text(candidate.text) for candidate in candidates)
        return [Verdict(random.Random(f"{turn.key}\0{candidate.text}").random()) for candidate in candidates]

    @property
    def seen(self) -> Mapping[str, int]:
        """Nothing."""
        return {}

    def notes(self, seen: Mapping[str, int]) -> dict[str, Any]:  # noqa: ARG002 - part of the protocol
        """Nothing."""
        return {}


class ForecastComparer(Comparer):
    """Counts what a judge of two answers would be asked, and takes the first for the better one.

    Args:
        paid: Asked for the count only.
    """

    def __init__(self, paid: Comparer) -> None:
        self._paid = paid

    @property
    def seen(self) -> Mapping[str, int]:
        """See `Comparer.seen`."""
        return self._paid.seen

    async def compare(self, first: str, second: str, **places: str) -> Comparison:
        """See `Comparer.compare`."""
        await self._paid.compare(first, second, **places)
        return Comparison("first")


class NoEncoder:
    """An encoder for choices that a forecast does not depend on: everything is as near as anything else."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[texts, 1] ones."""
        return np.ones((len(texts), 1), dtype=np.float32)
