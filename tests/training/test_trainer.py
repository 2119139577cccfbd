"""Training end to end on a tiny model, and the trainer against TRL's own."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from rlhi_adapters.loading import load_causal_lm, load_tokenizer, quiet
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import ChatMessage
from rlhi_training.recipe import ModelSection, Recipe
from rlhi_training.records import PreferencePair, Provenance
from rlhi_training.tokenised_pairs import tokenise_pairs
from rlhi_training.train_options import TrainSection
from rlhi_training.trainer import train_adapter

PERSONA = 'What this user asked for in earlier conversations, in their own words:\n1. "shorter please"'


def make_pair(prompt: list[tuple[str, str]], chosen: str, rejected: str, source: str = "rewrite") -> PreferencePair:
    return PreferencePair(
        source=source,
        prompt=tuple(ChatMessage(role=role, content=text) for role, text in prompt),
        chosen=chosen,
        rejected=rejected,
        provenance=Provenance(
            conversation_id="c",
            turn=0,
            request_id="m0",
            response_id="m1",
            chosen_candidate="a",
            rejected_candidate="b",
        ),
    )


def some_pairs() -> list[PreferencePair]:
    """Two branching conversations, contrast pairs, odd lengths, one-token answers."""
    pairs = []
    for persona in (PERSONA, PERSONA + '\n2. "finish with a question"'):
        history = [("system", persona), ("user", "How do I keep basil alive?")]
        answers = ["Water it and give it light, but not too much of it.", "Put it in a pot", "y", "z"]
        pairs.append(make_pair(history, answers[0], answers[1]))
        pairs.append(make_pair(history, answers[2], answers[3]))
        longer = [*history, ("assistant", answers[1]), ("user", "And in winter? Be brief.")]
        pairs.append(make_pair(longer, "Keep it warm.", "Keep it warm, and talk to it every day if you like."))
    request = [("user", "Tell me about tea")]
    pairs.append(
        make_pair([("system", PERSONA), *request], "Tea is a drink.", "Would you like to know more?", "contrast")
    )
    pairs.append(make_pair(request, "Would you like to know more?", "Tea is a drink.", "contrast"))
    return pairs


def tiny_recipe(tiny_model_dir: Path, **train) -> Recipe:
    settings = {"epochs": 3.0, "batch_size": 4, "micro_batch_size": 4, "learning_rate": 5e-3, "lora_rank": 4}
    # Tests leave nothing in the user's cache folder.
    settings |= {"reuse_reference": False, **train}
    return Recipe(
        name="tiny",
        summary="test",
        model=ModelSection(base=str(tiny_model_dir), dtype="float32"),
        train=TrainSection(**settings),
    )


@pytest.fixture(scope="module")
def trained(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("run")
    pairs = [*some_pairs(), make_pair([("user", "word " * 900)], "a", "b"), some_pairs()[0]]
    return train_adapter(pairs, tiny_recipe(tiny_model_dir, max_length=500), out, progress=None)


def test_six_steps_learn_the_pairs(trained) -> None:
    assert trained.steps == 6
    assert trained.trained_pairs == 8
    first, last = (trained.log_history[i] for i in (0, -2))
    assert first["rewards/margins"] == pytest.approx(0.0, abs=1e-6)
    assert last["rewards/margins"] > 0.05
    assert last["loss"] < first["loss"]
    assert trained.metrics["tokens_shared"] > 0.3
    assert trained.warnings == ()


def test_what_cannot_be_trained_on_is_dropped_with_its_id_and_reason(trained) -> None:
    assert sorted(drop.reason for drop in trained.dropped) == ["duplicate", "too_long"]
    assert all(len(drop.key) == 16 for drop in trained.dropped)


def test_the_adapter_is_two_plain_files_and_a_card(trained, tiny_model_dir: Path) -> None:
    files = sorted(path.name for path in trained.adapter_dir.iterdir())
    assert files == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in trained.adapter_dir.iterdir())
    config = json.loads((trained.adapter_dir / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == str(tiny_model_dir)
    assert config["target_modules"] == sorted(config["target_modules"])
    card = (trained.adapter_dir / "README.md").read_text("utf-8")
    assert "8 preference pairs: 2 contrast, 6 rewrite." in card
    assert "1 duplicate, 1 too_long" in card
    assert trained.base.digest in card
    run = trained.adapter_dir.parent
    assert sorted(path.name for path in run.iterdir()) == ["adapter", "training_log.jsonl"]
    logged = [json.loads(line) for line in (run / "training_log.jsonl").read_text("utf-8").splitlines()]
    assert logged == list(trained.log_history)


def test_the_adapter_loads_in_plain_peft_and_changes_the_model(trained, tiny_model_dir: Path) -> None:
    from peft import PeftModel

    base = load_causal_lm(tiny_model_dir, dtype="float32")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before = base(ids).logits
        with quiet():
            adapted = PeftModel.from_pretrained(base, str(trained.adapter_dir))
        assert (adapted(ids).logits - before).abs().max() > 1e-2
        with adapted.disable_adapter():
            torch.testing.assert_close(adapted(ids).logits, before)


def stock_trainer(pairs: list[PreferencePair], recipe: Recipe, out: Path):
    """TRL's own trainer on the same pairs, as its documentation has it."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    base = Path(recipe.model.base)
    rows = [
        {
            "prompt": [{"role": m.role, "content": m.content} for m in pair.prompt],
            "chosen": [{"role": "assistant", "content": pair.chosen}],
            "rejected": [{"role": "assistant", "content": pair.rejected}],
        }
        for pair in pairs
    ]
    with quiet():
        config = DPOConfig(
            output_dir=str(out),
            per_device_train_batch_size=len(rows),
            max_length=None,
            gradient_checkpointing=False,
            loss_type=list(recipe.train.loss),
            loss_weights=list(recipe.train.loss_weights),
            beta=recipe.train.beta,
            bf16=False,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            seed=0,
        )
    lora = LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    with quiet():
        return DPOTrainer(
            model=load_causal_lm(base, dtype="float32"),
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(base),
            peft_config=lora,
        )


def loss_and_gradients(trainer, batch) -> tuple[float, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    trainer.model.train()
    for name, parameter in trainer.model.named_parameters():
        # B starts at zero, where A has no gradient.
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
            parameter.grad = None
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}


# TRL 1.16 reads names that transformers has deprecated.
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
def test_loss_metrics_and_every_lora_gradient_equal_trls_own(tiny_model_dir: Path, tmp_path: Path) -> None:
    from trl.trainer.utils import FusedCausalLMOutput

    from rlhi_training.tree.forward import install

    pairs, recipe = some_pairs(), tiny_recipe(tiny_model_dir)
    trainer = stock_trainer(pairs, recipe, tmp_path)
    kept, _ = tokenise_pairs(pairs, load_tokenizer(tiny_model_dir), "tiny", max_length=2048)
    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    # Ours hands TRL token ids: they must be the ones it would have made.
    assert [[row[c] for c in columns] for row in trainer.train_dataset] == [
        [getattr(p, c) for c in columns] for p in kept
    ]

    batch = trainer.data_collator(list(trainer.train_dataset))
    expected_loss, expected = loss_and_gradients(trainer, batch)
    expected_metrics = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    state = install(trainer.model.get_base_model(), FusedCausalLMOutput)
    loss, gradients = loss_and_gradients(trainer, batch)
    assert state.verified
    assert state.reason is None
    assert state.tokens_computed < 0.6 * state.tokens_in
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert gradients.keys() == expected.keys()
    assert len(gradients) == 2 * 2 * 7
    for name, gradient in gradients.items():
        error = (gradient - expected[name]).norm() / expected[name].norm()
        assert error < 1e-4, name
    for name, value in expected_metrics.items():
        if name != "num_tokens":
            assert trainer._metrics["train"][name][-1] == pytest.approx(value, rel=1e-4, abs=1e-5), name


class KilledError(Exception):
    """Stands in for a kill: raised in the middle of training."""


def test_a_killed_run_continues_to_the_same_weights(
    trained, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlhi_training.watch import Watch

    recipe = tiny_recipe(tiny_model_dir, max_length=500)
    step = Watch.on_step_end

    def kill_at_four(self, args, state, control, **rest):
        step(self, args, state, control, **rest)
        if state.global_step == 4:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "on_step_end", kill_at_four)
        with pytest.raises(KilledError):
            train_adapter(some_pairs(), recipe, tmp_path, progress=None)
    # A checkpoint that the kill cut short is newer, and must not be used.
    shutil.copytree(tmp_path / "checkpoints" / "checkpoint-3", tmp_path / "checkpoints" / "checkpoint-4")
    (tmp_path / "checkpoints" / "checkpoint-4" / "complete").unlink()
    (tmp_path / "checkpoints" / "checkpoint-4" / "trainer_state.json").write_text("{", "utf-8")
    resumed = train_adapter(some_pairs(), recipe, tmp_path, progress=None)
    assert resumed.resumed_from == 3
    assert resumed.steps == 6
    whole, again = ((run.adapter_dir / "adapter_model.safetensors").read_bytes() for run in (trained, resumed))
    assert whole == again


def test_a_later_run_reads_what_the_base_thinks(tiny_model_dir: Path, tmp_path: Path, monkeypatch) -> None:
    from rlhi_training.tree.trl_trainer import TreeDPOTrainer

    monkeypatch.setenv("RLHI_CACHE", str(tmp_path / "cache"))
    passes, compute = [], TreeDPOTrainer.compute_ref_log_probs
    monkeypatch.setattr(
        TreeDPOTrainer, "compute_ref_log_probs", lambda *args: passes.append(len(args)) or compute(*args)
    )
    recipe = tiny_recipe(tiny_model_dir, epochs=1.0, reuse_reference=True)
    first = train_adapter(some_pairs()[:6], recipe, tmp_path / "1", progress=None)
    assert first.metrics["reference_reused"] == 0.0
    assert len(passes) == 1
    again = train_adapter(some_pairs()[:6], recipe, tmp_path / "2", progress=None)
    assert again.metrics["reference_reused"] == 1.0
    assert len(passes) == 1
    more = train_adapter(some_pairs(), recipe, tmp_path / "3", progress=None)
    assert more.metrics["reference_reused"] == 6 / 8
    assert len(passes) == 2
    weights = [(run.adapter_dir / "adapter_model.safetensors").read_bytes() for run in (first, again)]
    assert weights[0] == weights[1]


def test_checkpoints_of_other_pairs_are_not_continued(tiny_model_dir: Path, tmp_path: Path) -> None:
    stale = tmp_path / "checkpoints" / "checkpoint-2"
    stale.mkdir(parents=True)
    (stale / "complete").touch()
    (tmp_path / "checkpoints" / "inputs.sha256").write_text("another run", "utf-8")
    result = train_adapter(some_pairs()[:4], tiny_recipe(tiny_model_dir, epochs=1.0), tmp_path, progress=None)
    assert result.resumed_from is None
    assert result.steps == 1


def test_without_anything_to_learn_it_says_so(tiny_model_dir: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tiny_model_dir, epochs=12.0, learning_rate=1e-12, loss=("sigmoid",), loss_weights=(1.0,))
    result = train_adapter(some_pairs()[:4], recipe, tmp_path, progress=None)
    assert "told apart by less than" in result.warnings[0]
    assert math.isclose(result.metrics["loss"], math.log(2), rel_tol=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"micro_batch_size": 3}, "does not divide"),
        ({"loss_weights": (1.0,)}, "one weight a loss"),
        ({"max_length": 64}, "no pairs left"),
    ],
)
def test_settings_that_cannot_work_are_refused(tiny_model_dir: Path, tmp_path: Path, settings, message) -> None:
    pairs = [make_pair([("user", "word " * 400)], "a", "b")]
    with pytest.raises(ConfigError, match=message):
        train_adapter(pairs, tiny_recipe(tiny_model_dir, **settings), tmp_path, progress=None)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% if m.role != 'system' %}{{ m.role + m.content }}{% endif %}{% endfor %}",
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}",
    ],
)
def test_a_template_without_system_role_is_refused_where_there_are_personas(
    tiny_model_dir: Path, tmp_path: Path, template: str
) -> None:
    folder = tmp_path / "no-system"
    shutil.copytree(tiny_model_dir, folder)
    (folder / "chat_template.jinja").write_text(template, "utf-8")
    with pytest.raises(ConfigError, match="train without personas"):
        train_adapter(some_pairs(), tiny_recipe(folder), tmp_path / "out", progress=None)
