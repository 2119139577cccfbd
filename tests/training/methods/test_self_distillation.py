"""Self-distillation on trees equals the plain computation, trains, resumes, and says when there is nothing to learn."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from method_parity import assert_close, gradients, noisy_lora

from rlhi_adapters.loading import load_causal_lm, load_tokenizer, quiet
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import ChatMessage
from rlhi_training.methods.hindsight import PROMPT, hindsight
from rlhi_training.train_options import TrainSection
from rlhi_training.trainer import train_adapter

# transformers reads names that it has itself deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")

TEACHERS = ("base", "start", "current")


def make_trainer(folder: Path, rows, teacher: str, out: Path, *, share: bool = True, clip: float = 2.0):
    """Our trainer on rows of token ids, with LoRA weights that are not zero when the teacher is asked."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from trl import SFTConfig

    from rlhi_training.methods.sequence_trainer import SelfDistillationTrainer

    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    with quiet():
        model = get_peft_model(load_causal_lm(folder, dtype="float32"), lora)
        noisy_lora(model)
        return SelfDistillationTrainer(
            share_prefixes=share,
            groups=[("c", str(i)) for i in range(len(rows))],
            on_reference=lambda _: None,
            train=TrainSection(teacher=teacher, advantage_clip=clip),
            model=model,
            args=SFTConfig(
                output_dir=str(out),
                max_length=None,
                gradient_checkpointing=False,
                bf16=False,
                use_cpu=True,
                report_to=[],
                disable_tqdm=True,
                remove_unused_columns=False,
                per_device_train_batch_size=len(rows),
                dataset_kwargs={"skip_prepare_dataset": True},
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(folder),
        )


def plain_log_probs(model, prompt, answer) -> torch.Tensor:
    """log p of each answer token: one row, no padding, transformers' own forward pass."""
    logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].float()
    scores = torch.log_softmax(logits[len(prompt) - 1 : -1], dim=-1)
    return scores.gather(1, torch.tensor(answer)[:, None])[:, 0]


def plain_loss(model, rows, teacher: str, clip: float) -> torch.Tensor:
    """The formula of `SelfDistillationTrainer`, one row after the other."""
    losses = []
    for row in rows:
        with torch.no_grad(), model.disable_adapter() if teacher == "base" else contextlib.nullcontext():
            shown = plain_log_probs(model, row["teacher_prompt_ids"], row["answer_ids"])
        own = plain_log_probs(model, row["prompt_ids"], row["answer_ids"])
        losses.append(-((shown - own.detach()).clamp(-clip, clip) * own).mean())
    return torch.stack(losses).mean()


def compare(folder: Path, rows, teacher: str, out: Path) -> float:
    """Both ways on one batch; the share of the student's and teacher's tokens that the trees computed."""
    return compare_with(make_trainer(folder, rows, teacher, out), rows)


def compare_with(made, rows) -> float:
    """The same with a trainer that is there already, and has been asked about these rows."""
    teacher, clip = made._recipe.teacher, made._recipe.advantage_clip
    made.model.train()
    batch = made._prepare_inputs(made.data_collator(list(made.train_dataset)))
    loss = made.compute_loss(made.model, batch)
    loss.backward()
    found = gradients(made.model)
    assert made.shared.verified or len(rows) == 1
    assert made.shared.reason is None
    expected_loss = plain_loss(made.model, rows, teacher, clip)
    expected_loss.backward()
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-4, abs=1e-6)
    assert_close(found, gradients(made.model))
    return made.shared.tokens_computed / made.shared.tokens_in


def a_conversation(turns: int, seed: int = 0):
    """Logged answers that are the next turns' past, and a follow-up shown at the end of each request."""
    draw = torch.Generator().manual_seed(seed)

    def text(length):
        return torch.randint(3, 400, (length,), generator=draw).tolist()

    context, rows = text(9), []
    for turn in range(turns):
        context = [*context, *text(3 + turn)]
        answer = text(5 + 2 * turn)
        rows.append({"prompt_ids": context, "teacher_prompt_ids": [*context, *text(4)], "answer_ids": answer})
        context = [*context, *answer]
    return rows


@pytest.mark.parametrize("teacher", TEACHERS)
def test_loss_and_every_gradient_equal_the_plain_computation(tiny_model_dir, tmp_path, teacher) -> None:
    rows = [*a_conversation(4), *a_conversation(1, seed=1)]
    assert compare(tiny_model_dir, rows, teacher, tmp_path) < 0.7


@pytest.mark.parametrize("name", ["gemma_3", "qwen3"])
def test_other_architectures(tiny_model_dir, tmp_path, name) -> None:
    from test_tree_architectures import build

    compare(build(name, tmp_path / name, tiny_model_dir), a_conversation(3), "current", tmp_path)


TOKENS = st.lists(st.integers(3, 6), min_size=1, max_size=6)
ROWS = st.lists(
    st.fixed_dictionaries({"prompt_ids": TOKENS, "teacher_prompt_ids": TOKENS, "answer_ids": TOKENS}),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module")
def trainers(tiny_model_dir, tmp_path_factory):
    """One for each teacher, with a clip that some advantages reach."""
    clips = {"base": 0.3, "start": 2.0, "current": 50.0}
    out = tmp_path_factory.mktemp("trainers")
    return {t: make_trainer(tiny_model_dir, a_conversation(1), t, out, clip=clips[t]) for t in TEACHERS}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, teacher=st.sampled_from(TEACHERS))
def test_any_rows_at_all(trainers, rows, teacher) -> None:
    """Few different tokens: prompts and answers begin alike, and the teacher's prompt may be the student's."""
    from datasets import Dataset

    made = trainers[teacher]
    made.train_dataset = Dataset.from_list(rows)
    made._groups = [("c", str(i)) for i in range(len(rows))]
    made._ask_reference()
    compare_with(made, rows)


def some_turns(labelled):
    """Two users, a conversation of two turns, and one of one."""
    asked, answered = "How do I keep basil alive?", "Water it and give it light, but not too much of it."
    return [
        labelled("Shorter please."),
        labelled("Be brief!", context=(asked, answered, "And in winter?"), response="Keep it warm and talk to it."),
        labelled("Use bullet points.", conversation="d", user="bob", context=("Tell me about tea",)),
        labelled("Finish with a question.", conversation="e", user="cyd", context=("Tell me about bread",)),
        labelled("Numbers please!", conversation="f", user="dan", response="Ideas"),
    ]


def material(labelled, recipe):
    found = hindsight(some_turns(labelled), {}, recipe)
    assert found.dropped == ()
    return found.turns


@pytest.mark.parametrize("teacher", ["base", "current"])
def test_an_adapter_is_trained_towards_the_teacher(labelled, tiny_recipe, tmp_path, teacher) -> None:
    recipe = tiny_recipe(method="self_distillation", epochs=6.0, teacher=teacher, advantage_clip=10.0)
    result = train_adapter(material(labelled, recipe), recipe, tmp_path, progress=None)
    assert result.steps == 12
    first, last = result.log_history[0], result.log_history[-2]
    assert last["advantage/size"] < 0.9 * first["advantage/size"]
    assert 0.0 < first["advantage/positive"] < 1.0
    assert result.metrics["tokens_shared"] > 0.1
    card = (result.adapter_dir / "README.md").read_text("utf-8")
    assert "5 logged answers: 5 self_distillation." in card
    assert "2603.12273" in card
    assert PROMPT.version in card


class KilledError(Exception):
    """Stands in for a kill."""


def test_a_killed_run_continues_to_the_same_weights(labelled, tiny_recipe, tmp_path, monkeypatch) -> None:
    from rlhi_training.methods.watch import SequenceWatch

    recipe = tiny_recipe(method="self_distillation", teacher="base")
    turns = material(labelled, recipe)
    whole = train_adapter(turns, recipe, tmp_path / "whole", progress=None)
    step = SequenceWatch.on_step_end

    def kill_at_four(self, args, state, control, **rest):
        step(self, args, state, control, **rest)
        if state.global_step == 4:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(SequenceWatch, "on_step_end", kill_at_four)
        with pytest.raises(KilledError):
            train_adapter(turns, recipe, tmp_path / "killed", progress=None)
    resumed = train_adapter(turns, recipe, tmp_path / "killed", progress=None)
    assert resumed.resumed_from == 3
    weights = [(run.adapter_dir / "adapter_model.safetensors").read_bytes() for run in (whole, resumed)]
    assert weights[0] == weights[1]


def test_a_teacher_that_cannot_read_raises_the_alarm(labelled, tiny_recipe, tiny_model_dir, tmp_path) -> None:
    """A model whose attention adds nothing to its stream sees one token at a time, and no follow-up."""
    folder = tmp_path / "blind"
    model = load_causal_lm(tiny_model_dir, dtype="float32")
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
    with quiet():
        model.save_pretrained(folder)
        load_tokenizer(tiny_model_dir).save_pretrained(folder)
    recipe = tiny_recipe(base=folder, method="self_distillation", epochs=1.0)
    result = train_adapter(material(labelled, recipe), recipe, tmp_path / "run", progress=None)
    assert len(result.warnings) == 1
    assert "this model cannot use them" in result.warnings[0]
    assert result.metrics["advantage/size"] < 1e-4


def test_pairs_and_logged_answers_are_not_mistaken_for_each_other(labelled, tiny_recipe, tmp_path) -> None:
    turns = material(labelled, tiny_recipe(method="self_distillation"))
    with pytest.raises(ConfigError, match="takes pairs"):
        train_adapter(turns, tiny_recipe(), tmp_path, progress=None)


def test_what_does_not_fit_is_dropped_with_its_reason(labelled, tiny_recipe, tiny_model_dir) -> None:
    from rlhi_training.methods.tokenised import tokenise_hindsight

    turns = [
        labelled("Shorter please.", conversation="fits"),
        labelled("please " * 300, conversation="follow-up"),
        labelled("Shorter please.", conversation="answer", response="light " * 300),
    ]
    found = hindsight(turns, {}, tiny_recipe(method="self_distillation"))
    kept, dropped = tokenise_hindsight(found.turns, load_tokenizer(tiny_model_dir), "tiny", max_length=200)
    assert [item.pair_id for item in kept] == ["fits#0"]
    assert {drop.key: drop.reason for drop in dropped} == {
        "follow-up#0": "follow_up_too_long",
        "answer#0": "too_long",
    }
    assert "train.max_length is 200" in dropped[0].detail


def test_a_template_that_hides_the_follow_up_or_rewrites_the_answer(labelled, tiny_recipe, tiny_model_dir) -> None:
    from rlhi_training.methods.tokenised import tokenise_hindsight

    found = hindsight([labelled()], {}, tiny_recipe(method="self_distillation"))
    tokenizer = load_tokenizer(tiny_model_dir)
    open_turn = "{% if add_generation_prompt %}A:{% endif %}"
    answer = "{% if m.role == 'assistant' %}A:{{ CHANGED }}{% else %}{{ m.content[:9] }}{% endif %}"
    say = f"{{% for m in messages %}}{answer}{{% endfor %}}"
    tokenizer.chat_template = say.replace("CHANGED", "m.content") + open_turn
    assert tokenise_hindsight(found.turns, tokenizer, "t", max_length=500)[1][0].reason == "equal_prompts"
    say = say.replace("m.content[:9]", "m.content")
    tokenizer.chat_template = say.replace("CHANGED", "messages[0].content | length ~ m.content") + open_turn
    assert tokenise_hindsight(found.turns, tokenizer, "t", max_length=500)[1][0].reason == "answer_renders_differently"


def test_rows_hold_the_prompts_that_serving_would_send(labelled, tiny_recipe) -> None:
    (turn,) = hindsight([labelled("  Shorter please. ")], {}, tiny_recipe(method="self_distillation")).turns
    assert turn.prompt == (ChatMessage(role="user", content="How do I keep basil alive?"),)
    shown = turn.teacher_prompt[-1].content
    assert shown.startswith("How do I keep basil alive?\n")
    assert '"Shorter please."' in shown
    assert json.loads(turn.model_dump_json())["provenance"]["follow_up_id"] == "c-2"
