"""A template may render an answer otherwise once it is history: counted, named, and trained on at the same loss."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from test_trainer import make_pair, tiny_recipe

from rlhi_adapters.loading import load_tokenizer
from rlhi_training.reread_history import rendered_otherwise
from rlhi_training.tokenised_pairs import tokenise_pairs
from rlhi_training.trainer import train_adapter

REQUEST = ("user", "How do I keep basil alive?")
THINKING = "<think>It wants light. It wants water. Not too much of either.</think>Put it into a pot by the window."
FORGETS_THOUGHTS = (
    "{% for m in messages %}"
    "{% set text = m.content.split('</think>')[-1] if m.role == 'assistant' and not loop.last else m.content %}"
    "{{ '<|im_start|>' + m.role + '\n' + text + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def a_conversation(name: str, original: str):
    first = make_pair([REQUEST], "Water it twice a week.", original)
    past = [REQUEST, ("assistant", original), ("user", "And in winter?")]
    second = make_pair(past, "Water it once a week.", "Bring it inside.")
    return [
        pair.model_copy(update={"provenance": pair.provenance.model_copy(update={"conversation_id": name})})
        for pair in (first, second)
    ]


@pytest.fixture
def forgetful(tiny_model_dir: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "forgetful"
    shutil.copytree(tiny_model_dir, folder)
    (folder / "chat_template.jinja").write_text(FORGETS_THOUGHTS, "utf-8")
    return folder


def reread(folder: Path, pairs) -> list[str]:
    kept, _ = tokenise_pairs(pairs, load_tokenizer(folder), "tiny", max_length=2000)
    return rendered_otherwise(pairs, kept)


def test_conversations_whose_answers_change_are_named(forgetful: Path, tiny_model_dir: Path) -> None:
    pairs = [*a_conversation("thinks", THINKING), *a_conversation("speaks", "Put it into a pot.")]
    assert reread(forgetful, pairs) == ["thinks"]
    assert reread(tiny_model_dir, pairs) == []
    assert reread(forgetful, pairs[::-1]) == ["thinks"]
    assert reread(forgetful, pairs[1:]) == [], "without its first turn nothing could have been shared"


def test_they_are_trained_on_at_trls_own_loss_and_said_to_share_less(forgetful: Path, tmp_path: Path) -> None:
    pairs = [*a_conversation("thinks", THINKING), *a_conversation("speaks", "Put it into a pot.")]
    result = train_adapter(pairs, tiny_recipe(forgetful), tmp_path / "out", progress=None)
    assert result.metrics["histories_reread"] == 1
    assert result.metrics["parity_difference"] < 1e-3
    assert result.metrics["tokens_shared"] > 0
    (warning,) = [text for text in result.warnings if "past answers" in text]
    assert "1 conversations (thinks)" in warning
