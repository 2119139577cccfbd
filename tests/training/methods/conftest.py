"""What the tests of the training methods share: labelled turns, tiny recipes, rows of tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_reader import save_reader

from rlhi_plugin.records import ChatMessage
from rlhi_training.recipe import FilterSection, ModelSection, Recipe
from rlhi_training.records import LabelledTurn
from rlhi_training.train_options import TrainSection


@pytest.fixture(scope="session")
def reader(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that heeds follow-ups; some seconds to train."""
    return save_reader(tiny_model_dir, tmp_path_factory.mktemp("reader") / "tiny-reader")


@pytest.fixture
def labelled() -> Callable[..., LabelledTurn]:
    """Makes a turn whose follow-up carries feedback, unless told otherwise."""

    def make(
        follow_up: str | None = "Shorter please.",
        *,
        context: tuple[str, ...] = ("How do I keep basil alive?",),
        response: str = "Water it and give it light, but not too much of it.",
        conversation: str = "c",
        user: str | None = "ann",
        label: str | None = "reattempt_with_feedback",
    ) -> LabelledTurn:
        roles = ("user", "assistant")
        messages = tuple(ChatMessage(role=roles[i % 2], content=text) for i, text in enumerate(context))
        turn = len(context) // 2
        return LabelledTurn(
            conversation_id=conversation,
            user_id=user,
            turn=turn,
            context=messages,
            response=response,
            follow_up=follow_up,
            label=label,
            request_id=f"{conversation}-{2 * turn}",
            response_id=f"{conversation}-{2 * turn + 1}",
            follow_up_id=f"{conversation}-{2 * turn + 2}" if follow_up is not None else None,
        )

    return make


@pytest.fixture
def tiny_recipe(tiny_model_dir: Path) -> Callable[..., Recipe]:
    """Makes a recipe on the tiny model; arguments are options of its section ``train``."""

    def make(*, base: Path | None = None, **train: Any) -> Recipe:
        settings = {"epochs": 3.0, "batch_size": 4, "micro_batch_size": 4, "learning_rate": 5e-3, "lora_rank": 4}
        return Recipe(
            name="tiny",
            summary="test",
            model=ModelSection(base=str(base or tiny_model_dir), dtype="float32"),
            train=TrainSection(**{**settings, "reuse_reference": False, **train}),
            filter=FilterSection(max_pairs_per_user_share=1.0),
        )

    return make
