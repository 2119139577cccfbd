"""What a whole run learns, step by step, and what every loss gives: the same as under TRL's own trainer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dpo_on_ids import train, trainer

from rlhi_adapters.loading import quiet
from rlhi_plugin.errors import ConfigError
from rlhi_training.losses import LOSSES, check_losses, compares
from rlhi_training.train_options import TrainSection

# TRL 1.16 reads names that transformers has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")


def test_fifty_steps_have_trls_loss_curve(tiny_model_dir: Path, tmp_path: Path) -> None:
    turns = [1, 2, 3, 4, 5, 6, 7, 8, 1, 3]
    options = {"per_device_train_batch_size": 4, "max_steps": 50}
    stock = train(trainer("stock", tmp_path, tiny_model_dir, turns, **options))
    ours = trainer("tree", tmp_path, tiny_model_dir, turns, **options)
    curve = train(ours)
    assert ours.shared.reason is None
    assert ours.shared.tokens_computed < 0.8 * ours.shared.tokens_in
    assert len(curve) == len(stock) == 50
    assert max(abs(a - b) for a, b in zip(curve, stock, strict=True)) < 1e-3
    # A curve that stays where it began would prove nothing.
    assert stock[-1] < stock[0] - 0.05


def options_of(loss: str) -> dict:
    return {"loss_type": [loss], **({"label_smoothing": 0.1} if loss in {"exo_pair", "robust", "aot"} else {})}


def loss_gradients_and_metrics(made, batch):
    generator = torch.Generator().manual_seed(1)
    made.model.train()
    for name, parameter in made.model.named_parameters():
        # B starts at zero, where A has no gradient.
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
            parameter.grad = None
    with quiet():
        loss = made.compute_loss(made.model, batch)
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in made.model.parameters() if p.grad is not None])
    return loss.item(), gradient, {name: values[-1] for name, values in made._metrics["train"].items()}


@pytest.fixture(scope="module")
def both(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("losses")
    return [trainer(kind, folder, tiny_model_dir, [4, 1, 3]) for kind in ("stock", "tree")]


@pytest.mark.parametrize(
    "options",
    [
        *(options_of(loss) for loss in LOSSES),
        {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
        {"loss_type": ["sigmoid"], "ld_alpha": 0.5},
        {"loss_type": ["sigmoid"], "f_divergence_type": "js_divergence"},
    ],
    ids=lambda options: "-".join(map(str, options["loss_type"])) + "".join(k for k in options if k != "loss_type"),
)
def test_every_loss_is_exact_on_trees(both, options: dict) -> None:
    found = []
    for made in both:
        made.loss_types = options["loss_type"]
        made.loss_weights = options.get("loss_weights", [1.0] * len(made.loss_types))
        made.label_smoothing = options.get("label_smoothing", 0.0)
        made.ld_alpha = options.get("ld_alpha")
        made.f_divergence_type = options.get("f_divergence_type", "reverse_kl")
        made.precompute_ref_logps = False
        rows = list(made.train_dataset.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"]))
        found.append(loss_gradients_and_metrics(made, made._prepare_inputs(made.data_collator(rows))))
    (expected_loss, expected, expected_metrics), (loss, gradient, metrics) = found
    assert both[1].shared.reason is None
    assert loss == pytest.approx(expected_loss, rel=1e-4, abs=1e-6)
    assert ((gradient - expected).norm() / expected.norm()) < 1e-4
    assert expected.norm() > 1e-4
    expected_metrics.pop("num_tokens")
    for name, value in expected_metrics.items():
        assert metrics[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


def test_the_list_of_losses_is_trls() -> None:
    import inspect
    import re

    from trl import DPOTrainer

    assert set(LOSSES) == set(re.findall(r'loss_type == "(\w+)"', inspect.getsource(DPOTrainer._compute_loss)))


def test_unknown_losses_and_missing_options_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"knows no 'dpo'.*sigmoid"):
        check_losses(TrainSection(loss=("dpo",), loss_weights=(1.0,)))
    with pytest.raises(ConfigError, match=r"Set it to 0\.001"):
        check_losses(TrainSection(loss=("exo_pair",), loss_weights=(1.0,)))
    check_losses(TrainSection(loss=("exo_pair",), loss_weights=(1.0,), label_smoothing=0.001))
    assert compares(TrainSection())
    assert not compares(TrainSection(loss_weights=(0.0, 1.0)))


def test_weights_by_probability_keep_trls_own_pass(tiny_model_dir: Path, tmp_path: Path) -> None:
    made = trainer("tree", tmp_path, tiny_model_dir, [2], use_weighting=True)
    assert "WPO" in made.shared.reason
    assert len(train(made)) == 3
