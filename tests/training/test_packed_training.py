"""Training under a token budget from end to end: the same curve, reasons for what does not fit, and SIGKILL."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest
from test_trainer import KilledError, make_pair, some_pairs, tiny_recipe

from rlhi_plugin.errors import ConfigError
from rlhi_training.trainer import train_adapter


def weights_of(result) -> bytes:
    return (result.adapter_dir / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def packed(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory):
    recipe = tiny_recipe(tiny_model_dir, tokens_per_batch=190)
    return train_adapter(some_pairs(), recipe, tmp_path_factory.mktemp("packed"), progress=None)


def test_a_token_budget_changes_memory_and_nothing_else(packed, tiny_model_dir: Path, tmp_path: Path) -> None:
    whole = train_adapter(some_pairs(), tiny_recipe(tiny_model_dir), tmp_path, progress=None)
    assert packed.metrics["largest_pass"] <= 190 < whole.metrics["largest_pass"]
    assert packed.metrics["trees_cut"] > 0
    assert len(packed.log_history) == len(whole.log_history)
    for one, other in zip(packed.log_history[:-1], whole.log_history[:-1], strict=True):
        assert one.keys() == other.keys()
        # Before the first step that moves (the second: warm-up) nothing is above anything but by rounding.
        for name in one.keys() - ({"rewards/accuracies"} if one["step"] <= 2 else set()):
            assert one[name] == pytest.approx(other[name], rel=1e-3, abs=1e-5), name


def test_a_rounds_reference_keeps_to_the_budget(packed, tiny_model_dir: Path, tmp_path: Path, monkeypatch) -> None:
    from rlhi_training.methods import choice
    from rlhi_training.methods.round_reference import RoundReferenceTrainer

    monkeypatch.setattr(choice, "trainer_of", lambda *_: partial(RoundReferenceTrainer, before=None))
    recipe = tiny_recipe(tiny_model_dir, tokens_per_batch=190)
    found = train_adapter(some_pairs(), recipe, tmp_path, progress=None)
    assert found.metrics["largest_pass"] <= 190
    # The adapter with which the first round begins changes nothing: it is the base.
    assert weights_of(found) == weights_of(packed)


def test_the_micro_batch_does_not_matter_under_a_token_budget(packed, tiny_model_dir: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tiny_model_dir, tokens_per_batch=190, micro_batch_size=3)
    assert weights_of(train_adapter(some_pairs(), recipe, tmp_path, progress=None)) == weights_of(packed)


def test_a_pair_larger_than_the_budget_is_dropped_with_its_name(tiny_model_dir: Path, tmp_path: Path) -> None:
    large = make_pair([("user", "How do I keep basil alive indoors? " * 12)], "a", "b")
    recipe = tiny_recipe(tiny_model_dir, epochs=1.0, tokens_per_batch=190)
    result = train_adapter([*some_pairs(), large], recipe, tmp_path, progress=None)
    assert result.trained_pairs == 8
    ((key, reason, detail),) = [(drop.key, drop.reason, drop.detail) for drop in result.dropped]
    assert (key, reason) == (large.pair_id, "over_token_budget")
    assert detail.endswith("tokens alone; train.tokens_per_batch is 190")


def test_padded_rows_count_twice_where_prefixes_are_not_shared(tiny_model_dir: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tiny_model_dir, epochs=1.0, tokens_per_batch=64, share_prefixes=False)
    with pytest.raises(ConfigError, match="over_token_budget"):
        train_adapter(some_pairs()[:2], recipe, tmp_path, progress=None)


def test_losses_that_sort_a_batch_are_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tiny_model_dir, tokens_per_batch=190, loss=("aot",), loss_weights=(1.0,))
    with pytest.raises(ConfigError, match="aot sorts the pairs of a batch"):
        train_adapter(some_pairs(), recipe, tmp_path, progress=None)


def test_a_killed_run_continues_to_the_same_weights(packed, tiny_model_dir: Path, tmp_path: Path, monkeypatch) -> None:
    from rlhi_training.watch import Watch

    recipe = tiny_recipe(tiny_model_dir, tokens_per_batch=190)
    step = Watch.on_step_end

    def kill_at_four(self, args, state, control, **rest):
        step(self, args, state, control, **rest)
        if state.global_step == 4:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "on_step_end", kill_at_four)
        with pytest.raises(KilledError):
            train_adapter(some_pairs(), recipe, tmp_path, progress=None)
    resumed = train_adapter(some_pairs(), recipe, tmp_path, progress=None)
    assert resumed.resumed_from == 3
    assert weights_of(resumed) == weights_of(packed)


PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from rlhi_training.recipe import Recipe
from rlhi_training.records import PreferencePair
from rlhi_training.trainer import train_adapter
from rlhi_training.tree.trl_trainer import TreeDPOTrainer

base = TreeDPOTrainer.training_step
seen = []

def step(self, model, inputs, items=None):
    loss = base(self, model, inputs, items)
    seen.append(loss)
    if len(seen) == int(sys.argv[2]):
        # Gradients are there and the optimiser has not moved yet.
        os.kill(os.getpid(), signal.SIGKILL)
    return loss

TreeDPOTrainer.training_step = step
given = json.loads(Path(sys.argv[1]).read_text("utf-8"))
pairs = [PreferencePair.model_validate(json.loads(line)) for line in given["pairs"]]
train_adapter(pairs, Recipe.model_validate(given["recipe"]), Path(given["out"]), progress=None)
"""


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"tokens_per_batch": 190, "lora_dropout": 0.2}], ids=str)
def test_sigkill_in_the_middle_of_a_step_changes_no_weight(tiny_model_dir: Path, tmp_path: Path, settings) -> None:
    """Killed twice by the system's own hand, in processes of their own, before the optimiser's fourth and last step."""
    recipe = tiny_recipe(tiny_model_dir, **settings)
    undisturbed = train_adapter(some_pairs(), recipe, tmp_path / "whole", progress=None)
    assert undisturbed.metrics["tokens_shared"] > 0
    given = {
        "pairs": [pair.to_json() for pair in some_pairs()],
        "recipe": recipe.model_dump(mode="json"),
        "out": str(tmp_path / "killed"),
    }
    (tmp_path / "given.json").write_text(json.dumps(given), "utf-8")
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM), "utf-8")
    # The second one begins with step 4: it dies in step 6.
    for deadly, code in (("4", -signal.SIGKILL), ("3", -signal.SIGKILL), ("-1", 0)):
        done = subprocess.run(
            [sys.executable, str(program), str(tmp_path / "given.json"), deadly],
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == code, done.stderr
    killed = (tmp_path / "killed" / "adapter" / "adapter_model.safetensors").read_bytes()
    assert killed == weights_of(undisturbed)
