"""What a plan says of memory, against what torch holds."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_trainer import tiny_recipe

from rlhi_adapters.base_models import BaseModel, resolve_base
from rlhi_adapters.loading import load_causal_lm, quiet
from rlhi_plugin.errors import ConfigError
from rlhi_training.plan.hardware import GIB, shape_of
from rlhi_training.plan.machine import memory_gib, require_memory
from rlhi_training.plan.training_memory import Load, slowdown, training_memory, would_fit
from rlhi_training.train_options import TrainSection

LLAMA = shape_of("Llama-3.1-8B")
assert LLAMA is not None


def a_llama(folder: Path, *, hidden: int, inner: int, layers: int, vocabulary: int) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    with quiet():
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def kept_for_backward(
    folder: Path, dtype: str, monkeypatch, *, checkpointing: bool, again: bool = False, chains: bool = False
) -> float:
    """Bytes that autograd holds after a forward pass over one tree, weights left out.

    With `again`, what a processor makes again counts for nothing: its recipe refers to what is held anyway. With
    `chains`, attention is computed as it is on a processor.
    """
    from peft import LoraConfig, get_peft_model

    from rlhi_training.tree import chain_attention, rematerialise
    from rlhi_training.tree.forward import _hidden_states
    from rlhi_training.tree.prefix_tree import plant

    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load_causal_lm(folder, dtype=dtype, device="cpu"), lora).train()
    if chains:
        chain_attention.register()
        model.get_base_model().set_attn_implementation(chain_attention.NAME)
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    held: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    half = torch.autocast("cpu", torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext()
    keep = rematerialise._Pantry.keep

    def note_what_stays(pantry, tensor: torch.Tensor):
        kept = keep(pantry, tensor)
        return note(kept) if isinstance(kept, torch.Tensor) else kept

    monkeypatch.setattr(rematerialise._Pantry, "keep", note_what_stays)
    noting = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with half, rematerialise.Rematerialisation(model).saving() if again else noting:
        _hidden_states(model.get_base_model(), plant([list(range(3, 3 + 256))]), torch.device("cpu"))
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


# transformers' older name, which PEFT reads.
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "kept",
    [
        {"checkpointing": False},
        {"checkpointing": True},
        {"checkpointing": False, "again": True, "chains": True},
        {"checkpointing": True, "chains": True},
    ],
)
@pytest.mark.parametrize("widths", [(128, 352), (192, 512)])
def test_activations_are_what_autograd_holds(tmp_path: Path, dtype, kept, widths, monkeypatch) -> None:
    of = {}
    for layers in (2, 4):
        folder = a_llama(tmp_path / str(layers), hidden=widths[0], inner=widths[1], layers=layers, vocabulary=400)
        shape = shape_of(str(folder))
        assert shape is not None
        train = TrainSection(gradient_checkpointing=kept["checkpointing"])
        device = "cpu" if "again" in kept else "cuda"
        planned = training_memory(shape, train, Load(256, 0, 256), dtype=dtype, device=device).activations
        with monkeypatch.context() as patch:
            held = kept_for_backward(folder, dtype, patch, **kept)
        of[layers] = planned, held
    # What a layer more adds: the rest is held once, whatever the depth.
    planned, held = ((of[4][i] - of[2][i]) / 2 for i in (0, 1))
    assert planned == pytest.approx(held, rel=0.08)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
def test_adapter_and_base_are_counted_exactly(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    folder = a_llama(tmp_path / "llama", hidden=128, inner=352, layers=3, vocabulary=1000)
    shape = shape_of(str(folder))
    assert shape is not None
    model = load_causal_lm(folder, dtype="float32", device="cpu")
    load = Load(0, 0, 0)
    found = training_memory(shape, TrainSection(lora_rank=4), load, dtype="float32", device="cpu")
    # The file has a header.
    assert found.base == pytest.approx(model.get_memory_footprint(), rel=0.01)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert found.adapter == 16 * adapted.get_nb_trainable_parameters()[0]


def test_four_bits_are_counted_as_they_are(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="the extra qlora is not installed")
    folder = a_llama(tmp_path / "llama", hidden=256, inner=704, layers=3, vocabulary=1000)
    shape = shape_of(str(folder))
    assert shape is not None
    found = training_memory(shape, TrainSection(quantize="nf4"), Load(0, 0, 0), dtype="bfloat16").base
    model = load_causal_lm(folder, dtype="bfloat16", device="cpu", four_bit=True)
    held = model.get_memory_footprint()
    for layer in model.modules():
        state = getattr(getattr(layer, "weight", None), "quant_state", None)
        if state is not None:
            held += state.absmax.nbytes + state.state2.absmax.nbytes
    assert found == pytest.approx(held, rel=0.03)


def test_an_eight_billion_model_as_published() -> None:
    bare = training_memory(LLAMA, TrainSection(lora_rank=1), Load(0, 0, 0))
    # 8B in bfloat16 is about 15 GiB of weights alone.
    assert bare.gib == pytest.approx(14.9, abs=0.3)
    load = Load(8_000, 2_000, 2_000)
    assert training_memory(LLAMA, TrainSection(lora_rank=64), load).gib > bare.gib + 30
    small = TrainSection(lora_rank=64, gradient_checkpointing=True, quantize="nf4")
    assert training_memory(LLAMA, small, load).gib < 20
    assert slowdown(small) == pytest.approx(16 / 9)


@pytest.mark.parametrize(
    ("gib", "words"),
    [
        (80, ""),
        (40, "--set train.tokens_per_batch="),
        (24, "--set train.gradient_checkpointing=true"),
        (12, "--set train.quantize=nf4"),
    ],
)
def test_what_would_fit_fits(gib: float, words: str) -> None:
    load = Load(8_000, 2_000, 2_000)
    found = would_fit(LLAMA, TrainSection(lora_rank=16), load, gib)
    assert found is not None
    assert words in found
    settings = dict(word.removeprefix("train.").split("=") for word in found.replace("--set ", "").split())
    tokens = int(settings.pop("tokens_per_batch", load.tokens))
    options = TrainSection(lora_rank=16, **settings)
    assert training_memory(LLAMA, options, Load(tokens, 2_000, 2_000)).gib <= 0.9 * gib


@pytest.mark.parametrize(
    "settings",
    [{"method": "sft"}, {"method": "self_distillation"}, {"loss": ("aot",), "loss_weights": (1.0,)}],
    ids=["sft", "self_distillation", "aot"],
)
def test_where_a_token_budget_divides_nothing_smaller_batches_are_advised(settings) -> None:
    """Their passes are so many rows: `train.tokens_per_batch` would be refused, or not be read."""
    train = TrainSection(batch_size=12, micro_batch_size=12, **settings)
    load = Load(12_000, 6_000, 1_000)
    found = would_fit(LLAMA, train, load, 40)
    assert found is not None
    assert found.startswith("--set train.micro_batch_size=")
    micro = int(found.split()[1].rpartition("=")[2])
    assert 12 % micro == 0
    assert training_memory(LLAMA, train, Load(1_000 * micro, 500 * micro, 1_000)).gib <= 0.9 * 40
    larger = next(number for number in (2, 3, 4, 6, 12) if number > micro)
    assert training_memory(LLAMA, train, Load(1_000 * larger, 500 * larger, 1_000)).gib > 0.9 * 40


def test_where_nothing_helps_there_is_no_such_advice() -> None:
    assert would_fit(LLAMA, TrainSection(), Load(8_000, 2_000, 2_000), 4) is None


def test_training_too_large_for_the_machine_is_refused_with_what_would_fit(tiny_model_dir: Path) -> None:
    base = resolve_base(str(tiny_model_dir))
    recipe = tiny_recipe(tiny_model_dir, tokens_per_batch=4096)
    require_memory(recipe, base)
    with pytest.raises(ConfigError, match=r"takes about .* It would fit with --set train\.tokens_per_batch=\d+"):
        require_memory(recipe, base, available_gib=0.012)
    with pytest.raises(ConfigError, match="Choose a smaller base"):
        require_memory(recipe, base, available_gib=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"share_within": "pair"},
        {"share_prefixes": False},
        {"tokens_per_batch": 190},
        {"method": "sft"},
    ],
    ids=str,
)
def test_the_largest_pass_is_known_before_anything_is_loaded(tiny_model_dir: Path, tmp_path: Path, settings) -> None:
    from test_trainer import some_pairs

    from rlhi_adapters.loading import load_tokenizer
    from rlhi_training.methods import choice
    from rlhi_training.train_limits import largest_pass
    from rlhi_training.trainer import train_adapter

    recipe = tiny_recipe(tiny_model_dir, epochs=1.0, batch_size=8, micro_batch_size=8, check_parity=False, **settings)
    kept, _ = choice.tokenise(some_pairs(), load_tokenizer(tiny_model_dir), "tiny", recipe.train)
    load = largest_pass(kept, recipe.train)
    result = train_adapter(some_pairs(), recipe, tmp_path, progress=None)
    # All pairs are one batch here; under a budget, its passes hold as much as fits.
    longest = max(len(pair.prompt_ids) + max(len(pair.chosen_ids), len(pair.rejected_ids)) for pair in kept)
    found = result.metrics["largest_pass"] if recipe.train.share_prefixes else 2 * len(kept) * longest
    assert 0.75 * load.tokens <= found <= load.tokens
    assert load.tokens == found or "tokens_per_batch" in settings
    assert 0 < load.answer_tokens <= load.tokens
    assert load.smallest <= load.tokens


def test_pairs_too_large_for_the_machine_are_refused_before_training(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch
) -> None:
    from test_trainer import some_pairs

    from rlhi_adapters.loading import load_tokenizer
    from rlhi_training import trainer
    from rlhi_training.methods import choice
    from rlhi_training.plan import machine
    from rlhi_training.train_limits import largest_pass

    recipe = tiny_recipe(tiny_model_dir, epochs=1.0)
    base, shape = resolve_base(str(tiny_model_dir)), shape_of(str(tiny_model_dir))
    assert shape is not None
    kept, _ = choice.tokenise(some_pairs(), load_tokenizer(tiny_model_dir), "tiny", recipe.train)
    alone = largest_pass(kept, recipe.train).smallest
    one = training_memory(shape, recipe.train, Load(alone, alone, alone), dtype="float32", device="cpu").gib
    monkeypatch.setattr(machine, "memory_gib", lambda _: one / 0.85)
    # Without pairs, nobody knows yet; base and adapter alone have room.
    require_memory(recipe, base)
    monkeypatch.setattr(trainer, "load_causal_lm", lambda *_, **__: pytest.fail("nothing is loaded"))
    with pytest.raises(ConfigError, match=r"takes about .* It would fit with --set train\.tokens_per_batch=\d+"):
        trainer.train_adapter(some_pairs(), recipe, tmp_path, progress=None)


def test_a_base_of_unknown_size_is_left_alone(tmp_path: Path) -> None:
    require_memory(tiny_recipe(tmp_path), BaseModel("x", tmp_path / "gone", "0" * 64), available_gib=1e-6)


def test_this_machine_has_memory() -> None:
    assert 0.1 < memory_gib("cpu") < 1e5


PROGRAM = """
import json, re, sys
from pathlib import Path
import torch
from rlhi_training.plan.training_memory import Load, training_memory
from rlhi_training.plan.hardware import shape_of
from rlhi_training.recipe import Recipe
from rlhi_training.records import PreferencePair
from rlhi_training import trainer
from rlhi_training.tree.trl_trainer import TreeDPOTrainer

torch.set_num_threads(1)

def resident(field):
    return 1024 * int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

step, before = TreeDPOTrainer.training_step, []

def measured(*args):
    if not before:
        # From here on the peak is training's: the weights are loaded, and the reference is known.
        Path("/proc/self/clear_refs").write_text("5")
        before.append(resident("VmRSS"))
    return step(*args)

TreeDPOTrainer.training_step = measured
given = json.loads(Path(sys.argv[1]).read_text("utf-8"))
recipe = Recipe.model_validate(given["recipe"])
pairs = [PreferencePair.model_validate(json.loads(line)) for line in given["pairs"]]
result = trainer.train_adapter(pairs, recipe, Path(given["out"]), progress=None)
print(json.dumps({"rise": resident("VmHWM") - before[0], "largest_pass": result.metrics["largest_pass"]}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux's /proc")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_forecast_is_near_the_measured_peak(
    tmp_path: Path, tiny_model_dir: Path, checkpointing: bool, record_property
) -> None:
    """A run of one step in a process of its own: the rise of its peak above what the loaded model takes."""
    import shutil

    from test_trainer import make_pair

    folder = a_llama(tmp_path / "llama", hidden=256, inner=704, layers=12, vocabulary=8192)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_model_dir / name, folder)
    pairs = [
        make_pair(
            [("user", f"{n} How do I keep basil alive indoors? " * 12)], "Water it well. " * 30, "Talk to it. " * 30
        )
        for n in range(4)
    ]
    recipe = tiny_recipe(folder, epochs=1.0, tokens_per_batch=4096, gradient_checkpointing=checkpointing)
    given = {
        "pairs": [pair.to_json() for pair in pairs],
        "recipe": recipe.model_dump(mode="json"),
        "out": str(tmp_path / "out"),
    }
    (tmp_path / "given.json").write_text(json.dumps(given), "utf-8")
    (tmp_path / "program.py").write_text(PROGRAM, "utf-8")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "given.json")],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        # What the C library keeps of freed memory differs from run to run by as much as the forecast.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(256 * 1024)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    shape = shape_of(str(folder))
    assert shape is not None
    tokens = int(found["largest_pass"])
    load = Load(tokens, tokens // 2, tokens)
    planned = training_memory(shape, recipe.train, load, dtype="float32", device="cpu")
    # The base and the adapter's weights are in memory before; gradients and moments are not.
    rise = (planned.gib * GIB) - planned.base - planned.adapter / 4
    record_property("error", rise / found["rise"] - 1)
    print(f"checkpointing {checkpointing}: forecast {rise / 2**20:.0f} MiB, measured {found['rise'] / 2**20:.0f} MiB")
    assert rise == pytest.approx(found["rise"], rel=0.35)
