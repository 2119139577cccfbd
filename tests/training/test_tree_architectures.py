"""Loss and LoRA gradients on prefix trees equal TRL's own, for the architectures that people train."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trl_peers import ARCHITECTURES, a_conversation, assert_same, build, loss_and_gradients, rows_of, trainer

from rlhi_adapters.loading import load_causal_lm

IMPLEMENTATIONS = ["sdpa", "eager"]


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
    assert_same((loss, found), (expected_loss, expected), tolerance=tolerance)
    return state.tokens_computed / state.tokens_in


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
    from rlhi_training.tree.attention import FLEX, layout
    from rlhi_training.tree.forward import _hidden_states
    from rlhi_training.tree.prefix_tree import plant

    model = load_causal_lm(build(name, tmp_path / name, tiny_model_dir), dtype="float32", device="cpu")
    rows = [[*prompt, *answer] for prompt, *answers in a_conversation(6) for answer in answers]
    dense, blocks = plant(rows), plant(rows, layout(FLEX))
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
    # Heads narrower than 16 have no kernel on CUDA.
    made = trainer(build(name, tmp_path / name, tiny_model_dir, head_dim=16), "sdpa", device="cuda")
    assert compare(made, a_conversation(8), tolerance=1e-3) < 0.5
    assert made.model.get_base_model().config._attn_implementation == "flex_attention"
