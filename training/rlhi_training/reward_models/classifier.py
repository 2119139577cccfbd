"""A trained reward model that reads the persona as text: what the paper (arXiv 2509.25137) scores candidates with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from rlhi_adapters.base_models import resolve_base
from rlhi_adapters.loading import DType, load_tokenizer
from rlhi_plugin.calls.per_loop import PerLoop
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import Persona
from rlhi_training.records import Candidate, LabelledTurn
from rlhi_training.reward_models.placement import Messages, PersonaAs, place_persona, without_system
from rlhi_training.reward_models.protocol import Verdict

if TYPE_CHECKING:
    from rlhi_training.reward_models.classifier_model import ClassifierModel, Row

logger = logging.getLogger("rlhi.training")

_BATCH = 8
"""Rows that a model of unknown form reads side by side."""
_TOLERANCE = {"float32": 1e-3}
_HALF_TOLERANCE = 0.2
"""Difference of two scores of the same row that rounding explains; a wrong mask gives more (ours)."""


@dataclass(frozen=True)
class ClassifierOptions:
    """How a trained reward model is used."""

    path: str
    """Folder or hub id."""
    persona_as: PersonaAs = "system"
    no_system_role: Literal["error", "user_prefix"] = "error"
    """What to do where the model's template takes no system message."""
    label: str | None = None
    """Class that is good, for a model with several."""
    max_tokens: int = 4096
    """A longer row is unscored, never cut. Athene-RM-8B's card cuts there."""
    share_prefixes: bool = True
    dtype: DType = "auto"


class ClassifierReward:
    """Scores with a sequence classifier, loaded at its first use. See `classifier_model` for the conventions."""

    def __init__(self, options: ClassifierOptions) -> None:
        self._options = options
        self._lock = PerLoop(asyncio.Lock)
        self._tokens_in = 0
        self._tokens_computed = 0
        self._unshared: str | None = None if options.share_prefixes else "reward.share_prefixes is off"
        self._verified = False

    @property
    def name(self) -> str:
        """Folder or hub id, and where the persona stands."""
        return f"classifier/{self._options.path}/{self._options.persona_as}"

    def unscorable(self, persona: Persona | None) -> str | None:  # noqa: ARG002 - part of the protocol
        """Nothing: a reward model scores without a persona too."""
        return None

    async def score(
        self, turn: LabelledTurn, candidates: Sequence[Candidate], persona: Persona | None
    ) -> list[Verdict]:
        """The model's own scale; ``too_long`` and ``not_finite`` are unscored.

        Raises:
            ConfigError: the template takes no system message, and `ClassifierOptions.no_system_role` is ``error``.
        """
        messages = place_persona(turn.context, persona, self._options.persona_as)
        return await self.score_answers(messages, [candidate.text for candidate in candidates])

    async def score_answers(self, messages: Messages, answers: Sequence[str]) -> list[Verdict]:
        """Verdicts on answers to one conversation, in order."""
        async with self._lock.get():
            return await asyncio.to_thread(self._score, messages, answers)

    @property
    def seen(self) -> Mapping[str, int]:
        """Tokens of all rows, and those that were computed."""
        return {"tokens_in": self._tokens_in, "tokens_computed": self._tokens_computed}

    def notes(self, seen: Mapping[str, int]) -> dict[str, Any]:
        """Share of tokens that sharing saved, and why nothing was shared where nothing was."""
        if not seen.get("tokens_in"):
            return {}
        saved = 1.0 - seen.get("tokens_computed", 0) / seen["tokens_in"]
        return {"tokens_shared": round(saved, 4), "not_shared_because": self._unshared}

    def check(self) -> None:
        """Make sure, without loading the weights, that there is such a model and that it can read a persona.

        Raises:
            UserError: there is none.
            ConfigError: its template takes no system message, and `ClassifierOptions.no_system_role` is ``error``.
        """
        tokenizer = load_tokenizer(resolve_base(self._options.path).path)
        if self._options.persona_as == "system" and self._options.no_system_role == "error":
            refusal = _system_refused(tokenizer, self._options.path)
            if refusal is not None:
                raise _no_system(refusal)

    def release(self) -> None:
        """Let the model go."""
        self.__dict__.pop("_model", None)

    @cached_property
    def _model(self) -> ClassifierModel:
        from rlhi_training.reward_models.classifier_model import load_classifier

        logger.info("loading %s", self._options.path)
        folder = resolve_base(self._options.path).path
        model = load_classifier(folder, dtype=self._options.dtype, label=self._options.label)
        if self._unshared is None:
            from rlhi_training.reward_models.shared_prefix import cannot_share

            other = "its attention is not known to be causal" if model.convention == "other" else None
            self._unshared = other or cannot_share(model.model, model.backbone)
            if self._unshared:
                logger.warning("%s: prefixes are not shared: %s", self._options.path, self._unshared)
        return model

    def _score(self, messages: Messages, answers: Sequence[str]) -> list[Verdict]:
        import torch

        model = self._model
        shown = self._for_template(messages)
        rows = [model.encode(shown, answer) for answer in answers]
        fitting = [i for i, row in enumerate(rows) if len(row.ids) <= self._options.max_tokens]
        verdicts = [Verdict(None, "too_long")] * len(answers)
        if fitting:
            with torch.inference_mode():
                scores = self._scores(model, [rows[i] for i in fitting])
            for i, value in zip(fitting, scores, strict=True):
                verdicts[i] = Verdict.of(value)
        return verdicts

    def _scores(self, model: ClassifierModel, rows: list[Row]) -> list[float]:
        from rlhi_training.reward_models.shared_prefix import shared_states

        ids = [row.ids for row in rows]
        self._tokens_in += sum(map(len, ids))
        if self._unshared is None and len(rows) > 1:
            states, computed = shared_states(model.backbone, ids, [model.place(row) for row in ids])
            scores: list[float] = model.head(states).float().tolist()
            if self._agrees(model, rows, scores):
                self._tokens_computed += computed
                return scores
        self._tokens_computed += sum(map(len, ids))
        return unshared_scores(model, rows)

    def _agrees(self, model: ClassifierModel, rows: list[Row], scores: list[float]) -> bool:
        """Whether two rows read alone score the same; asked once, of the first rows that are shared."""
        if not self._verified:
            alone = unshared_scores(model, rows[:2])
            limit = _TOLERANCE.get(str(model.model.dtype).removeprefix("torch."), _HALF_TOLERANCE)
            worst = max(abs(a - b) for a, b in zip(alone, scores, strict=False))
            # Not `worst > limit`: a NaN on both sides is no disagreement, and gets its own reason later.
            if worst >= limit:
                self._unshared = f"shared and unshared scores differ by {worst:.3g}"
                logger.warning("%s: prefixes are not shared: %s", self._options.path, self._unshared)
            self._verified = True
        return self._unshared is None

    def _for_template(self, messages: Messages) -> Messages:
        """The messages as the template takes them."""
        refusal = self._refusal if any(m.role == "system" for m in messages) else None
        if refusal is None:
            return messages
        if self._options.no_system_role == "user_prefix":
            return without_system(messages)
        raise _no_system(refusal)

    @cached_property
    def _refusal(self) -> str | None:
        return _system_refused(self._model.tokenizer, self._options.path)


def _system_refused(tokenizer: Any, name: str) -> str | None:
    """Why a template cannot render a system message; None where it can, or where there is no template."""
    from rlhi_adapters.templates import require_system_role

    if not tokenizer.chat_template:
        return None
    try:
        require_system_role(tokenizer, name)
    except ConfigError as error:
        return str(error)
    return None


def _no_system(refusal: str) -> ConfigError:
    return ConfigError(
        f"the reward model cannot read a persona as a system message: {refusal} Or put it before the request:"
        " --set reward.no_system_role=user_prefix"
    )


def unshared_scores(model: ClassifierModel, rows: list[Row]) -> list[float]:
    """Each row read alone, beside others of like length."""
    from rlhi_training.reward_models.shared_prefix import row_states

    if model.convention == "other":
        return [score for start in range(0, len(rows), _BATCH) for score in model.read(rows[start : start + _BATCH])]
    ids = [row.ids for row in rows]
    states = row_states(model.backbone, ids, [model.place(row) for row in ids], model.pad)
    scores: list[float] = model.head(states).float().tolist()
    return scores
