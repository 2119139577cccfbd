"""SFT on chosen answers equals TRL's own `SFTTrainer` with completion-only loss, without the rejected answers' cost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from method_parity import assert_close, gradients, noisy_lora

from rlhi_adapters.loading import load_causal_lm, load_tokenizer, quiet
from rlhi_plugin.records import ChatMessage
from rlhi_training.methods import choice
from rlhi_training.records import PreferencePair, Provenance
from rlhi_training.trainer import train_adapter

# TRL and transformers read names that transformers has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")


def pair(prompt: list[tuple[str, str]], chosen: str, rejected: str, turn: int = 0) -> PreferencePair:
    return PreferencePair(
        source="rewrite",
        prompt=tuple(ChatMessage(role=role, content=text) for role, text in prompt),
        chosen=chosen,
        rejected=rejected,
        provenance=Provenance(
            conversation_id="c",
            turn=turn,
            request_id="m0",
            response_id="m1",
            chosen_candidate="a",
            rejected_candidate="b",
        ),
    )


@pytest.fixture
def pairs() -> list[PreferencePair]:
    """A conversation of two turns under a persona, one-token answers, and a request without persona."""
    history = [("system", 'In their own words:\n1. "shorter please"'), ("user", "How do I keep basil alive?")]
    longer = [*history, ("assistant", "Put it in a pot"), ("user", "And in winter?")]
    return [
        pair(history, "Water it and give it light.", "Put it in a pot"),
        pair(history, "y", "z"),
        pair(longer, "Keep it warm.", "Keep it warm, and talk to it every day if you like.", 1),
        pair([("user", "Tell me about tea")], "Tea is a drink.", "Would you like to know more?"),
    ]


def lora():
    from peft import LoraConfig

    return LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


def options(out: Path, **more):
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(out),
        max_length=None,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        shuffle_dataset=False,
        lr_scheduler_type="linear",
        learning_rate=5e-3,
        logging_steps=1,
        save_strategy="no",
        **more,
    )


def stock(folder: Path, pairs: list[PreferencePair], out: Path, **more):
    """TRL's own trainer, as its documentation has it for prompts and completions."""
    from datasets import Dataset
    from trl import SFTTrainer

    rows = [
        {
            "prompt": [{"role": m.role, "content": m.content} for m in each.prompt],
            "completion": [{"role": "assistant", "content": each.chosen}],
        }
        for each in pairs
    ]
    with quiet():
        return SFTTrainer(
            model=load_causal_lm(folder, dtype="float32"),
            args=options(out, completion_only_loss=True, **more),
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(folder),
            peft_config=lora(),
        )


def ours(folder: Path, rows, out: Path, train, **more):
    from datasets import Dataset

    from rlhi_training.methods.sequence_trainer import TreeSFTTrainer

    with quiet():
        return TreeSFTTrainer(
            share_prefixes=True,
            groups=[("c", str(i)) for i in range(len(rows))],
            on_reference=lambda _: None,
            train=train,
            model=load_causal_lm(folder, dtype="float32"),
            args=options(out, remove_unused_columns=False, dataset_kwargs={"skip_prepare_dataset": True}, **more),
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(folder),
            peft_config=lora(),
        )


def rows_of(pairs, folder: Path, train):
    kept, dropped = choice.tokenise(pairs, load_tokenizer(folder), "tiny", train)
    assert dropped == []
    return choice.rows(kept, train)


def loss_and_gradients(made, batch):
    noisy_lora(made.model)
    made.model.train()
    loss = made.compute_loss(made.model, batch)
    loss.backward()
    return loss.item(), gradients(made.model)


def test_tokens_loss_and_every_gradient_equal_trls_own(pairs, tiny_recipe, tiny_model_dir, tmp_path) -> None:
    train = tiny_recipe(method="sft").train
    rows = rows_of(pairs, tiny_model_dir, train)
    theirs, own = stock(tiny_model_dir, pairs, tmp_path / "a"), ours(tiny_model_dir, rows, tmp_path / "b", train)
    for row, other in zip(rows, theirs.train_dataset, strict=True):
        assert [*row["prompt_ids"], *row["answer_ids"]] == other["input_ids"]
        assert other["labels"] == [-100] * len(row["prompt_ids"]) + row["answer_ids"]
    expected_loss, expected = loss_and_gradients(theirs, theirs.data_collator(list(theirs.train_dataset)))
    loss, found = loss_and_gradients(own, own.data_collator(list(own.train_dataset)))
    assert own.shared.verified
    assert own.shared.reason is None
    assert own.shared.tokens_computed < 0.8 * own.shared.tokens_in
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert_close(found, expected)


def test_a_run_with_accumulated_gradients_has_trls_loss_curve(
    pairs, tiny_recipe, tiny_model_dir, tmp_path, monkeypatch
) -> None:
    """Micro-batches of unlike lengths: each token of a step counts alike, as in TRL."""
    from torch.utils.data import SequentialSampler
    from trl import SFTTrainer

    from rlhi_training.methods.sequence_trainer import TreeSFTTrainer

    for trainer in (SFTTrainer, TreeSFTTrainer):
        monkeypatch.setattr(trainer, "_get_train_sampler", lambda self, *_: SequentialSampler(self.train_dataset))
    train = tiny_recipe(method="sft").train
    more = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "max_steps": 10}
    curves = []
    for made in (
        stock(tiny_model_dir, pairs, tmp_path / "a", **more),
        ours(tiny_model_dir, rows_of(pairs, tiny_model_dir, train), tmp_path / "b", train, **more),
    ):
        made.model.load_state_dict(first_weights(made.model))
        with quiet():
            made.train()
        curves.append([entry["loss"] for entry in made.state.log_history if "loss" in entry])
    assert len(curves[0]) == 10
    assert curves[0][-1] < 0.8 * curves[0][0]
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)


def first_weights(model):
    """The same start for both: LoRA's A is drawn when a trainer is made."""
    noisy_lora(model, seed=2)
    return model.state_dict()


TOKENS = st.lists(st.integers(3, 6), min_size=1, max_size=6)
ROWS = st.lists(st.fixed_dictionaries({"prompt_ids": TOKENS, "answer_ids": TOKENS}), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def both(tiny_model_dir, tmp_path_factory):
    from rlhi_training.train_options import TrainSection

    out = tmp_path_factory.mktemp("both")
    some = [pair([("user", "Tell me about tea")], "Tea is a drink.", "No.")]
    rows = [{"prompt_ids": [5], "answer_ids": [6]}]
    return stock(tiny_model_dir, some, out / "a"), ours(tiny_model_dir, rows, out / "b", TrainSection(method="sft"))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_any_rows_at_all(both, rows) -> None:
    theirs, own = both
    for_trl = [
        {
            "input_ids": [*row["prompt_ids"], *row["answer_ids"]],
            "labels": [-100] * len(row["prompt_ids"]) + row["answer_ids"],
        }
        for row in rows
    ]
    expected_loss, expected = loss_and_gradients(theirs, theirs.data_collator(for_trl))
    loss, found = loss_and_gradients(own, own.data_collator(rows))
    assert loss == pytest.approx(expected_loss, rel=1e-4, abs=1e-6)
    assert_close(found, expected)


def test_an_adapter_is_trained_on_the_chosen_answers_alone(pairs, tiny_recipe, tmp_path) -> None:
    recipe = tiny_recipe(method="sft", epochs=8.0)
    result = train_adapter(pairs, recipe, tmp_path / "1", progress=None)
    losses = [entry["loss"] for entry in result.log_history if "loss" in entry]
    assert losses[-1] < 0.9 * losses[0]
    assert result.warnings == ()
    assert "rewards/margins" not in result.metrics
    assert "supervised fine-tuning" in (result.adapter_dir / "README.md").read_text("utf-8")
    other = [each.model_copy(update={"rejected": "Something else."}) for each in pairs]
    again = train_adapter(other, recipe, tmp_path / "2", progress=None)
    weights = [(run.adapter_dir / "adapter_model.safetensors").read_bytes() for run in (result, again)]
    assert weights[0] == weights[1], "the rejected answers play no part"


def test_sft_as_a_dpo_loss_is_the_same_objective(pairs, tiny_recipe, tmp_path) -> None:
    """``loss = ["sft"]``, the older way to say it, where a step is one micro-batch; it computes what it ignores."""
    curves = []
    for name, train in (("a", {"method": "sft"}), ("b", {"loss": ("sft",), "loss_weights": (1.0,)})):
        torch.manual_seed(0)
        result = train_adapter(pairs, tiny_recipe(**train), tmp_path / name, progress=None)
        curves.append([entry["loss"] for entry in result.log_history if "loss" in entry])
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
