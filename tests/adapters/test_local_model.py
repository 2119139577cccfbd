"""Generation in process: reproducible, stopped where it should stop, with adapters switched on and off."""

from pathlib import Path

import pytest
import torch
from langchain.agents import create_agent

from rlhi_adapters.base_models import BaseModel
from rlhi_adapters.decoding import MIN_SHARED_PREFIX, DecodeRow, decode
from rlhi_adapters.langchain_model import LocalChatModel
from rlhi_adapters.loading import load_causal_lm, load_tokenizer, quiet
from rlhi_adapters.local_model import GenerationOptions, LocalModel
from rlhi_adapters.registry import AdapterRegistry, describe_adapter
from rlhi_adapters.templates import encode
from rlhi_plugin import RLHIMiddleware
from rlhi_plugin.errors import ArtefactError, ConfigError, ModelCallError
from rlhi_plugin.records import ChatMessage

PROMPTS = [
    (ChatMessage(role="user", content=text))
    for text in ("Tell me about tea", "How do I keep basil alive indoors, and in winter?", "Hi", "What is rice?")
]


def make_adapter(base: Path, target: Path, seed: int) -> Path:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    with quiet():
        model = get_peft_model(load_causal_lm(base, dtype="float32"), LoraConfig(r=2, init_lora_weights=False))
        model.save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def adapters(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {name: make_adapter(tiny_model_dir, folder / name, seed) for seed, name in enumerate(("first", "second"))}


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path, adapters: dict[str, Path]) -> LocalModel:
    return LocalModel.load(str(tiny_model_dir), adapters=adapters, dtype="float32", device="cpu")


def test_greedy_decoding_equals_transformers_generate(tiny_model_dir: Path) -> None:
    """Batched with padding, finished rows removed, against one row at a time."""
    lm, tokenizer = load_causal_lm(tiny_model_dir, dtype="float32"), load_tokenizer(tiny_model_dir)
    rows = [
        DecodeRow(tuple(encode(tokenizer, [prompt], add_generation_prompt=True)), 5 + 7 * i, 0.0, 50, 0)
        for i, prompt in enumerate(PROMPTS)
    ]
    finished = []
    results = decode(lm, rows, stop_tokens={tokenizer.eos_token_id}, pad_token=0, on_finished=finished.append)
    for row, result in zip(rows, results, strict=True):
        ids = torch.tensor([row.prompt])
        with quiet():
            whole = lm.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=row.max_new_tokens, do_sample=False
            )
        expected = whole[0, len(row.prompt) :].tolist()
        stopped = expected[-1] == tokenizer.eos_token_id
        assert result.tokens == expected[: len(expected) - stopped]
        assert result.stopped == stopped
    assert sum(finished) == len(rows)


def test_a_common_beginning_is_read_once_and_changes_no_answer(tiny_model_dir: Path) -> None:
    lm, tokenizer = load_causal_lm(tiny_model_dir, dtype="float32"), load_tokenizer(tiny_model_dir)
    shown = [ChatMessage(role="user", content="tell me about tea " * 20), ChatMessage(role="assistant", content="tea")]
    prompts = [tuple(encode(tokenizer, [*shown, prompt], add_generation_prompt=True)) for prompt in PROMPTS]
    rows = [DecodeRow(prompt, 8, 0.0, 50, 0) for prompt in [*prompts, prompts[0]]]
    stop = {tokenizer.eos_token_id}
    alone = [decode(lm, [row], stop_tokens=stop, pad_token=0)[0] for row in rows]
    read: list[int] = []
    hook = lm.register_forward_pre_hook(
        lambda _module, _args, given: read.append(given["input_ids"].numel()), with_kwargs=True
    )
    together = decode(lm, rows, stop_tokens=stop, pad_token=0)
    hook.remove()
    assert together == alone
    assert read[0] >= MIN_SHARED_PREFIX
    assert sum(read[:2]) < sum(map(len, prompts))


def test_a_stop_token_ends_a_row_and_only_that_row(tiny_model_dir: Path) -> None:
    lm = load_causal_lm(tiny_model_dir, dtype="float32")
    rows = [DecodeRow((5, 6, 7 + i), 12, 1.0, 50, i) for i in range(6)]
    free = decode(lm, rows, stop_tokens=set(), pad_token=0)
    assert all(len(row.tokens) == 12 and not row.stopped for row in free)
    stop = free[2].tokens[4]
    for before, after in zip(free, decode(lm, rows, stop_tokens={stop}, pad_token=0), strict=True):
        cut = before.tokens.index(stop) if stop in before.tokens else 12
        assert after.tokens == before.tokens[:cut]
        assert after.stopped == (cut < 12)


def test_sampling_depends_on_the_seed_and_not_on_the_batch(model: LocalModel) -> None:
    prompts = [[prompt] for prompt in PROMPTS]
    options = GenerationOptions(max_new_tokens=12, temperature=1.0, seeds=(3, 4, 5, 6))
    together = model.generate(prompts, options)
    assert together == model.generate(prompts, options)
    alone = [
        model.generate([prompt], GenerationOptions(max_new_tokens=12, temperature=1.0, seeds=(seed,)))[0]
        for prompt, seed in zip(prompts, (3, 4, 5, 6), strict=True)
    ]
    assert together == alone
    split = model.generate(prompts, GenerationOptions(12, 1.0, seeds=(3, 4, 5, 6), batch_size=1))
    assert split == together
    repeated = model.generate([prompts[0]] * 8, GenerationOptions(max_new_tokens=12, temperature=1.0))
    assert len({reply.text for reply in repeated}) > 4


def test_a_capped_answer_says_length(model: LocalModel) -> None:
    reply = model.generate([[PROMPTS[0]]], GenerationOptions(max_new_tokens=3, temperature=1.0, seeds=(1,)))[0]
    assert reply.finish_reason == "length"
    assert reply.completion_tokens == 3
    assert reply.prompt_tokens > 10


def test_top_1_is_greedy(model: LocalModel) -> None:
    prompts = [[prompt] for prompt in PROMPTS]
    greedy = model.generate(prompts, GenerationOptions(max_new_tokens=8))
    assert model.generate(prompts, GenerationOptions(max_new_tokens=8, temperature=2.0, top_k=1)) == greedy


def test_adapters_switch_on_and_off_over_one_base(model: LocalModel, adapters: dict[str, Path]) -> None:
    assert model.adapters == tuple(adapters)
    prompts = [[prompt] for prompt in PROMPTS]
    options = GenerationOptions(max_new_tokens=8)
    base = model.generate(prompts, options)
    first = model.generate(prompts, options, adapter="first")
    second = model.generate(prompts, options, adapter="second")
    assert len({str(base), str(first), str(second)}) == 3
    assert model.generate(prompts, options) == base
    assert model.generate(prompts, options, adapter="first") == first


def test_an_adapter_takes_the_bases_dtype_and_leaves_the_base_as_it_was(
    tiny_model_dir: Path, adapters: dict[str, Path]
) -> None:
    model = LocalModel.load(str(tiny_model_dir), adapters=adapters, dtype="bfloat16", device="cpu")
    frequencies = next(buffer for name, buffer in model._model.named_buffers() if name.endswith("inv_freq"))
    before, dtype = frequencies.clone(), frequencies.dtype
    model.generate([[PROMPTS[0]]], GenerationOptions(max_new_tokens=2), adapter="second")
    after = next(buffer for name, buffer in model._model.named_buffers() if name.endswith("inv_freq"))
    assert after.dtype == dtype == torch.float32
    assert torch.equal(before, after)
    assert {p.dtype for n, p in model._model.named_parameters() if "lora_" in n} == {torch.bfloat16}


def test_what_cannot_work_is_refused_with_a_remedy(model: LocalModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no adapter named 'third'"):
        model.generate([[PROMPTS[0]]], adapter="third")
    with pytest.raises(ConfigError, match="seeds"):
        model.generate([[PROMPTS[0]]], GenerationOptions(seeds=(1, 2)))
    with pytest.raises(ModelCallError, match="Trim the history"):
        model.generate([[ChatMessage(role="user", content="word " * 2000)]])
    with pytest.raises(ConfigError, match="taken"):
        model.add_adapter("first", tmp_path)
    with pytest.raises(ArtefactError, match="adapter_model"):
        model.add_adapter("third", tmp_path)


def test_an_adapter_of_another_base_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    adapter = make_adapter(tiny_model_dir, tmp_path / "other", 3)
    weights = adapter / "adapter_model.safetensors"
    save_file({name: torch.zeros(t.shape[0] + 1, t.shape[1] + 1) for name, t in load_file(weights).items()}, weights)
    model = LocalModel.load(str(tiny_model_dir), adapters={"other": adapter}, dtype="float32", device="cpu")
    with pytest.raises(ArtefactError, match="Use the base model that it was trained on"):
        model.generate([[PROMPTS[0]]], adapter="other")


def test_no_prompts_no_replies(model: LocalModel) -> None:
    assert model.generate([]) == []


def test_progress_counts_every_prompt(model: LocalModel) -> None:
    seen = []
    model.generate([[p] for p in PROMPTS], GenerationOptions(max_new_tokens=4, batch_size=2), on_progress=seen.append)
    assert sum(seen) == len(PROMPTS)


def test_an_answer_is_logged_with_the_adapter_that_gave_it(
    tiny_model_dir: Path, adapters: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHI_REGISTRY", str(tmp_path / "registry"))
    monkeypatch.setenv("RLHI_KEY", "0123456789abcdef")
    folder = adapters["first"]

    def logged_adapter(**options) -> str | None:
        chat = LocalChatModel.load(str(tiny_model_dir), max_tokens=2, **options)
        middleware = RLHIMiddleware(store=f"sqlite:///{tmp_path}/rlhi.db")
        agent = create_agent(chat, middleware=[middleware])
        answer = agent.invoke({"messages": [("user", "Hi")]})["messages"][-1]
        stored = [message for talk in middleware.store.conversations() for message in talk.messages][-1]
        middleware.close()
        middleware.store.close()
        assert answer.response_metadata.get("adapter_id") == stored.adapter
        return stored.adapter

    assert logged_adapter() is None
    assert logged_adapter(adapter=folder) == "first"
    record = describe_adapter(
        folder, "rewrites-1a2b3c4d", base=BaseModel("tiny-llama", tiny_model_dir, "b" * 64),
        persona_prompt_digest="f" * 64, run_manifest=tmp_path / "manifest.json",
    )  # fmt: skip
    AdapterRegistry().register(record)
    assert logged_adapter(adapter=folder) == "rewrites-1a2b3c4d"
    # A name says what is in the folder: other weights are not that adapter.
    assert logged_adapter(adapter=adapters["second"]) == "second"
    (tmp_path / "registry" / "broken.json").write_text("{", "utf-8")
    assert logged_adapter(adapter=folder) == "first"
