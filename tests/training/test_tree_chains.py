"""Chains of a forest cover the rule; attention along them and activations made again change nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhi_training.tree.chain_attention import NAME, attend, chain_mask, register
from rlhi_training.tree.chains import chains
from rlhi_training.tree.prefix_tree import Layout, plant
from rlhi_training.tree.rematerialise import Rematerialisation, _Pantry

ROWS = st.lists(st.lists(st.integers(3, 5), min_size=1, max_size=8), min_size=1, max_size=6)
WINDOWS = st.sampled_from([None, 1, 2, 3, 100])


@given(rows=ROWS, layout=st.builds(Layout, block=st.sampled_from([1, 16]), sparse=st.booleans()), window=WINDOWS)
def test_chains_see_what_the_rule_allows(rows, layout: Layout, window: int | None) -> None:
    forest = plant(rows, layout)
    seen = np.zeros_like(forest.mask())
    for chain in chains(forest):
        part = chain if window is None else chain.within(window)
        assert not seen[chain.line][chain.places].any(), "a token is in one chain only"
        seen[chain.line][np.ix_(part.places, part.keys)] = part.mask(window)
    np.testing.assert_array_equal(seen, forest.mask(window))


def test_the_longest_way_down_is_one_chain_without_anything_above() -> None:
    trunk = list(range(10, 30))
    forest = plant([[*trunk[:5], 1, 2], [*trunk[:9], 40], trunk])
    found = {len(chain.places): len(chain.above) for chain in chains(forest)}
    assert found == {20: 0, 2: 5, 1: 9}


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [Layout(linear_cost=0), Layout(sparse=True)])
def test_attention_and_its_gradients_equal_a_dense_mask(window, key_heads: int, dtype, layout: Layout) -> None:
    forest = plant([[1, 2, 3, 4, 5, 6], [1, 2, 3, 7], [1, 2, 3, 4, 8, 9, 9], [5, 5]], layout)
    lines, width = forest.tokens.shape
    torch.manual_seed(0)
    sizes = [(lines, heads, width, 8) for heads in (4, key_heads, key_heads)]
    inputs = [torch.randn(size, dtype=dtype, requires_grad=True) for size in sizes]
    direction = torch.randn(lines, width, 4, 8)

    def run(function):
        for tensor in inputs:
            tensor.grad = None
        out = function(*inputs)
        (out.float() * direction).sum().backward()
        return out, *[tensor.grad for tensor in inputs]

    dense = torch.from_numpy(forest.mask(window))[:, None]

    def expected(q, k, v):
        k, v = (t.repeat_interleave(4 // key_heads, dim=1) for t in (k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=dense, scale=0.3).transpose(1, 2)

    mask = chain_mask(forest, window, dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    ours = run(lambda q, k, v: attend(torch.nn.Module(), q, k, v, mask, scaling=0.3)[0])
    for found, wanted in zip(ours, run(expected), strict=True):
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def test_chains_that_get_lost_on_the_way_are_not_taken_for_a_mask() -> None:
    """A model that copies its mask would otherwise let every token see every other."""
    mask = chain_mask(plant([[1, 2, 3], [1, 2, 4]], Layout(sparse=True)), None, torch.float32)
    q = torch.randn(1, 2, 4, 8)
    attend(torch.nn.Module(), q, q, q, mask)
    with pytest.raises(RuntimeError, match="size"):
        attend(torch.nn.Module(), q, q, q, mask.clone())


def test_chains_that_are_to_drop_weights_refuse() -> None:
    mask = chain_mask(plant([[1, 2, 3]], Layout(sparse=True)), None, torch.float32)
    q = torch.randn(1, 2, 3, 8)
    with pytest.raises(ValueError, match="drops no weights"):
        attend(torch.nn.Module(), q, q, q, mask, dropout=0.1)


def small_model(family: str):
    import transformers

    sizes = {
        "vocab_size": 50,
        "hidden_size": 32,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    head = family.removesuffix("Text")
    model = getattr(transformers, f"{head}ForCausalLM")(getattr(transformers, f"{family}Config")(**sizes))
    for part in model.modules():
        # Where the norms' weights are all alike, a wrong one would not show.
        if type(part).__name__.endswith("RMSNorm"):
            torch.nn.init.normal_(part.weight)
    return model


def gradients(model, ids) -> list[torch.Tensor]:
    model.zero_grad()
    model.base_model(ids, attention_mask=torch.ones_like(ids)).last_hidden_state.square().sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("family", ["Llama", "Qwen3", "Gemma3Text", "Mistral", "Granite"])
def test_activations_made_again_give_the_same_bits(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(family)
    ids = torch.randint(1, 50, (1, 40))
    register()
    model.set_attn_implementation(NAME)
    plain = gradients(model, ids)
    saver, replaced, kept = Rematerialisation(model), [], []
    keep = _Pantry.keep

    def counting(pantry, tensor):
        stored = keep(pantry, tensor)
        (kept if stored is tensor else replaced).append(tensor.numel())
        return stored

    monkeypatch.setattr(_Pantry, "keep", counting)
    with saver.saving():
        again = gradients(model, ids)
    assert all(map(torch.equal, again, plain))
    assert all(saver._trusted.values())
    # Norms twice a layer and once at the end; the activation and the gated product once a layer.
    assert len(saver._trusted) >= 2 * 2 + 1 + 2 * 2
    assert sum(replaced) > 0.25 * sum(kept)
    with torch.no_grad(), saver.saving():
        model.base_model(ids)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_a_module_that_is_not_what_it_seems_keeps_its_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model("Llama")
    mlp = model.base_model.layers[0].mlp
    monkeypatch.setattr(mlp, "forward", lambda x: mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x) + 1.0))
    ids = torch.randint(1, 50, (1, 12))
    plain = gradients(model, ids)
    saver = Rematerialisation(model)
    with saver.saving():
        again = gradients(model, ids)
    assert all(map(torch.equal, again, plain))
    assert list(saver._trusted.values()).count(False) == 1
