"""Two processes on one machine (gloo) learn what one process learns on the same batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from dpo_on_ids import train, trainer

base, out, turns, options = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), json.loads(sys.argv[4])
made = trainer("tree", out, base, turns, **options)
losses = train(made)
assert made.shared.reason is None, made.shared.reason
if made.accelerator.is_main_process:
    weights = {name: p.detach().clone() for name, p in made.model.named_parameters() if p.requires_grad}
    processes = made.accelerator.num_processes
    torch.save({"losses": losses, "weights": weights, "processes": processes}, out / "result.pt")
"""


def launch(command: list[str], processes: int, cwd: Path) -> subprocess.CompletedProcess[str]:
    here = Path(__file__).parent
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(here), *sys.path]),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "RLHI_REGISTRY": str(cwd / "registry"),
    }
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    launcher = several if processes > 1 else []
    whole = [sys.executable, *launcher, *command]
    # A hang is a failure, not a wait.
    done = subprocess.run(whole, env=environment, capture_output=True, text=True, check=False, cwd=cwd, timeout=280)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def run(processes: int, base: Path, out: Path, turns: list[int], **options: object) -> dict:
    out.mkdir()
    script = out / "script.py"
    script.write_text(SCRIPT, "utf-8")
    launch([str(script), str(base), str(out), json.dumps(turns), json.dumps(options)], processes, out)
    return torch.load(out / "result.pt", weights_only=True)


@pytest.mark.slow
# Conversations of one to eight turns: one process has one tree where the other has four.
@pytest.mark.parametrize("turns", [[8, 1, 1, 1, 1, 4], [3, 5, 2, 6]], ids=["uneven", "even"])
def test_two_processes_give_losses_and_weights_of_one(tiny_model_dir: Path, tmp_path: Path, turns: list[int]) -> None:
    one = run(1, tiny_model_dir, tmp_path / "one", turns, per_device_train_batch_size=4, num_train_epochs=2)
    two = run(2, tiny_model_dir, tmp_path / "two", turns, per_device_train_batch_size=2, num_train_epochs=2)
    assert (one["processes"], two["processes"]) == (1, 2)
    assert len(one["losses"]) == 8
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
    for name, weight in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weight, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.slow
def test_a_runs_pairs_are_trained_on_by_two_processes_and_registered(
    tiny_model_dir: Path, tmp_path: Path, four_users, cue_labeller, word_encoder
) -> None:
    from test_pipeline import write

    from rlhi_adapters.registry import AdapterRegistry
    from rlhi_plugin.chat import ScriptedClient
    from rlhi_plugin.logs import write_conversations
    from rlhi_training.pipeline import Pipeline
    from rlhi_training.recipe import Recipe
    from rlhi_training.recipe_files import override_recipe
    from rlhi_training.resources import Resources
    from rlhi_training.run_directory import RunDirectory

    logs = tmp_path / "logs.jsonl"
    write_conversations(logs, four_users)
    options = ["train.epochs=1", "train.batch_size=2", "train.micro_batch_size=2", "train.reuse_reference=false"]
    options += [f"model.base={tiny_model_dir}", "model.dtype=float32"]
    recipe = override_recipe(Recipe(name="two", summary="-").model_dump(mode="json"), options)
    resources = Resources(recipe, policy=ScriptedClient(write), labeller=cue_labeller, encoder=word_encoder)
    directory = RunDirectory(tmp_path / "run")
    Pipeline(logs, recipe, directory, resources=resources, say=lambda _: None).run(until="pairs")
    done = launch(["-m", "rlhi_training.train_together", str(directory.path)], 2, tmp_path)
    (record,) = AdapterRegistry(tmp_path / "registry").list()
    assert record.adapter_id in done.stdout
    assert done.stdout.count("registered") == 1
    pairs = len((directory.path / "pairs.jsonl").read_text("utf-8").splitlines())
    steps = int(done.stdout.split(" steps")[0].split()[-1])
    # Each of the two takes two pairs of a step.
    assert steps == -(-pairs // 4)
    assert (directory.path / "adapter" / "adapter_model.safetensors").is_file()
    assert not (directory.path / "checkpoints").exists()


SHARDED = """
import sys, warnings
from pathlib import Path

warnings.simplefilter("ignore")
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from trl.trainer.utils import FusedCausalLMOutput
from trl_peers import a_conversation, loss_and_gradients, rows_of, trainer

from rlhi_training.tree.forward import install

made = trainer(Path(sys.argv[1]), "sdpa")
assert made.accelerator.num_processes == 2
pairs = [a_conversation(4), [*a_conversation(1, seed=1), *a_conversation(3, seed=2)]][made.accelerator.process_index]
batch = made._prepare_inputs(made.data_collator(rows_of(pairs)))
expected_loss, expected = loss_and_gradients(made, batch)
for gradient in expected.values():
    dist.all_reduce(gradient)
    gradient /= 2
state = install(made.model.get_base_model(), FusedCausalLMOutput)
mesh = init_device_mesh("cpu", (2,))
base = made.model.get_base_model()
for part in [*base.model.layers, *([base.lm_head] if sys.argv[2] == "head" else [])]:
    fully_shard(part, mesh=mesh)
fully_shard(made.model, mesh=mesh)
loss, found = loss_and_gradients(made, batch)
assert state.reason is None, state.reason
assert state.tokens_computed < 0.7 * state.tokens_in
assert abs(loss - expected_loss) < 1e-5 * abs(expected_loss), (loss, expected_loss)
assert found.keys() == expected.keys()
for name, gradient in found.items():
    assert isinstance(gradient, DTensor), name
    whole = gradient.full_tensor()
    assert (whole - expected[name]).norm() / expected[name].norm() < 1e-4, name
print("sharded")
"""


@pytest.mark.slow
@pytest.mark.parametrize("head", ["root", "head"])
def test_sharded_weights_give_trls_loss_and_gradients(tiny_model_dir: Path, tmp_path: Path, head: str) -> None:
    """FSDP's second version, on processors: decoder layers and the rest are shards, the output layer maybe its own."""
    from trl_peers import build

    folder = build("llama_3.1", tmp_path / "model", tiny_model_dir)
    (tmp_path / "script.py").write_text(SHARDED, "utf-8")
    done = launch([str(tmp_path / "script.py"), str(folder), head], 2, tmp_path)
    assert done.stdout.count("sharded") == 2


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("train.rounds=3", r"train\.rounds = 3 .* rlhi-train train .* one process, or --set train\.rounds=1"),
        ("train.method=self_distillation", r"logged answers.* rlhi-train train .* --set train\.method=dpo"),
    ],
)
def test_what_one_process_must_do_is_refused_before_anything_is_loaded(
    tmp_path: Path, option: str, message: str
) -> None:
    from typer.testing import CliRunner

    from rlhi_plugin.errors import ConfigError
    from rlhi_training.recipe import Recipe
    from rlhi_training.run_directory import Manifest, RunDirectory
    from rlhi_training.train_together import app

    recipe = Recipe(name="two", summary="-").model_dump(mode="json")
    directory = RunDirectory(tmp_path / "run")
    directory.write_manifest(Manifest(recipe=recipe, logs="logs.jsonl", logs_digest="0", versions={}, seed=0))
    (directory.path / "pairs.jsonl").touch()
    before = sorted(directory.path.iterdir())
    with pytest.raises(ConfigError, match=message):
        CliRunner().invoke(app, [str(directory.path), "--set", option], catch_exceptions=False)
    assert sorted(directory.path.iterdir()) == before
