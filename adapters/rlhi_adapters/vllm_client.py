"""vLLM inside this process as a `ChatClient`: one GPU engine, requests batched, common prefixes computed once.

Written for vLLM 0.12 and later, where ``StructuredOutputsParams`` took the place of guided decoding
(https://docs.vllm.ai/en/latest/api/vllm/). A vLLM *server* needs none of this: ``openai:MODEL@http://host:8000/v1``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from rlhi_adapters.base_models import resolve_base
from rlhi_adapters.batching import Batcher
from rlhi_adapters.digests import adapter_digests
from rlhi_plugin.calls.replies import check_replies
from rlhi_plugin.chat import (
    FREE,
    Capabilities,
    ChatReply,
    ChatRequest,
    FinishReason,
    TokenLogprob,
    require,
)
from rlhi_plugin.errors import ConfigError, MissingExtraError

_MOST_AT_ONCE = 1_024
"""Replies handed to the engine together; it schedules them itself, so more is better until memory is full (ours)."""
_FINISH: dict[str | None, FinishReason] = {"length": "length"}
_DTYPES = ("auto", "float32", "bfloat16")

_Replies = tuple[ChatReply, ...]


class VLLMClient:
    """Answers chat requests with a vLLM engine in this process. Safe to use from many threads and event loops.

    The engine reads the folder whose weights were digested, and every reply carries the digests.

    Args:
        model: Hub id or local folder; see `rlhi_adapters.base_models.resolve_base`.
        adapter: Folder of a LoRA adapter to answer with; None is the base alone.
        dtype: ``auto``, ``float32`` or ``bfloat16``.
        max_model_len: Tokens of prompt and answer; None is the model's own limit.
        gpu_memory_utilization: Share of the GPU's memory that the engine takes, above 0, at most 1.

    Raises:
        ConfigError: an argument is out of range, or there is no such model.
        ArtefactError: the weights are no safetensors, or the adapter is not whole.
        MissingExtraError: vLLM is not installed. It brings its own torch, so give it an environment of its own.
    """

    def __init__(
        self,
        model: str,
        *,
        adapter: Path | None = None,
        dtype: str = "auto",
        max_model_len: int | None = None,
        gpu_memory_utilization: float = 0.9,
    ) -> None:
        if dtype not in _DTYPES or not 0 < gpu_memory_utilization <= 1:
            raise ConfigError(
                f"dtype={dtype!r}, gpu_memory_utilization={gpu_memory_utilization}: give one of {', '.join(_DTYPES)} "
                "and a share above 0, at most 1."
            )
        self._vllm = _import_vllm()
        base = resolve_base(model)
        self._name = base.name
        self._adapter = adapter
        self._served_by = base.pinned(None if adapter is None else adapter_digests(adapter).weights)
        self._engine = self._vllm.LLM(
            model=str(base.path),
            dtype=dtype,
            max_model_len=max_model_len,
            gpu_memory_utilization=gpu_memory_utilization,
            enable_prefix_caching=True,
            enable_lora=adapter is not None,
        )
        self._batches = Batcher[ChatRequest, _Replies](self.model, self._answer, most=_MOST_AT_ONCE)

    @property
    def model(self) -> str:
        """``base`` or ``base+adapter``."""
        return self._name + (f"+{self._adapter.name}" if self._adapter else "")

    @property
    def capabilities(self) -> Capabilities:
        """All there is; it costs no money."""
        return Capabilities(json_schema="constrained", logprobs=True, seed=True, many=True, remote=False, price=FREE)

    async def complete(self, request: ChatRequest) -> _Replies:
        """See `ChatClient.complete`. The `n` replies are one request to the engine, whose prompt is read once."""
        require(self, request)
        replies = await asyncio.wrap_future(self._batches.submit(request, weight=request.n))
        return check_replies(self.model, request, replies)

    def close(self) -> None:
        """Finish what was asked for and let the engine, and its memory, go."""
        self._batches.close()
        del self._engine

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, batch: Sequence[ChatRequest]) -> list[_Replies]:
        outputs = self._engine.chat(
            [[message.model_dump() for message in request.messages] for request in batch],
            sampling_params=[self._sampling(request) for request in batch],
            use_tqdm=False,
            lora_request=self._lora(),
        )
        return [_replies(output, request, self._served_by) for output, request in zip(outputs, batch, strict=True)]

    def _sampling(self, request: ChatRequest) -> Any:
        held = None
        if request.json_schema is not None:
            held = self._vllm.sampling_params.StructuredOutputsParams(json=request.json_schema)
        return self._vllm.SamplingParams(
            n=request.n,
            temperature=request.temperature,
            max_tokens=request.max_tokens,
            seed=request.seed,
            logprobs=request.logprobs,
            structured_outputs=held,
        )

    def _lora(self) -> Any:
        if self._adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        return LoRARequest(self._adapter.name, 1, str(self._adapter))


def _replies(output: Any, request: ChatRequest, served_by: str) -> _Replies:
    prompt_tokens = len(output.prompt_token_ids)
    return tuple(
        ChatReply(
            text=one.text.strip(),
            finish_reason=_FINISH.get(one.finish_reason, "stop"),
            prompt_tokens=0 if place else prompt_tokens,
            completion_tokens=len(one.token_ids),
            logprobs=None if one.logprobs is None else _logprobs(one, request.logprobs or 0),
            served_by=served_by,
        )
        for place, one in enumerate(output.outputs)
    )


def _logprobs(one: Any, count: int) -> tuple[TokenLogprob, ...]:
    """The engine gives, for each place, the likeliest tokens by id, and the drawn one where it is not among them."""
    found = []
    for token, choices in zip(one.token_ids, one.logprobs, strict=True):
        ranked = sorted(choices.values(), key=lambda choice: choice.logprob, reverse=True)[:count]
        drawn = choices[token]
        found.append(
            TokenLogprob(
                token=drawn.decoded_token or "",
                logprob=min(0.0, drawn.logprob),
                top=tuple((choice.decoded_token or "", choice.logprob) for choice in ranked),
            )
        )
    return tuple(found)


def _import_vllm() -> Any:
    try:
        import vllm
        import vllm.sampling_params
    except ImportError as error:
        raise MissingExtraError("vllm", "vllm") from error
    return vllm
