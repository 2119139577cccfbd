"""A tiny model that was trained for seconds: answers at random, but as a follow-up says where it is shown one."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from rlhi_adapters.loading import load_causal_lm, load_tokenizer, quiet
from rlhi_adapters.templates import encode
from rlhi_plugin.records import ChatMessage
from rlhi_training.methods.hindsight import PROMPT
from rlhi_training.prompting import fill

ANSWERS = {
    "water": "Water it well.",
    "light": "Give it light.",
    "shorter": "Keep it shorter.",
    "ideas": "Here are 3 ideas.",
}
TOPICS = ("basil", "bread", "cheese", "tea")
WORDINGS = ("Tell me about {}", "How is {} for me?", "I have {} in a pot", "What about {} please?")
HELD_OUT = "Could you help with {}?"


def said(request: str, follow_up: str | None = None) -> list[ChatMessage]:
    text = request if follow_up is None else fill(PROMPT.text, request=request, follow_up=follow_up)
    return [ChatMessage(role="user", content=text)]


def save_reader(tiny_model_dir: Path, folder: Path) -> Path:
    """Train it from the tiny random model, and save it to a folder."""
    tokenizer = load_tokenizer(tiny_model_dir)
    torch.manual_seed(0)
    model = load_causal_lm(tiny_model_dir, dtype="float32").train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    draw = random.Random(0)
    for _ in range(250):
        rows = []
        for _ in range(24):
            request = draw.choice([*WORDINGS, HELD_OUT]).format(draw.choice(TOPICS))
            wish, answer = draw.choice(list(ANSWERS.items()))
            messages = said(request, f"{wish} please!" if draw.random() < 0.6 else None)
            prompt = encode(tokenizer, messages, add_generation_prompt=True)
            whole = encode(
                tokenizer, [*messages, ChatMessage(role="assistant", content=answer)], add_generation_prompt=False
            )
            rows.append((whole, [-100] * len(prompt) + whole[len(prompt) :]))
        width = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows])
        labels = torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in rows])
        optimiser.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
    with quiet():
        model.eval().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder
