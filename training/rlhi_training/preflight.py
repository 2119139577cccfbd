"""What would stop a run at its last stage is looked at before its first: the base model, and how it is trained."""

from __future__ import annotations

from pathlib import Path

from rlhi_plugin.records import ChatMessage
from rlhi_training.recipe import Recipe
from rlhi_training.train_checks import check_train


def check_base(recipe: Recipe, *, registry: Path | None = None) -> None:
    """Make sure that the base can be found and trained as the recipe wants, and that its template takes the pairs.

    The embedded model is known to be there and to take them, and is only looked at for an adapter that is continued.

    Args:
        recipe: `recipe.model`, `recipe.personas` and `recipe.train` are read.
        registry: Where ``train.continue_from`` looks for an adapter; None is the default registry.

    Raises:
        ConfigError: a training method that the rest of the recipe does not allow, no such base, no chat template, one
            that refuses a system message or leaves it out while the recipe puts personas there, options of training
            that do not fit each other, this machine or its memory, or an adapter to continue that is not there or
            belongs to another base.
        ArtefactError: base or adapter cannot be fetched or read, or the tokenizer names no end of a sequence.
        MissingExtraError: 4-bit weights without the extra ``qlora``.
    """
    from rlhi_adapters.base_models import EMBEDDED, resolve_base
    from rlhi_adapters.loading import load_tokenizer, pick_device
    from rlhi_adapters.templates import encode, require_system_role
    from rlhi_training.lora import starting_point
    from rlhi_training.methods.choice import check
    from rlhi_training.plan.machine import require_memory

    check(recipe)
    check_train(recipe.train)
    if recipe.train.quantize != "none":
        from rlhi_adapters.four_bit import require_four_bit

        require_four_bit(pick_device())
    if recipe.model.base == EMBEDDED and recipe.train.continue_from is None:
        return
    base = resolve_base(recipe.model.base)
    require_memory(recipe, base)
    starting_point(recipe.train.continue_from, base, registry)
    tokenizer = load_tokenizer(base.path)
    encode(tokenizer, [ChatMessage(role="user", content="Hello")], add_generation_prompt=True)
    if recipe.personas.enabled:
        require_system_role(tokenizer, base.name)
