"""What each training method takes, how that becomes rows of tokens, and which trainer runs it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rlhi_plugin.errors import ConfigError
from rlhi_training.losses import compares
from rlhi_training.methods.hindsight import PROMPT, HindsightTurn
from rlhi_training.methods.segment import Segment
from rlhi_training.methods.tokenised import TokenisedHindsight, tokenise_hindsight
from rlhi_training.recipe import Recipe
from rlhi_training.records import Dropped, PreferencePair
from rlhi_training.reread_history import rendered_otherwise
from rlhi_training.tokenised_pairs import TokenisedPair, tokenise_pairs
from rlhi_training.train_options import TrainSection

if TYPE_CHECKING:
    from rlhi_training.watch import Watch

Item = PreferencePair | HindsightTurn
"""What an adapter learns from: pairs, or logged answers with their follow-ups."""
TokenisedItem = TokenisedPair | TokenisedHindsight


def tokenise(
    items: Sequence[Item], tokenizer: Any, base_name: str, train: TrainSection
) -> tuple[list[TokenisedItem], list[Dropped]]:
    """Token ids of what can be trained on, in order, and the rest with reasons.

    Raises:
        ConfigError: the items are not what the method takes, or the base takes no system message.
    """
    turns = [item for item in items if isinstance(item, HindsightTurn)]
    pairs = [item for item in items if isinstance(item, PreferencePair)]
    if train.method == "self_distillation":
        if pairs:
            raise ConfigError('train.method = "self_distillation" takes logged answers with follow-ups, not pairs.')
        found, dropped = tokenise_hindsight(turns, tokenizer, base_name, max_length=train.max_length)
        return list(found), dropped
    if turns:
        raise ConfigError(f'train.method = "{train.method}" takes pairs. Use train.method = "self_distillation".')
    tokenised, dropped = tokenise_pairs(pairs, tokenizer, base_name, max_length=train.max_length)
    return list(tokenised), dropped


def histories_reread(items: Sequence[Item], kept: Sequence[TokenisedItem]) -> list[str]:
    """Conversations of pairs that share less than they could; see `rlhi_training.reread_history`."""
    pairs = [item for item in items if isinstance(item, PreferencePair)]
    return rendered_otherwise(pairs, [item for item in kept if isinstance(item, TokenisedPair)])


def rows(kept: Sequence[TokenisedItem], train: TrainSection) -> list[dict[str, list[int]]]:
    """What the trainer's data set holds, one row an item."""
    return [_row(item, train) for item in kept]


def tokens(item: TokenisedItem) -> bytes:
    """Everything of an item that training depends on, for a digest."""
    if isinstance(item, TokenisedPair):
        return json.dumps([item.prompt_ids, item.chosen_ids, item.rejected_ids]).encode()
    return json.dumps([item.prompt_ids, item.teacher_prompt_ids, item.answer_ids]).encode()


def trainer_of(train: TrainSection, segment: Segment | None = None) -> Callable[..., Any]:
    """Makes the method's trainer; all take the arguments of `rlhi_training.tree.trl_trainer.TreeDPOTrainer`.

    Raises:
        ImportError: a library of the extra ``train`` is absent.
    """
    if train.method == "dpo" and train.reference == "round" and segment is not None:
        from rlhi_training.methods.round_reference import RoundReferenceTrainer

        return partial(RoundReferenceTrainer, before=segment.before)
    if train.method == "dpo":
        from rlhi_training.tree.trl_trainer import TreeDPOTrainer

        return TreeDPOTrainer
    from rlhi_training.methods.sequence_trainer import SelfDistillationTrainer, TreeSFTTrainer

    return partial(TreeSFTTrainer if train.method == "sft" else SelfDistillationTrainer, train=train)


def reference_stands_still(train: TrainSection) -> bool:
    """Whether there are reference log-probabilities, and of a model that is known before: other runs can use them."""
    return train.method == "dpo" and train.reference != "round"


def check(recipe: Recipe) -> None:
    """Look at what would stop a run at its last stage.

    Raises:
        ConfigError: rounds that have nothing to sample, or cannot.
    """
    train, model = recipe.train, recipe.model
    if train.rounds == 1:
        return
    if train.method == "self_distillation":
        raise ConfigError("train.rounds needs pairs, and self-distillation has none. Set train.rounds = 1.")
    if not (recipe.reward.enabled or recipe.contrast.enabled):
        raise ConfigError("train.rounds needs something to sample for. Set reward.enabled or contrast.enabled.")
    if model.served is not None or model.engine != "transformers":
        raise ConfigError(
            "train.rounds samples with the adapter in this process, by transformers. Remove model.served and"
            ' set model.engine = "transformers", or set train.rounds = 1.'
        )


def make_watch(train: TrainSection, advance: Callable[[int, str], None], warnings: list[str]) -> Watch:
    """What advances the progress bar of a method, and knows when there is nothing to learn."""
    from rlhi_training.methods.watch import SequenceWatch
    from rlhi_training.watch import Watch

    if train.method == "dpo":
        return Watch(advance, warnings, preference=compares(train))
    return SequenceWatch(advance, warnings)


def sections(recipe: Recipe) -> dict[str, Any]:
    """What stage train depends on besides its own sections, by method; for the digest of its inputs."""
    if recipe.train.rounds > 1:
        return recipe.model_dump(mode="json", include={"reward", "contrast", "filter", "pairs", "screens"})
    if recipe.train.method != "self_distillation":
        return {}
    read = recipe.model_dump(mode="json", include={"filter", "screens", "contrast"})
    return {**read, "prompt": PROMPT.version}


def _row(item: TokenisedItem, train: TrainSection) -> dict[str, list[int]]:
    if isinstance(item, TokenisedHindsight):
        return {
            "prompt_ids": item.prompt_ids,
            "teacher_prompt_ids": item.teacher_prompt_ids,
            "answer_ids": item.answer_ids,
        }
    if train.method == "sft":
        return {"prompt_ids": item.prompt_ids, "answer_ids": item.chosen_ids}
    return {"prompt_ids": item.prompt_ids, "chosen_ids": item.chosen_ids, "rejected_ids": item.rejected_ids}
