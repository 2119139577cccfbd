"""Pairs that cannot be trained on are dropped with a reason that names them; bases that cannot are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from test_trainer import PERSONA, make_pair, some_pairs, tiny_recipe

from rlhi_adapters.loading import load_tokenizer
from rlhi_plugin.errors import ArtefactError, ConfigError
from rlhi_training.preflight import check_base
from rlhi_training.tokenised_pairs import tokenise_pairs
from rlhi_training.train_limits import window_of, within_limits
from rlhi_training.train_options import TrainSection
from rlhi_training.trainer import train_adapter

REQUEST = ("user", "How do I keep basil alive?")
LONG = "word " * 120


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir: Path):
    return load_tokenizer(tiny_model_dir)


def of_persona(digest: str | None, *, conversation: str = "c", source: str = "rewrite", request: str = "Hello"):
    pair = make_pair([("system", f"persona {digest}"), ("user", request)], "a", "b", source)
    provenance = pair.provenance.model_copy(update={"conversation_id": conversation})
    return pair.model_copy(update={"persona_digest": digest, "provenance": provenance})


@pytest.mark.parametrize(
    ("prompt", "chosen", "reason", "part"),
    [
        ([REQUEST], LONG, "answer_too_long", "an answer of 3"),
        ([("system", PERSONA + LONG), REQUEST], "a", "persona_too_long", "of them persona"),
        ([("user", LONG), ("assistant", "b"), REQUEST], "a", "too_long", "a prompt of 407, 0 of them persona"),
    ],
)
def test_what_exceeds_the_window_is_named(tokenizer, prompt, chosen, reason, part) -> None:
    good, long = make_pair([REQUEST], "yes", "no"), make_pair(prompt, chosen, "b")
    kept, (drop,) = tokenise_pairs([long, good], tokenizer, "tiny", max_length=200)
    assert [pair.pair_id for pair in kept] == [good.pair_id]
    assert (drop.stage, drop.key, drop.reason) == ("train", long.pair_id, reason)
    assert part in drop.detail
    assert drop.detail.endswith("train.max_length is 200")


def test_a_pair_whose_sides_are_the_same_tokens_is_dropped(tiny_model_dir: Path, tmp_path: Path) -> None:
    from tokenizers import normalizers

    folder = tmp_path / "blind"
    shutil.copytree(tiny_model_dir, folder)
    blind = load_tokenizer(folder)
    blind.backend_tokenizer.normalizer = normalizers.Lowercase()
    pair = make_pair([REQUEST], "Water it.", "water IT.")
    kept, (drop,) = tokenise_pairs([pair], blind, "blind", max_length=200)
    assert not kept
    assert (drop.key, drop.reason) == (pair.pair_id, "equal_tokens")


def test_an_answer_of_which_the_template_leaves_nothing_is_dropped(tiny_model_dir: Path) -> None:
    mute = load_tokenizer(tiny_model_dir)
    mute.chat_template = (
        "{% for m in messages %}{{ m.content if m.role == 'user' or 'keep' in m.content else '' }}{% endfor %}"
    )
    pair = make_pair([REQUEST], "keep this", "lose this")
    kept, (drop,) = tokenise_pairs([pair], mute, "mute", max_length=200)
    assert not kept
    assert (drop.key, drop.reason) == (pair.pair_id, "empty_answer")
    assert "rejected" in drop.detail


def test_different_personas_in_one_conversation_are_dropped_with_their_names(tokenizer) -> None:
    one, other = of_persona("1" * 64), of_persona("2" * 64, request="And then?")
    elsewhere = of_persona("2" * 64, conversation="d")
    without = of_persona(None, request="Bare")
    kept, dropped = tokenise_pairs([one, elsewhere, other, without], tokenizer, "tiny", max_length=200)
    assert [pair.pair_id for pair in kept] == [elsewhere.pair_id, without.pair_id]
    assert [(drop.key, drop.reason) for drop in dropped] == [
        (one.pair_id, "mixed_personas"),
        (other.pair_id, "mixed_personas"),
    ]
    assert dropped[0].detail == "c has personas 111111111111, 222222222222"


def test_persona_contrast_puts_several_personas_over_one_request(tokenizer) -> None:
    pairs = [of_persona(digit * 64, source="contrast") for digit in "12"] + [of_persona("3" * 64)]
    kept, dropped = tokenise_pairs(pairs, tokenizer, "tiny", max_length=200)
    assert len(kept) == 3
    assert not dropped


def test_what_the_base_cannot_read_is_dropped_though_the_recipe_allows_it(tokenizer) -> None:
    long, short = make_pair([REQUEST], LONG, "b"), make_pair([REQUEST], "yes", "no")
    pairs, _ = tokenise_pairs([long, short], tokenizer, "tiny", max_length=4000)
    kept, (drop,) = within_limits(pairs, TrainSection(max_length=4000), 300)
    assert [pair.pair_id for pair in kept] == [short.pair_id]
    assert (drop.key, drop.reason) == (long.pair_id, "over_window")
    assert drop.detail.endswith("the base reads 300")


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({"max_position_embeddings": 2048}, 2048),
        ({"text_config": {"max_position_embeddings": 512}}, 512),
        ({"model_type": "unheard-of"}, None),
    ],
)
def test_the_window_is_read_from_the_configuration(tmp_path: Path, config, window) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    assert window_of(tmp_path) == window


def without(tiny_model_dir: Path, folder: Path, *names: str) -> Path:
    """A copy of the tiny model whose tokenizer does not name these tokens."""
    shutil.copytree(tiny_model_dir, folder)
    for file in (folder / "tokenizer_config.json", folder / "special_tokens_map.json"):
        if file.is_file():
            settings = json.loads(file.read_text("utf-8"))
            file.write_text(json.dumps({k: v for k, v in settings.items() if k not in names}), "utf-8")
    return folder


def test_a_tokenizer_without_pad_trains_to_the_same_weights(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Padding is never scored, and nothing looks at it; answers still end with the token that pads."""
    folder = without(tiny_model_dir, tmp_path / "no-pad", "pad_token")
    bare, whole = (
        train_adapter(some_pairs(), tiny_recipe(base, epochs=1.0), tmp_path / base.name / "run", progress=None)
        for base in (folder, tiny_model_dir)
    )
    weights = [(run.adapter_dir / "adapter_model.safetensors").read_bytes() for run in (bare, whole)]
    assert weights[0] == weights[1]


def test_a_tokenizer_without_an_end_is_refused_before_a_run(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = without(tiny_model_dir, tmp_path / "endless", "eos_token")
    recipe = tiny_recipe(folder)
    with pytest.raises(ArtefactError, match=r"no end-of-sequence token\. Set eos_token"):
        check_base(recipe)
    with pytest.raises(ArtefactError, match=r"no end-of-sequence token\. Set eos_token"):
        train_adapter(some_pairs(), recipe, tmp_path / "run", progress=None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"continue_from": "nobody-1"}, "neither a folder nor an adapter"),
        ({"micro_batch_size": 3}, "does not divide"),
        ({"loss": ("aot",), "loss_weights": (1.0,), "tokens_per_batch": 200}, "sorts the pairs"),
    ],
)
def test_what_would_stop_training_is_said_before_a_run(tiny_model_dir: Path, tmp_path: Path, settings, message) -> None:
    with pytest.raises(ConfigError, match=message):
        check_base(tiny_recipe(tiny_model_dir, **settings), registry=tmp_path)
