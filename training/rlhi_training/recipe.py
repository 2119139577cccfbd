"""One recipe model: it is the TOML file, the environment, the command line and the documentation of every option.

A recipe is a TOML file with one table per stage. Values come, later ones winning, from the defaults here, the file,
environment variables ``RLHI_TRAIN__LEARNING_RATE=1e-4`` and ``--set train.learning_rate=1e-4``. Each default names its
source: the paper (arXiv 2509.25137), another paper, or "ours".
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlhi_plugin.errors import ConfigError


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ModelSection(_Section):
    """The policy: what is adapted, and what writes candidates and rewrites unless told otherwise."""

    base: str = "smollm2-135m-instruct"
    """``smollm2-135m-instruct`` (embedded), a hub id, or a local folder. Ours; the paper uses Llama-3.1-8B-Instruct."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 where the hardware computes in it, else float32. Ours."""
    max_new_tokens: int = Field(default=96, ge=8, le=8192)
    """Cap on a generated answer; an answer that reaches it is never used as chosen. Ours."""
    temperature: float = Field(default=0.8, ge=0.0, le=2.0)
    """Sampling temperature of candidates. Ours; arXiv 2506.21495 samples at 1.0."""


class IngestSection(_Section):
    """Which conversations are used at all."""

    max_conversations: int | None = Field(default=None, ge=1)
    """Stop after so many usable conversations, in file order. None: all. Ours."""
    max_context_chars: int = Field(default=8000, ge=100)
    """A turn whose context is longer is trimmed by whole turns from the front. Ours."""
    drop_toxic: bool = True
    """Leave out what the log's own moderation flagged: users also reward unsafe answers (arXiv 2507.23158)."""


class LabelSection(_Section):
    """What reads the follow-ups."""

    labeller: str = "embedded"
    """``fast`` (words and cues), ``encoder`` (fine-tuned MiniLM), ``embedded`` (the better of these two), ``llm`` (any
    LiteLLM model; the paper uses GPT-4o), ``cascade`` (fast, encoder, and `llm` if named), or another package's."""
    llm: str | None = None
    """LiteLLM model id for ``labeller = "llm"`` and ``"cascade"``."""
    votes: int = Field(default=1, ge=1, le=15)
    """How often that model is asked about each follow-up (ours)."""


class PersonasSection(_Section):
    """How a user's history becomes a persona. The paper has an LLM summarise it."""

    enabled: bool = True
    builder: Literal["extractive", "llm"] = "extractive"
    """``extractive`` quotes the user's own feedback (ours); ``llm`` is the paper's."""
    llm: str | None = None
    """LiteLLM model id for ``builder = "llm"``."""
    max_statements: int = Field(default=6, ge=1, le=20)
    """Statements per persona, best supported first. Ours."""


class RewriteSection(_Section):
    """User-Guided Rewrites (the paper's UGR): turns whose follow-up carries feedback."""

    enabled: bool = True
    llm: str | None = None
    """LiteLLM model id that rewrites; None: the policy itself."""
    samples_seeing_reply: int = Field(default=3, ge=0, le=32)
    """Rewrites per turn that see the old reply and the follow-up, as in the paper. Count: ours."""
    samples_blind: int = Field(default=3, ge=0, le=32)
    """Rewrites per turn that see only the follow-up. Ours: both kinds together answered more complaints."""
    max_prompt_chars: int = Field(default=16000, ge=100)
    """Cap on context, old reply and follow-up together. A reply that does not fit is not shown; a turn that does not
    fit without it is dropped with a reason. Ours."""
    max_turns: int | None = Field(default=None, ge=1)
    """Rewrite at most so many turns: those of users with a persona first, then in file order. None: all. Ours."""


class RewardSection(_Section):
    """User-Based Rewards (the paper's UBR): turns without feedback."""

    enabled: bool = True
    samples: int = Field(default=4, ge=2, le=64)
    """Answers sampled per request. arXiv 2506.21495 uses 8."""
    persona: bool = True
    """False is the paper's user-agnostic ablation; it needs `llm`, since nothing else can score without a persona."""
    llm: str | None = None
    """LiteLLM model id that scores candidates; None: count which of the user's checkable wishes are kept (ours). The
    paper uses a reward model with the persona as text."""
    max_turns: int | None = Field(default=None, ge=1)
    """Sample for at most so many turns, in file order. None: all. Ours."""


class ContrastSection(_Section):
    """Persona contrast (ours): one request's candidates ranked under several users' personas, pairs where it turns."""

    enabled: bool = True
    cross_user: bool = True
    """False: never put one user's request under another user's persona; no contrast pairs are then made."""
    plain_samples: int = Field(default=1, ge=0, le=32)
    """Candidates per request written without guidance. Ours."""
    guided_samples: int = Field(default=2, ge=0, le=32)
    """Candidates per request and per persona, written under the properties that the persona asks for. Ours."""
    guidance: Literal["instructions", "demonstrations"] = "instructions"
    """How a guided candidate is obtained: by each check's instruction, or by a few earlier turns that show the
    properties, which also works with models too small to follow instructions. Ours."""
    other_personas: Literal["as_of", "latest"] = "as_of"
    """Personas of other users: as of the moment before the request, or (more of them) the latest one. The author's own
    persona never holds anything later than the request. Ours."""
    min_users_per_property: int = Field(default=2, ge=1)
    """A property only fewer users asked for stays out of the pool: it could point to one person."""
    personas_per_request: int = Field(default=4, ge=1, le=64)
    """Personas that one request is ranked under."""
    max_length_ratio: float = Field(default=1.35, ge=1.0)
    """Longer over shorter answer, in words, unless length itself was asked for."""
    neutral_share: float = Field(default=0.15, ge=0.0, le=1.0)
    """Share of extra pairs without persona in which the plain answer wins, so that the model learns when not to."""
    max_requests: int | None = Field(default=None, ge=1)
    """Build pools for at most so many requests. None: all."""


class FilterSection(_Section):
    """What a pair must survive. The paper calls quality filtering essential; the predicates are ours."""

    max_pairs_per_user_share: float = Field(default=0.2, gt=0.0, le=1.0)
    """No user contributes more than this share of all pairs (ours: a few poisoned pairs can turn a model)."""
    max_repeated_share: float = Field(default=0.2, ge=0.0, le=1.0)
    """Share of repeated 4-grams above which a chosen answer is dropped."""
    min_chosen_words: int = Field(default=5, ge=1)
    """Fewer words than this are no answer, unless a short one was asked for."""
    min_similarity_gain: float = Field(default=0.02, ge=-1.0, le=1.0)
    """Where feedback names nothing that code can check: how much closer (cosine of sentence embeddings) the rewrite
    must be to the feedback than the original was. Ours, and weak: see the training README."""
    require_persona: bool = False
    """Keep only pairs with a persona in the prompt (and the neutral ones of persona contrast): a pair without one
    teaches every user what a single user asked for. Ours."""
    max_pairs: int | None = Field(default=None, ge=1)
    """Keep at most so many pairs, drawn evenly over users and sources. None: all."""


class TrainSection(_Section):
    """Persona-conditioned DPO of a LoRA adapter on TRL."""

    loss: tuple[str, ...] = ("sigmoid", "sft")
    """TRL loss types. The paper: DPO (``sigmoid``); the SFT term is ours and keeps answers from collapsing."""
    loss_weights: tuple[float, ...] = (1.0, 0.2)
    beta: float = Field(default=0.1, gt=0.0)
    """arXiv 2506.21495 uses 0.01 with full fine-tuning; 0.1 is TRL's default and ours for LoRA."""
    learning_rate: float = Field(default=3e-4, gt=0.0)
    """Ours, for a 135M model with LoRA; arXiv 2506.21495 uses 1e-6 on all weights of an 8B model."""
    epochs: float = Field(default=2.0, gt=0.0)
    batch_size: int = Field(default=8, ge=1)
    """Pairs per optimiser step. arXiv 2506.21495 uses 32."""
    micro_batch_size: int = Field(default=8, ge=1)
    """Pairs per forward pass; must divide `batch_size`."""
    warmup_steps: int = Field(default=5, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    """arXiv 2506.21495 clips at 0.1."""
    lora_rank: int = Field(default=16, ge=1)
    lora_alpha: int = Field(default=32, ge=1)
    lora_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    target_modules: str | tuple[str, ...] = "all-linear"
    max_length: int = Field(default=2048, ge=64)
    """Tokens of prompt plus answer; a longer pair is dropped with a reason, never cut."""
    share_prefixes: bool = True
    """Compute what the sequences of a batch have in common once (exact; see rlhi_training.tree)."""
    seed: int = 0


class Recipe(_Section):
    """A whole run."""

    name: str
    summary: str
    """One line for ``rlhi-train recipes``."""
    seed: int = 0
    model: ModelSection = ModelSection()
    ingest: IngestSection = IngestSection()
    label: LabelSection = LabelSection()
    personas: PersonasSection = PersonasSection()
    rewrite: RewriteSection = RewriteSection()
    reward: RewardSection = RewardSection()
    contrast: ContrastSection = ContrastSection()
    filter: FilterSection = FilterSection()
    train: TrainSection = TrainSection()


def shipped_recipes() -> dict[str, Recipe]:
    """The recipes that come with the package, by name, sorted."""
    folder = files("rlhi_training") / "recipes"
    names = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return {
        name: _validate(tomllib.loads((folder / f"{name}.toml").read_text("utf-8")), f"{name}.toml") for name in names
    }


def load_recipe(
    name_or_path: str, *, overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Recipe:
    """Load a shipped recipe by name, or a TOML file by path, and apply environment and overrides.

    Args:
        name_or_path: ``smoke_cpu`` or ``my_recipe.toml``.
        overrides: ``section.key=value`` strings; the value is read as TOML, or else taken as text.
        environ: Defaults to the process environment; reads ``RLHI_<SECTION>__<KEY>``.

    Raises:
        ConfigError: no such recipe, not TOML, or a key or value that the model does not allow.
    """
    path = Path(name_or_path)
    shipped = files("rlhi_training") / "recipes" / f"{name_or_path}.toml"
    try:
        if path.suffix == ".toml":
            text = path.read_text("utf-8")
        elif shipped.is_file():
            text = shipped.read_text("utf-8")
        else:
            known = ", ".join(shipped_recipes())
            raise ConfigError(f"no recipe named {name_or_path!r}. Shipped: {known}; or give the path of a .toml file.")
        data = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {path}: {error.strerror}. Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    for key, value in sorted((os.environ if environ is None else environ).items()):
        if key.startswith("RLHI_") and "__" in key:
            section, _, option = key.removeprefix("RLHI_").lower().partition("__")
            _assign(data, [section, option], value, origin=key)
    _apply(data, overrides)
    return _validate(data, name_or_path)


def override_recipe(data: Mapping[str, Any], overrides: Sequence[str]) -> Recipe:
    """A recipe as a manifest holds it, with ``section.key=value`` strings applied.

    Raises:
        ConfigError: an override is malformed, or the result is no valid recipe.
    """
    changed: dict[str, Any] = json.loads(json.dumps(data))
    _apply(changed, overrides)
    return _validate(changed, "the recipe of this run")


def _apply(data: dict[str, Any], overrides: Sequence[str]) -> None:
    for override in overrides:
        dotted, separator, value = override.partition("=")
        if not separator:
            raise ConfigError(f"--set {override!r}: write it as section.key=value, e.g. train.epochs=1")
        _assign(data, dotted.strip().split("."), value, origin=f"--set {override}")


def _assign(data: dict[str, Any], keys: list[str], value: str, *, origin: str) -> None:
    """Set one dotted key. The value is TOML where it parses as such, else a string."""
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    target = data
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise ConfigError(f"{origin}: {key!r} is not a section of the recipe")
    target[keys[-1]] = parsed


def _validate(data: dict[str, Any], origin: str) -> Recipe:
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
        raise ConfigError("\n".join([f"{origin} is not a valid recipe:", *lines, "See: rlhi-train recipes"])) from error
