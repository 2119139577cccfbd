"""A batch in several passes under a token budget: loss, metrics and every LoRA gradient are TRL's own of one batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trl_peers import a_conversation, assert_same, build, gradients_of, loss_and_gradients, rows_of, trainer

from rlhi_training.tree import packed_step
from rlhi_training.tree.forward import SharedForward, install

# TRL 1.16 reads names that transformers has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")

MANY = [*a_conversation(4), *a_conversation(1, seed=1), *a_conversation(3, seed=2), ((5, 6, 7), (8,), (9,))]
"""Conversations, odd lengths, answers of one token."""


@pytest.fixture(scope="module")
def trainer_of(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path):
    """TRL's own trainer on an architecture, with LoRA weights that are not zero."""
    made = {}

    def make(name: str):
        if name not in made:
            made[name] = trainer(build(name, tmp_path_factory.mktemp("models") / name, tiny_model_dir), "sdpa")
        return made[name]

    return make


def in_passes(made, batch, budget: int, *, scope: str = "batch", share: bool = True):
    """Loss, gradients, and what was done, in passes of `budget` tokens."""
    from trl import DPOTrainer
    from trl.trainer.utils import FusedCausalLMOutput

    base = made.model.get_base_model()
    plain = base.forward
    if share:
        made.shared = install(base, FusedCausalLMOutput, scope, budget=budget)
    else:
        made.shared = SharedForward(reason="off", budget=budget)
    made.current_gradient_accumulation_steps = 1
    made.model.zero_grad()
    try:
        loss = packed_step.step(made, made.model, batch, lambda part: DPOTrainer.training_step(made, made.model, part))
    finally:
        base.forward = plain
    assert made.loss_weights == [1.0, 0.2]
    assert made.shared.together is None
    return (loss.item(), gradients_of(made)), made.shared


@pytest.mark.parametrize("name", ["smollm2", "llama_3.1", "qwen2", "qwen3", "gemma_3", "mistral"])
def test_several_passes_are_one_batch_of_trls(trainer_of, name: str) -> None:
    made = trainer_of(name)
    batch = made._prepare_inputs(made.data_collator(rows_of(MANY)))
    made._metrics["train"].clear()
    expected = loss_and_gradients(made, batch)
    metrics = {key: values[-1] for key, values in made._metrics["train"].items() if key != "num_tokens"}
    made._metrics["train"].clear()
    found, state = in_passes(made, batch, 70)
    assert state.passes >= 6  # policy and reference
    assert state.largest <= 70
    assert state.trees_cut == 1
    assert_same(found, expected)
    for key, value in metrics.items():
        (merged,) = made._metrics["train"][key]
        assert merged == pytest.approx(value, rel=1e-4, abs=1e-5), key
    assert made._metrics["train"]["num_tokens"]


@pytest.mark.parametrize(("scope", "share"), [("pair", True), ("batch", False)])
def test_pairwise_trees_and_padded_rows_are_packed_too(trainer_of, scope: str, share: bool) -> None:
    made = trainer_of("qwen3")
    batch = made._prepare_inputs(made.data_collator(rows_of(MANY)))
    found, state = in_passes(made, batch, 150, scope=scope, share=share)
    assert state.largest <= 150
    assert_same(found, loss_and_gradients(made, batch))


def test_all_pairs_of_many_candidates_are_one_tree(trainer_of) -> None:
    """Six answers to one request, every two of them a pair: each is computed once, in 15 pairs of 30 rows."""
    draw = torch.Generator().manual_seed(4)
    prompt, *answers = (tuple(torch.randint(3, 400, (n,), generator=draw).tolist()) for n in (20, 1, 3, 5, 7, 9, 11))
    pairs = [(prompt, one, other) for i, one in enumerate(answers) for other in answers[:i]]
    made = trainer_of("smollm2")
    batch = made._prepare_inputs(made.data_collator(rows_of(pairs)))
    found, state = in_passes(made, batch, 56)
    # Policy and reference.
    assert (state.passes, state.tokens_computed) == (2, 2 * (20 + 1 + 3 + 5 + 7 + 9 + 11))
    assert_same(found, loss_and_gradients(made, batch))
    found, state = in_passes(made, batch, 45)
    assert state.trees_cut == 1
    assert state.largest <= 45
    assert_same(found, loss_and_gradients(made, batch))


TOKENS = st.lists(st.integers(3, 6), min_size=1, max_size=6).map(tuple)
PAIRS = st.lists(st.tuples(TOKENS, TOKENS, TOKENS).filter(lambda pair: pair[1] != pair[2]), min_size=1, max_size=6)


# The model is built once and left as it was found.
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=PAIRS, budget=st.integers(24, 80))
def test_any_pairs_under_any_budget(trainer_of, pairs, budget: int) -> None:
    made = trainer_of("gemma_3")
    batch = made._prepare_inputs(made.data_collator(rows_of(pairs)))
    found, state = in_passes(made, batch, budget)
    assert state.largest <= budget
    assert_same(found, loss_and_gradients(made, batch))


def test_a_pass_that_counts_for_nothing_changes_nothing(trainer_of, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another process needs more passes, this one repeats a pass with no weight."""
    made = trainer_of("smollm2")
    batch = made._prepare_inputs(made.data_collator(rows_of(MANY)))
    monkeypatch.setattr(packed_step, "_most", lambda trainer, count: count + 2)
    found, _ = in_passes(made, batch, 150)
    assert_same(found, loss_and_gradients(made, batch))


@pytest.mark.parametrize(
    "variant", [{"use_dora": True}, {"use_rslora": True}, {"checkpointing": True}, {"four_bit": True}], ids=str
)
def test_variants_of_the_adapter_have_trls_gradients(tmp_path: Path, tiny_model_dir: Path, variant) -> None:
    if "four_bit" in variant:
        pytest.importorskip("bitsandbytes", reason="the extra qlora is not installed")
    made = trainer(build("llama_3.1", tmp_path / "model", tiny_model_dir), "sdpa", **variant)
    batch = made._prepare_inputs(made.data_collator(rows_of(MANY)))
    expected = loss_and_gradients(made, batch)
    assert any("magnitude" in name for name in expected[1]) == ("use_dora" in variant)
    found, state = in_passes(made, batch, 70)
    assert state.passes >= 6
    assert state.reason is None
    assert_same(found, expected)
