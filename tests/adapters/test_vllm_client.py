"""The vLLM client: what it asks of the engine, by a stand-in with vLLM's signatures; and, where there is a GPU, vLLM.

The stand-in takes exactly the arguments that vLLM 0.12 documents, and nothing else, so that a wrong name fails here.
With vLLM and a GPU:

    RLHI_VLLM_MODEL=HuggingFaceTB/SmolLM2-135M-Instruct python -m pytest -m gpu tests/adapters/test_vllm_client.py
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rlhi_adapters.base_models import resolve_base
from rlhi_adapters.digests import adapter_digests
from rlhi_adapters.opening import open_client
from rlhi_adapters.vllm_client import VLLMClient
from rlhi_plugin.chat import ChatClient, ChatRequest
from rlhi_plugin.errors import ArtefactError, ConfigError, InvalidReplyError, MissingExtraError, ModelCallError
from rlhi_plugin.records import ChatMessage

SCHEMA = {"type": "object", "properties": {"score": {"type": "integer"}}, "required": ["score"]}


@dataclass
class StructuredOutputsParams:
    json: dict[str, Any] | None = None


@dataclass
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    max_tokens: int | None = 16
    seed: int | None = None
    logprobs: int | None = None
    structured_outputs: StructuredOutputsParams | None = None


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    finish_reason: str | None
    logprobs: list[dict[int, Logprob]] | None = None


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput] = field(default_factory=list)


class LLM:
    made: list[LLM] = []  # noqa: RUF012 - one list for a test to look at

    def __init__(
        self,
        model: str,
        *,
        dtype: str = "auto",
        max_model_len: int | None = None,
        gpu_memory_utilization: float = 0.9,
        enable_prefix_caching: bool | None = None,
        enable_lora: bool = False,
    ) -> None:
        self.options = {"model": model, "dtype": dtype, "prefix": enable_prefix_caching, "lora": enable_lora}
        self.calls: list[dict[str, Any]] = []
        self.made.append(self)

    def chat(
        self,
        messages: list[list[dict[str, str]]],
        sampling_params: list[SamplingParams] | None = None,
        use_tqdm: bool = True,
        lora_request: LoRARequest | None = None,
    ) -> list[RequestOutput]:
        assert sampling_params is not None
        self.calls.append({"messages": messages, "params": sampling_params, "lora": lora_request, "tqdm": use_tqdm})
        return [self._one(said, params) for said, params in zip(messages, sampling_params, strict=True)]

    def _one(self, said: list[dict[str, str]], params: SamplingParams) -> RequestOutput:
        text = '{"score": 3}' if params.structured_outputs else f" answer to {said[-1]['content']}\n"
        if params.max_tokens == 1:
            text = "{"
        probabilities = [{7: Logprob(-0.5, 2, "a"), 8: Logprob(-0.1, 1, "b"), 9: Logprob(-3.0, 3, "c")}]
        return RequestOutput(
            [1, 2, 3],
            [
                CompletionOutput(
                    i,
                    text,
                    [7],
                    "length" if params.max_tokens == 1 else "stop",
                    probabilities if params.logprobs is not None else None,
                )
                for i in range(params.n)
            ],
        )


@pytest.fixture
def engine(monkeypatch):
    vllm = types.ModuleType("vllm")
    vllm.LLM, vllm.SamplingParams = LLM, SamplingParams
    vllm.sampling_params = types.ModuleType("vllm.sampling_params")
    vllm.sampling_params.StructuredOutputsParams = StructuredOutputsParams
    lora = types.ModuleType("vllm.lora.request")
    lora.LoRARequest = LoRARequest
    for name, module in {
        "vllm": vllm,
        "vllm.sampling_params": vllm.sampling_params,
        "vllm.lora": types.ModuleType("vllm.lora"),
        "vllm.lora.request": lora,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(LLM, "made", [])
    return LLM.made


def request(text: str = "hi", **more) -> ChatRequest:
    return ChatRequest(messages=(ChatMessage(role="user", content=text),), **{"max_tokens": 9} | more)


@pytest.fixture
def weights(tmp_path) -> Path:
    """A model's folder, as far as it is looked at before the engine reads it."""
    folder = tmp_path / "a-base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def lora(tmp_path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"more weights")
    return folder


async def test_one_request_holds_all_replies_and_batches_form(engine, weights, lora) -> None:
    with VLLMClient(str(weights), adapter=lora) as client:
        assert isinstance(client, ChatClient)
        assert client.model == "a-base+adapter"
        asked = [request("a", n=4, temperature=0.7, seed=3), request("b", logprobs=2), request("c", json_schema=SCHEMA)]
        several, one, held = await asyncio.gather(*map(client.complete, asked))
    (made,) = engine
    assert made.options == {
        "model": str(weights),
        "dtype": "auto",
        "prefix": True,
        "lora": True,
    }
    (call,) = made.calls
    assert call["messages"] == [[{"role": "user", "content": text}] for text in "abc"]
    assert call["params"] == [
        SamplingParams(n=4, temperature=0.7, max_tokens=9, seed=3),
        SamplingParams(n=1, temperature=0.0, max_tokens=9, logprobs=2),
        SamplingParams(n=1, temperature=0.0, max_tokens=9, structured_outputs=StructuredOutputsParams(SCHEMA)),
    ]
    assert call["lora"] == LoRARequest("adapter", 1, str(lora))
    assert [reply.text for reply in several] == ["answer to a"] * 4
    assert [reply.prompt_tokens for reply in several] == [3, 0, 0, 0], "the prompt is read once"
    assert one[0].logprobs[0].top == (("b", -0.1), ("a", -0.5))
    assert held[0].text == '{"score": 3}'


async def test_every_reply_carries_the_digests_of_the_weights(engine, weights, lora) -> None:
    with VLLMClient(str(weights)) as client:
        (alone,) = await client.complete(request())
    with VLLMClient(str(weights), adapter=lora) as client:
        adapted = await client.complete(request(n=2))
    digest = resolve_base(str(weights)).digest[:16]
    assert alone.served_by == f"a-base@sha256:{digest}"
    own = adapter_digests(lora).weights[:16]
    assert {reply.served_by for reply in adapted} == {f"a-base@sha256:{digest}+sha256:{own}"}
    (weights / "model.safetensors").write_bytes(b"other weights of that name")
    with VLLMClient(str(weights)) as client:
        (other,) = await client.complete(request())
    assert other.served_by.startswith("a-base@sha256:")
    assert other.served_by != alone.served_by


def test_weights_that_cannot_be_digested_are_refused(engine, weights) -> None:
    (weights / "model.safetensors").rename(weights / "pytorch_model.bin")
    with pytest.raises(ArtefactError, match=r"no \.safetensors"):
        VLLMClient(str(weights))
    with pytest.raises(ConfigError, match="no base model 'nowhere'"):
        VLLMClient("nowhere")
    assert engine == [], "nothing was loaded"


async def test_a_cut_object_and_a_closed_client_are_errors(engine, weights) -> None:
    client = open_client(f"vllm:{weights}")
    with pytest.raises(InvalidReplyError, match="cut at max_tokens"):
        await client.complete(request(json_schema=SCHEMA, max_tokens=1))
    client.close()
    with pytest.raises(ModelCallError, match="closed"):
        await client.complete(request())


def test_wrong_arguments_and_no_vllm(monkeypatch) -> None:
    with pytest.raises(ConfigError, match="a share above 0"):
        VLLMClient("m", gpu_memory_utilization=0.0)
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match=r"rlhi\[vllm\]"):
        VLLMClient("m")


@pytest.mark.gpu
async def test_a_real_engine_answers() -> None:
    pytest.importorskip("vllm")
    name = os.environ.get("RLHI_VLLM_MODEL")
    if name is None:
        pytest.skip("set RLHI_VLLM_MODEL to a small instruct model: a hub id or a folder")
    with VLLMClient(name, max_model_len=1024, gpu_memory_utilization=0.5) as client:
        asked = request("Name a colour.", n=4, temperature=1.0, seed=1, logprobs=2, max_tokens=16)
        first = await client.complete(asked)
        assert len({reply.text for reply in first}) > 1
        assert all(reply.logprobs for reply in first)
        (held,) = await client.complete(request("Rate tea.", json_schema=SCHEMA, max_tokens=40))
        assert isinstance(json.loads(held.text)["score"], int)
