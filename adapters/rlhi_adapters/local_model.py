"""A causal language model in this process; LoRA adapters are switched on and off over one set of base weights."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rlhi_adapters.base_models import BaseModel, OnStatus, resolve_base
from rlhi_adapters.digests import adapter_digests
from rlhi_adapters.loading import Device, DType, load_causal_lm, load_tokenizer, quiet
from rlhi_adapters.templates import encode
from rlhi_plugin import terminal
from rlhi_plugin.chat import ChatReply, TokenLogprob
from rlhi_plugin.errors import ArtefactError, ConfigError, ModelCallError
from rlhi_plugin.records import ChatMessage

if TYPE_CHECKING:
    from rlhi_adapters.decoding import DecodedRow, DecodeRow

# Turn ends of the common chat templates, for models whose configuration names only the end of the text.
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>")


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How a list of prompts is answered."""

    max_new_tokens: int = 96
    """At least 1."""
    temperature: float = 0.0
    """0 is greedy; else at most 2."""
    top_k: int = 50
    """Sample among so many of the likeliest tokens, at least 1."""
    seeds: tuple[int, ...] = ()
    """One a prompt; empty is 0, 1, 2, ... The same prompt with the same seed draws the same noise."""
    batch_size: int = 48
    """Prompts generated at once. More is faster until memory or the cache of the processor is full."""


@dataclass(frozen=True, slots=True)
class GenerationJob:
    """One prompt with settings of its own."""

    messages: tuple[ChatMessage, ...]
    max_new_tokens: int
    temperature: float
    seed: int
    top_k: int = 50
    json_schema: Mapping[str, Any] | None = None
    """The answer is JSON that keeps to it, unless it is cut at `max_new_tokens`."""
    logprobs: int | None = None
    """Also give the log-probability of each token, and of so many of the likeliest in its place."""


class LocalModel:
    """A base model and its adapters. Use `load`.

    Attributes:
        base: The base model's name, folder and digest.
        tokenizer: The base's transformers tokenizer.
    """

    def __init__(self, base: BaseModel, model: Any, tokenizer: Any) -> None:
        self.base = base
        self.tokenizer = tokenizer
        self._model = model
        self._adapters: dict[str, Path] = {}
        self._digests: dict[str, str] = {}
        self._loaded: set[str] = set()
        # One set of weights with one active adapter: generation is not re-entrant.
        self._lock = threading.Lock()
        self._window = int(getattr(model.config, "max_position_embeddings", None) or 2**31)
        self._stop_tokens = _stop_tokens(model, tokenizer)

    @classmethod
    def load(
        cls,
        base: str,
        *,
        adapters: Mapping[str, Path] | None = None,
        dtype: DType = "auto",
        device: Device = "auto",
        on_status: OnStatus | None = None,
    ) -> Self:
        """Load a base model; adapters are read when they are first used.

        Args:
            base: See `rlhi_adapters.base_models.resolve_base`.
            adapters: Folders by the name to call them by.
            dtype: ``auto`` is bfloat16 where the hardware computes in it, else float32.
            device: ``auto`` is CUDA where there is one.
            on_status: Told before something that takes long.

        Raises:
            UserError: the base or an adapter cannot be found.
            ArtefactError: the base or an adapter cannot be read.
        """
        resolved = resolve_base(base, on_status=on_status)
        with terminal.waiting(f"Loading {resolved.name}"):
            weights = load_causal_lm(resolved.path, dtype=dtype, device=device)
        model = cls(resolved, weights, load_tokenizer(resolved.path))
        for name, path in (adapters or {}).items():
            model.add_adapter(name, path)
        return model

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that can be switched on, in the order in which they were added."""
        return tuple(self._adapters)

    @property
    def dtype(self) -> str:
        """``float32`` or ``bfloat16``."""
        return str(self._model.dtype).removeprefix("torch.")

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda:0``."""
        return str(self._model.device)

    def add_adapter(self, name: str, path: Path) -> None:
        """Make an adapter known by name. Its weights are read at first use.

        Raises:
            ConfigError: the name is taken or holds a dot, which PEFT does not allow.
            ArtefactError: the folder is not a LoRA adapter in safetensors.
        """
        if name in self._adapters or not name or "." in name:
            raise ConfigError(f"adapter name {name!r} is taken, empty or holds a dot. Choose another.")
        self._digests[name] = adapter_digests(path).weights
        self._adapters[name] = path

    def generate(
        self,
        prompts: Sequence[Sequence[ChatMessage]],
        options: GenerationOptions | None = None,
        *,
        adapter: str | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[ChatReply]:
        """Answer prompts, in their order.

        Args:
            prompts: Conversations that end with the message to answer.
            options: Defaults are greedy.
            adapter: Name of the adapter to switch on; None is the base alone.
            on_progress: Called with the number of prompts that have just been answered.

        Raises:
            ConfigError: an unknown adapter, seeds that do not match the prompts, or a template without these roles.
            ModelCallError: a prompt is longer than the model's window.
        """
        options = options or GenerationOptions()
        seeds = options.seeds or tuple(range(len(prompts)))
        if len(seeds) != len(prompts):
            raise ConfigError(f"{len(prompts)} prompts but {len(seeds)} seeds. Give one seed a prompt, or none.")
        jobs = [
            GenerationJob(tuple(prompt), options.max_new_tokens, options.temperature, seed, options.top_k)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        return self.run_jobs(jobs, adapter=adapter, batch_size=options.batch_size, on_progress=on_progress)

    def run_jobs(
        self,
        jobs: Sequence[GenerationJob],
        *,
        adapter: str | None = None,
        batch_size: int = 48,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[ChatReply]:
        """Answer prompts that each have settings of their own. Raises as `generate` does."""
        from rlhi_adapters.decoding import decode

        rows = [self.plan(job) for job in jobs]
        served_by = self.served_by(adapter)
        # Rows of like length pad little; with equal prompts side by side, each is read once.
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i].prompt), rows[i].prompt))
        replies: list[ChatReply | None] = [None] * len(rows)
        with self._lock, self._active(adapter) as model:
            for chunk in _evenly(order, batch_size):
                decoded = decode(
                    model,
                    [rows[i] for i in chunk],
                    stop_tokens=self._stop_tokens,
                    pad_token=self.tokenizer.pad_token_id,
                    on_finished=on_progress,
                )
                for i, result in zip(chunk, decoded, strict=True):
                    replies[i] = self._reply(rows[i], result, served_by)
        return [reply for reply in replies if reply is not None]

    def log_likelihoods(
        self, prompts: Sequence[tuple[Sequence[ChatMessage], Sequence[str]]], *, adapter: str | None = None
    ) -> list[tuple[float, ...]]:
        """How likely each of several given answers is, in nats; see `rlhi_adapters.likelihood`.

        Args:
            prompts: Conversations that end with the message to answer, each with its options, none of them empty.
            adapter: Name of the adapter to switch on; None is the base alone.

        Returns:
            For each prompt one number of at most 0 an option, in their order.

        Raises:
            ConfigError: an unknown adapter, an option without tokens, or a template without these roles.
            ModelCallError: a prompt with its longest option is longer than the model's window.
        """
        from rlhi_adapters.likelihood import option_log_likelihoods

        found = []
        with self._lock, self._active(adapter) as model:
            for messages, options in prompts:
                rows = [self.tokenizer.encode(option, add_special_tokens=False) for option in options]
                if not rows or not all(rows):
                    raise ConfigError("an option has no text. Give each option at least one word.")
                longest = max(map(len, rows))
                prompt = self.plan(GenerationJob(tuple(messages), longest, temperature=0.0, seed=0)).prompt
                found.append(option_log_likelihoods(model, prompt, rows))
        return found

    def plan(self, job: GenerationJob) -> DecodeRow:
        """Render and check one prompt without generating. Raises as `generate` does."""
        from rlhi_adapters.decoding import DecodeRow

        prompt = tuple(encode(self.tokenizer, job.messages, add_generation_prompt=True))
        if len(prompt) + job.max_new_tokens > self._window:
            raise ModelCallError(
                f"the prompt has {len(prompt)} tokens and may grow by {job.max_new_tokens}; {self.base.name} takes "
                f"{self._window}. Trim the history by whole turns, or lower max_tokens."
            )
        constraint = None
        if job.json_schema is not None:
            from rlhi_adapters.json_constraint import JSONConstraint

            constraint = JSONConstraint(self.tokenizer, job.json_schema)
        return DecodeRow(prompt, job.max_new_tokens, job.temperature, job.top_k, job.seed, constraint, job.logprobs)

    def served_by(self, adapter: str | None) -> str:
        """The weights behind an answer; see `rlhi_adapters.base_models.BaseModel.pinned`."""
        return self.base.pinned(None if adapter is None else self._digests.get(adapter, ""))

    def _reply(self, row: DecodeRow, result: DecodedRow, served_by: str) -> ChatReply:
        text = self.tokenizer.decode(result.tokens, skip_special_tokens=True).strip()
        return ChatReply(
            text=text,
            finish_reason="stop" if result.stopped else "length",
            prompt_tokens=len(row.prompt),
            completion_tokens=len(result.tokens),
            logprobs=None if row.logprobs is None else self._logprobs(result),
            served_by=served_by,
        )

    def _logprobs(self, result: DecodedRow) -> tuple[TokenLogprob, ...]:
        def text(token: int) -> str:
            return str(self.tokenizer.decode([token]))

        return tuple(
            TokenLogprob(
                token=text(token), logprob=min(0.0, own), top=tuple((text(other), value) for other, value in likeliest)
            )
            for token, (own, likeliest) in zip(result.tokens, result.logprobs, strict=True)
        )

    @contextmanager
    def _active(self, adapter: str | None) -> Iterator[Any]:
        """The model with this adapter switched on, or with none."""
        if adapter is not None and adapter not in self._adapters:
            known = ", ".join(self._adapters) or "none"
            raise ConfigError(f"no adapter named {adapter!r} is loaded (loaded: {known}). Pass it to LocalModel.load.")
        if adapter is None:
            if not self._loaded:
                yield self._model
                return
            with self._model.disable_adapter():
                yield self._model
            return
        self._read_adapter(adapter)
        self._model.set_adapter(adapter)
        yield self._model

    def _read_adapter(self, name: str) -> None:
        if name in self._loaded:
            return
        path = self._adapters[name]
        with quiet():
            from peft import PeftModel

            # Adapter weights take the base's dtype: casting each activation to float32 and back costs too much.
            options = {"autocast_adapter_dtype": False, "use_safetensors": True, "is_trainable": False}
            try:
                if self._loaded:
                    self._model.load_adapter(str(path), adapter_name=name, **options)
                else:
                    self._model = PeftModel.from_pretrained(self._model, str(path), adapter_name=name, **options)
            except (OSError, ValueError, RuntimeError, KeyError) as error:
                raise ArtefactError(
                    f"the adapter in {path} does not load onto {self.base.name}: {error}. "
                    "Use the base model that it was trained on."
                ) from error
        for parameter_name, parameter in self._model.named_parameters():
            # Not `.to(dtype)` on the whole model: it would also round the base's rotary frequencies.
            if f".{name}." in parameter_name:
                parameter.data = parameter.data.to(self._model.dtype)
        self._model.eval()
        self._loaded.add(name)


def _evenly(order: Sequence[int], batch_size: int) -> Iterator[Sequence[int]]:
    """Split into the fewest batches of at most `batch_size`, of sizes that differ by at most one."""
    batches = math.ceil(len(order) / max(1, batch_size))
    for index in range(batches):
        yield order[index * len(order) // batches : (index + 1) * len(order) // batches]


def _stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = model.generation_config.eos_token_id
    ids = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}
    vocabulary = tokenizer.get_vocab()
    ids |= {vocabulary[turn_end] for turn_end in _TURN_ENDS if turn_end in vocabulary}
    return frozenset(token for token in ids if token is not None)
