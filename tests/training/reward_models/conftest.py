"""Tiny random reward models, saved as trained ones are, and what the tests say to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhi_plugin.records import ChatMessage, Evidence, Persona, PersonaStatement
from rlhi_training.records import Candidate, LabelledTurn

ANSWERS = (
    "Water it well.",
    "Give it light and water, and turn the pot every few days so that it grows straight.",
    "Here are 3 ideas: bread, cheese and tea.",
    "Water it well and give it light.",
)
_REFUSES_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
)


@pytest.fixture(scope="session")
def turn() -> LabelledTurn:
    """A request with the app's own system message."""
    return LabelledTurn(
        conversation_id="c",
        user_id="ann",
        turn=0,
        context=(
            ChatMessage(role="system", content="You are a helpful assistant."),
            ChatMessage(role="user", content="How do I keep basil alive indoors?"),
        ),
        response="Water it.",
        request_id="q",
        response_id="a",
    )


@pytest.fixture(scope="session")
def candidates() -> list[Candidate]:
    """Four answers to it."""
    return [Candidate(conversation_id="c", turn=0, text=text, origin="sample", model="m") for text in ANSWERS]


@pytest.fixture(scope="session")
def persona() -> Persona:
    """Somebody who likes it short."""
    evidence = Evidence(conversation_id="old", message_id="m", quote="please keep it shorter")
    statement = PersonaStatement(text="please keep it shorter", evidence=(evidence,))
    return Persona(user_id="ann", statements=(statement,), builder="test")


@pytest.fixture(scope="session")
def saved_model(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Saves a random classifier of a family: ``llama``, ``qwen2``, ``gemma``, ``mistral``, ``bert`` or ``athene``."""

    def save(family: str, *, labels: int = 1, refuses_system: bool = False) -> Path:
        import torch
        from transformers import AutoTokenizer

        from rlhi_adapters.loading import quiet

        tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
        tokenizer.add_special_tokens({"pad_token": "<pad>", "cls_token": "<cls>"})
        if refuses_system:
            tokenizer.chat_template = _REFUSES_SYSTEM
        if family == "bert":
            tokenizer.chat_template = None
        state = torch.get_rng_state()
        torch.manual_seed(3)
        model = _random(family, len(tokenizer), labels, tokenizer.pad_token_id)
        torch.set_rng_state(state)
        folder = tmp_path_factory.mktemp("rm") / family
        with quiet():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        return folder

    return save


def _random(family: str, vocabulary: int, labels: int, pad: int) -> Any:
    import transformers as t

    sizes: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "pad_token_id": pad,
        "initializer_range": 0.25,
        "num_labels": labels,
    }
    if family == "bert":
        return t.BertForSequenceClassification(t.BertConfig(**sizes))
    sizes |= {"num_key_value_heads": 2, "max_position_embeddings": 2048}
    if family == "athene":
        from rlhi_training.reward_models.classifier_model import _athene_class

        return _athene_class()(t.LlamaConfig(**sizes))
    kinds = {
        "llama": (t.LlamaForSequenceClassification, t.LlamaConfig, {}),
        "qwen2": (t.Qwen2ForSequenceClassification, t.Qwen2Config, {}),
        "gemma": (t.GemmaForSequenceClassification, t.GemmaConfig, {"head_dim": 8}),
        "mistral": (t.MistralForSequenceClassification, t.MistralConfig, {"sliding_window": 16}),
    }
    model, config, more = kinds[family]
    return model(config(**sizes, **more))
