"""Loss and LoRA gradients on prefix trees equal TRL's own, for the architectures that people train."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhi_adapters.loading import load_causal_lm, load_tokenizer, quiet

SMALL = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.25,
}
WINDOW = 8
"""Shorter than the rows, so that it matters."""
LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 500000.0,
}
ARCHITECTURES = {
    "smollm2": ("Llama", {"tie_word_embeddings": True}),
    "llama_3.1": ("Llama", {"rope_parameters": LLAMA3}),
    "llama_linear_rope": ("Llama", {"rope_parameters": LINEAR, "num_key_value_heads": 1}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2_windows": ("Qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "gemma_3": ("Gemma3Text", {"head_dim": 16, "sliding_window": WINDOW, "sliding_window_pattern": 2}),
    "mistral": ("Mistral", {"sliding_window": WINDOW}),
    "mistral_whole": ("Mistral", {"sliding_window": None}),
    "granite": ("Granite", {"logits_scaling": 4.0, "embedding_multiplier": 2.0}),
}
IMPLEMENTATIONS = ["sdpa", "eager"]


def build(name: str, folder: Path, tokenizer_dir: Path) -> Path:
    import transformers

    family, more = ARCHITECTURES[name]
    config = getattr(transformers, f"{family}Config")(
        **{**SMALL, **more}, pad_token_id=0, bos_token_id=1, eos_token_id=2
    )
    head = "Gemma3ForCausalLM" if family == "Gemma3Text" else f"{family}ForCausalLM"
    torch.manual_seed(3)
    with quiet():
        getattr(transformers, head)(config).save_pretrained(folder)
        load_tokenizer(tokenizer_dir).save_pretrained(folder)
    shutil.copy(tokenizer_dir / "chat_template.jinja", folder)
    return folder


@pytest.fixture(scope="module")
def trainer_of(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path):
    """TRL's own trainer on an architecture, with LoRA weights that are not zero."""
    made = {}

    def make(name: str, implementation: str = "sdpa"):
        if (name, implementation) not in made:
            folder = tmp_path_factory.mktemp("models") / name
            made[name, implementation] = trainer(build(name, folder, tiny_model_dir), implementation)
        return made[name, implementation]

    return make


def trainer(folder: Path, implementation: str, *, device: str = "cpu"):
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    class OnIds(DPOTrainer):
        def _prepare_dataset(self, dataset, *_, **__):
            return dataset

    model = load_causal_lm(folder, dtype="float32", device=device)
    model.set_attn_implementation(implementation)
    with quiet():
        config = DPOConfig(
            output_dir=str(folder / "out"),
            max_length=None,
            gradient_checkpointing=False,
            loss_type=["sigmoid", "sft"],
            loss_weights=[1.0, 0.2],
            bf16=False,
            use_cpu=device == "cpu",
            report_to=[],
            disable_tqdm=True,
        )
        made = OnIds(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows_of([((5, 6), (7,), (8,))])),
            processing_class=load_tokenizer(folder),
            peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
    generator = torch.Generator().manual_seed(1)
    for name, parameter in made.model.named_parameters():
        # B starts at zero, where A has no gradient.
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return made


def rows_of(pairs):
    return [{"prompt_ids": list(p), "chosen_ids": list(c), "rejected_ids": list(r)} for p, c, r in pairs]


def loss_and_gradients(made, batch):
    made.model.train()
    made.model.zero_grad()
    loss = made.compute_loss(made.model, batch)
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in made.model.named_parameters() if p.grad is not None}


def compare(made, pairs, *, tolerance: float = 1e-4, scope: str = "batch") -> float:
    """Both ways on one batch; the share of tokens that the trees computed."""
    from trl.trainer.utils import FusedCausalLMOutput

    from rlhi_training.tree.forward import install

    batch = made._prepare_inputs(made.data_collator(rows_of(pairs)))
    expected_loss, expected = loss_and_gradients(made, batch)
    base = made.model.get_base_model()
    plain = base.forward
    state = install(base, FusedCausalLMOutput, scope)
    try:
        assert state.reason is None
        loss, found = loss_and_gradients(made, batch)
        assert state.reason is None
    finally:
        base.forward = plain
    assert loss == pytest.approx(expected_loss, rel=tolerance / 10, abs=1e-6)
    assert found.keys() == expected.keys()
    whole = torch.cat([gradient.flatten() for gradient in expected.values()]).norm()
    for name, gradient in found.items():
        # Where a gradient is nothing but rounding, its error is measured against all of them.
        scale = torch.maximum(expected[name].norm(), 1e-3 * whole)
        assert ((gradient - expected[name]).norm() / scale) < tolerance, name
    return state.tokens_computed / state.tokens_in


def a_conversation(turns: int, *, persona: int = 9, seed: int = 0):
    """Persona, then turns whose originals are the next turns' past."""
    draw = torch.Generator().manual_seed(seed)

    def text(length):
        return tuple(torch.randint(3, 400, (length,), generator=draw).tolist())

    context, pairs = text(persona), []
    for turn in range(turns):
        context = (*context, *text(3 + turn))
        original, rewrite = text(5 + turn), text(4 + 2 * turn)
        pairs.append((context, rewrite, original))
        context = (*context, *original)
    return pairs


# TRL 1.16 reads names that transformers has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_loss_and_gradients_equal_trls(trainer_of, name: str, implementation: str) -> None:
    pairs = [*a_conversation(4), *a_conversation(1, seed=1), *a_conversation(2, seed=2)]
    assert compare(trainer_of(name, implementation), pairs) < 0.6


@pytest.mark.parametrize("turns", range(1, 9))
def test_conversations_of_one_to_eight_turns(trainer_of, turns: int) -> None:
    compare(trainer_of("gemma_3"), a_conversation(turns, seed=turns))


def test_pairs_may_share_within_themselves_alone(trainer_of) -> None:
    whole, pairwise = (compare(trainer_of("qwen3"), a_conversation(4), scope=scope) for scope in ("batch", "pair"))
    assert whole < pairwise < 0.7


TOKENS = st.lists(st.integers(3, 6), min_size=1, max_size=6).map(tuple)
PAIRS = st.lists(st.tuples(TOKENS, TOKENS, TOKENS).filter(lambda pair: pair[1] != pair[2]), min_size=1, max_size=5)


@pytest.mark.parametrize("name", ["smollm2", "gemma_3", "mistral"])
# The models are built once and left as they were found.
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=PAIRS)
def test_any_pairs_at_all(trainer_of, name: str, pairs) -> None:
    """Few different tokens: answers begin alike, one is the beginning of the other, prompts branch anywhere."""
    compare(trainer_of(name), pairs)


def test_a_window_is_counted_along_the_row() -> None:
    from rlhi_training.tree.prefix_tree import plant

    forest = plant([[1, 2, 3, 4], [1, 2, 5, 6]])
    seen = forest.mask(2)[0]
    # 5 follows 2 in its row; in the line, 3 and 4 stand between them.
    places = {int(token): place for place, token in enumerate(forest.tokens[0])}
    assert [token for token, place in places.items() if seen[places[5], place]] == [2, 5]
    assert [token for token, place in places.items() if seen[places[6], place]] == [5, 6]


def test_an_unknown_kind_of_layer_keeps_trls_own_pass(trainer_of) -> None:
    from rlhi_training.tree.forward import unsupported

    model = trainer_of("gemma_3").model.get_base_model()
    kinds = model.config.layer_types
    try:
        model.config.layer_types = ["chunked_attention", *kinds[1:]]
        assert "chunked_attention" in unsupported(model)
    finally:
        model.config.layer_types = kinds
    assert unsupported(model) is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", ["smollm2", "gemma_3"])
def test_flex_attention_sees_what_the_dense_mask_shows(tmp_path: Path, tiny_model_dir: Path, name: str) -> None:
    """On a processor FlexAttention runs forward only, through the C++ compiler; the rule that it gets is the same."""
    if shutil.which("g++") is None:
        pytest.skip("torch compiles FlexAttention with g++, which is absent: apt-get install g++")
    from rlhi_training.tree.attention import FLEX, FLEX_BLOCK
    from rlhi_training.tree.forward import _hidden_states
    from rlhi_training.tree.prefix_tree import plant

    model = load_causal_lm(build(name, tmp_path / name, tiny_model_dir), dtype="float32", device="cpu")
    rows = [[*prompt, *answer] for prompt, *answers in a_conversation(6) for answer in answers]
    dense, blocks = plant(rows), plant(rows, block=FLEX_BLOCK)
    assert blocks.tokens.shape == (1, 256)
    with torch.no_grad():
        expected = _hidden_states(model, dense, torch.device("cpu")).flatten(0, 1)
        model.set_attn_implementation(FLEX)
        found = _hidden_states(model, blocks, torch.device("cpu")).flatten(0, 1)
    for path, other in zip(dense.rows, blocks.rows, strict=True):
        torch.testing.assert_close(
            found[torch.from_numpy(other)], expected[torch.from_numpy(path)], rtol=1e-4, atol=1e-4
        )


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", ["smollm2", "gemma_3", "mistral"])
def test_flex_attention_trains_like_trls_own_pass(tmp_path: Path, tiny_model_dir: Path, name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device; on one: pytest -m gpu tests/training/test_tree_architectures.py")
    made = trainer(build(name, tmp_path / name, tiny_model_dir), "sdpa", device="cuda")
    assert compare(made, a_conversation(8), tolerance=1e-3) < 0.5
    assert made.model.get_base_model().config._attn_implementation == "flex_attention"
