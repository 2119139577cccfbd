"""A model for whole loops in seconds: tiny, and trained for a moment to end its answers and to vary their form."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

_STEPS, _BATCH, _RATE = 250, 16, 4e-3
_WISHES = ("short", "bullets", "numbers", "greeting", "closing_question")


@pytest.fixture(scope="session")
def talking_model_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model after some steps on answers in all forms that simulated users wish for."""
    import torch

    from rlhi_adapters.loading import load_causal_lm, load_tokenizer, quiet
    from rlhi_adapters.templates import encode
    from rlhi_eval_harness.simulation import requests_for
    from rlhi_plugin.records import ChatMessage
    from rlhi_training.demonstrations import _demonstrations, compose

    draw = random.Random(0)
    tokenizer = load_tokenizer(tiny_model_dir)
    model = load_causal_lm(tiny_model_dir, dtype="float32").train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=_RATE)

    def example() -> tuple[list[int], int]:
        wanted = draw.sample(_WISHES, draw.randint(0, 2))
        prompt = [ChatMessage(role="user", content=draw.choice(requests_for("training")))]
        answer = ChatMessage(role="assistant", content=compose(draw.choice(_demonstrations()), wanted))
        head = encode(tokenizer, prompt, add_generation_prompt=True)
        # The template ends with a line break after the end of the turn; generation stops before it.
        return encode(tokenizer, [*prompt, answer], add_generation_prompt=False), len(head)

    state = torch.get_rng_state()
    torch.manual_seed(0)
    for _ in range(_STEPS):
        rows = [example() for _ in range(_BATCH)]
        width = max(len(ids) for ids, _ in rows)
        ids = torch.full((_BATCH, width), tokenizer.pad_token_id)
        labels = torch.full((_BATCH, width), -100)
        for place, (row, start) in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
            labels[place, start : len(row)] = torch.tensor(row[start:])
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    torch.set_rng_state(state)
    folder = tmp_path_factory.mktemp("talking") / "talking-llama"
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder
