"""Processes that need different numbers of passes meet each other at each, and their gradient is that of all pairs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from trl_peers import build

PROGRAM = """
import os, sys, warnings
from pathlib import Path

warnings.simplefilter("ignore")
import torch
from torch.nn.parallel import DistributedDataParallel
from trl import DPOTrainer
from trl.trainer.utils import FusedCausalLMOutput
from trl_peers import a_conversation, gradients_of, loss_and_gradients, rows_of, trainer

from rlhi_training.tree import packed_step
from rlhi_training.tree.forward import install

folder, out, rank = Path(sys.argv[1]), Path(sys.argv[2]), int(os.environ["RANK"])
made = trainer(folder, "sdpa")
assert made.accelerator.num_processes == 2
# Three or more passes here, one there; as many pairs, so that the mean of means is the mean.
pairs = [a_conversation(4), [((5, 6, n), (8, n), (9,)) for n in range(10, 14)]][rank]
batch = made._prepare_inputs(made.data_collator(rows_of(pairs)))
expected = loss_and_gradients(made, batch)
tokens = made._total_train_tokens
made.model.zero_grad()
made.shared = install(made.model.get_base_model(), FusedCausalLMOutput, budget=64)
made.current_gradient_accumulation_steps = 1
parallel = DistributedDataParallel(made.model)
loss = packed_step.step(made, parallel, batch, lambda part: DPOTrainer.training_step(made, parallel, part))
found = {name: parameter.grad for name, parameter in made.model.named_parameters() if parameter.grad is not None}
own = len(packed_step.plan(made, batch))
# TRL's own entries of the whole batch, then those of the passes.
metrics = {name: (values[0], values[-1]) for name, values in made._metrics["train"].items() if name != "num_tokens"}
assert made._total_train_tokens == 2 * tokens
results = {"expected": expected, "loss": loss.item(), "found": found, "own": own, "metrics": metrics}
torch.save(results, out / f"{rank}.pt")
"""


@pytest.mark.slow
def test_two_processes_with_different_numbers_of_passes(tmp_path: Path, tiny_model_dir: Path) -> None:
    folder = build("smollm2", tmp_path / "model", tiny_model_dir)
    (tmp_path / "program.py").write_text(PROGRAM, "utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "ACCELERATE_USE_CPU": "true",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "program.py"), str(folder), str(tmp_path)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert one["own"] > two["own"] == 1
    for each in (one, two):
        assert each["loss"] == pytest.approx(each["expected"][0], rel=1e-4)
    assert one["metrics"] == two["metrics"]
    assert {"rewards/margins", "logps/chosen", "entropy", "mean_token_accuracy"} <= one["metrics"].keys()
    for name, (expected, found) in one["metrics"].items():
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6), name
    for name, gradient in one["expected"][1].items():
        torch.testing.assert_close(one["found"][name], two["found"][name])
        mean = (gradient + two["expected"][1][name]) / 2
        assert (one["found"][name] - mean).norm() / mean.norm() < 1e-4, name
