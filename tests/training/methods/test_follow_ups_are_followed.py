"""Self-distillation moves a model to where follow-ups point, and shuffled follow-ups do not: measured in one run."""

from __future__ import annotations

import random
from pathlib import Path
from statistics import fmean

import pytest
import torch
from tiny_reader import ANSWERS, HELD_OUT, TOPICS, WORDINGS, said

from rlhi_adapters.loading import load_causal_lm, load_tokenizer, quiet
from rlhi_adapters.templates import encode
from rlhi_plugin.records import ChatMessage
from rlhi_training.methods.hindsight import hindsight
from rlhi_training.trainer import train_adapter

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning"),
]

WANTED, BESIDES = "light", "water"
"""What three users of four want, and the fourth; nobody says so in the request."""


def chances(model, tokenizer, messages) -> dict[str, float]:
    """How likely each answer begins, as shares of the four."""
    prompt = encode(tokenizer, messages, add_generation_prompt=True)
    with torch.no_grad():
        scores = model(input_ids=torch.tensor([prompt])).logits[0, -1].softmax(dim=0)
    found = {}
    for wish, answer in ANSWERS.items():
        whole = encode(
            tokenizer, [*messages, ChatMessage(role="assistant", content=answer)], add_generation_prompt=False
        )
        found[wish] = float(scores[whole[len(prompt)]])
    total = sum(found.values())
    return {wish: value / total for wish, value in found.items()}


def wanted(model, tokenizer) -> float:
    """Mean chance of what most users want, in a wording that no log holds, without any follow-up."""
    return fmean(chances(model, tokenizer, said(HELD_OUT.format(topic)))[WANTED] for topic in TOPICS)


def adapted(folder: Path, adapter: Path):
    from peft import PeftModel

    with quiet():
        return PeftModel.from_pretrained(load_causal_lm(folder, dtype="float32"), str(adapter))


@pytest.mark.parametrize("teacher", ["base", "current"])
def test_the_model_moves_where_follow_ups_point(reader, labelled, tiny_recipe, tmp_path, teacher) -> None:
    tokenizer = load_tokenizer(reader)
    base = load_causal_lm(reader, dtype="float32")
    shown = [
        chances(base, tokenizer, said(HELD_OUT.format(topic), f"{wish} please!"))[wish]
        for topic in TOPICS
        for wish in ANSWERS
    ]
    assert fmean(shown) > 0.8, "the teacher reads follow-ups"
    draw = random.Random(1)
    turns = [
        labelled(
            f"{BESIDES if number % 4 == 0 else WANTED} please!",
            context=(draw.choice(WORDINGS).format(draw.choice(TOPICS)),),
            # Whatever was answered: else logged answers would be worse than others by themselves.
            response=draw.choice(list(ANSWERS.values())),
            conversation=f"c{number}",
            user=f"u{number}",
        )
        for number in range(64)
    ]
    found = {"base": wanted(base, tokenizer)}
    for follow_ups in ("own", "shuffled"):
        recipe = tiny_recipe(
            base=reader,
            method="self_distillation",
            teacher=teacher,
            follow_ups=follow_ups,
            epochs=6.0,
            batch_size=8,
            micro_batch_size=8,
            learning_rate=5e-3,
        )
        material = hindsight(turns, {}, recipe)
        assert len(material.turns) == 64
        result = train_adapter(material.turns, recipe, tmp_path / follow_ups, progress=None)
        assert result.warnings == ()
        found[follow_ups] = wanted(adapted(reader, result.adapter_dir), tokenizer)
    print(f"teacher {teacher}: chance of what the topic's users want: {found}")
    assert found["own"] > found["base"] + 0.2
    assert found["own"] > found["shuffled"] + 0.2
