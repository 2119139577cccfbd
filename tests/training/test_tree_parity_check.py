"""The first batch is compared with TRL's own pass: a wrong way of sharing is found, left and named."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from test_trainer import some_pairs, tiny_recipe
from trl_peers import a_conversation, assert_same, build, gradients_of, loss_and_gradients, rows_of, trainer

from rlhi_training.trainer import train_adapter
from rlhi_training.tree import forward
from rlhi_training.tree.attention import CHAINS
from rlhi_training.tree.forward import implementation, install

# TRL 1.16 reads names that transformers has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")

PAIRS = [*a_conversation(3), *a_conversation(1, seed=1)]


@pytest.fixture
def made(tmp_path: Path, tiny_model_dir: Path):
    return trainer(build("smollm2", tmp_path / "model", tiny_model_dir), "sdpa")


def shared(made):
    from trl.trainer.utils import FusedCausalLMOutput

    return install(made.model.get_base_model(), FusedCausalLMOutput)


def batch_of(made):
    return made._prepare_inputs(made.data_collator(rows_of(PAIRS)))


def see_other_branches(monkeypatch: pytest.MonkeyPatch, *broken: str) -> None:
    """Under these implementations a token sees all that lies before it in its line."""
    right = forward.masks

    def masks(forest, config, *, implementation, dtype, device):
        if implementation not in broken:
            return right(forest, config, implementation=implementation, dtype=dtype, device=device)
        lines, width = forest.tokens.shape
        return torch.full((lines, 1, width, width), torch.finfo(dtype).min, dtype=dtype).triu(1)

    monkeypatch.setattr(forward, "masks", masks)


def test_chains_that_see_too_much_give_way_to_a_dense_mask(made, monkeypatch, caplog) -> None:
    batch = batch_of(made)
    expected = loss_and_gradients(made, batch)
    see_other_branches(monkeypatch, CHAINS)
    state = shared(made)
    with caplog.at_level(logging.WARNING):
        found = loss_and_gradients(made, batch)
    assert "using a dense mask" in caplog.text
    assert "nats a token" in caplog.text
    assert state.reason is None
    assert implementation(made.model.get_base_model()) == "sdpa"
    assert state.tokens_computed < 0.6 * state.tokens_in
    assert_same(found, expected)


def test_where_nothing_gives_trls_numbers_trls_own_pass_is_used(made, monkeypatch) -> None:
    batch = batch_of(made)
    expected = loss_and_gradients(made, batch)
    see_other_branches(monkeypatch, CHAINS, "sdpa")
    state = shared(made)
    found = loss_and_gradients(made, batch)
    assert "differ from the plain ones by" in state.reason
    assert state.tokens_computed == 0
    assert_same(found, expected)


def test_a_model_that_refuses_the_masks_keeps_trls_own_pass(made, monkeypatch) -> None:
    def refuse(*_, **__):
        raise RuntimeError("no kernel for this shape")

    batch = batch_of(made)
    expected = loss_and_gradients(made, batch)
    monkeypatch.setattr(forward, "masks", refuse)
    state = shared(made)
    assert_same(loss_and_gradients(made, batch), expected)
    assert state.reason == "llama does not take them (RuntimeError: no kernel for this shape)"


def test_a_run_on_trls_own_pass_says_why_and_learns_the_same(tiny_model_dir: Path, tmp_path: Path, monkeypatch) -> None:
    plain = train_adapter(
        some_pairs(), tiny_recipe(tiny_model_dir, epochs=1.0, share_prefixes=False), tmp_path / "plain", progress=None
    )
    see_other_branches(monkeypatch, CHAINS, "sdpa")
    result = train_adapter(some_pairs(), tiny_recipe(tiny_model_dir, epochs=1.0), tmp_path / "run", progress=None)
    (warning,) = [text for text in result.warnings if text.startswith("prefixes were not shared")]
    assert "nats a token" in warning
    assert warning in (result.adapter_dir / "README.md").read_text("utf-8")
    weights = [(run.adapter_dir / "adapter_model.safetensors").read_bytes() for run in (plain, result)]
    assert weights[0] == weights[1]


def test_dropout_is_no_difference(made, monkeypatch) -> None:
    """An adapter that is not new, as a continued or a resumed one, drops what it has learnt: each pass otherwise."""
    droppers = [torch.nn.Dropout(0.5) for _ in range(3 * 7)]
    layers = [part for part in made.model.modules() if hasattr(part, "lora_dropout")]
    for layer, dropout in zip(layers, droppers, strict=True):
        layer.lora_dropout["default"] = dropout
    verify, drew_nothing = forward._verify, []

    def watched(*args):
        before = torch.get_rng_state()
        verify(*args)
        # A resumed run compares once more, and must go on to draw what an undisturbed one draws.
        drew_nothing.append(torch.equal(before, torch.get_rng_state()))

    monkeypatch.setattr(forward, "_verify", watched)
    state = shared(made)
    loss_and_gradients(made, batch_of(made))
    assert drew_nothing
    assert all(drew_nothing)
    assert all(part.training for part in droppers)
    assert state.verified_training
    assert state.reason is None
    assert state.difference < 1e-3


def test_a_model_that_drops_attention_weights_keeps_its_dense_mask(tmp_path: Path, tiny_model_dir: Path) -> None:
    made = trainer(build("qwen3", tmp_path / "model", tiny_model_dir, attention_dropout=0.2), "sdpa")
    batch = batch_of(made)

    def still():
        made.model.eval()
        made.model.zero_grad()
        loss = made.compute_loss(made.model, batch)
        loss.backward()
        return loss.item(), gradients_of(made)

    expected = still()
    state = shared(made)
    first, second = (loss_and_gradients(made, batch)[0] for _ in range(2))
    assert first != second, "weights are dropped while it trains"
    assert state.verified_training
    assert state.reason is None
    assert_same(still(), expected)
    assert implementation(made.model.get_base_model()) == "sdpa"
    assert 0 < state.tokens_computed < state.tokens_in
