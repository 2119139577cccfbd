"""What would stop a run at its last stage is looked at before its first: the base model, and where a persona goes."""

from __future__ import annotations

from rlhi_plugin.records import ChatMessage
from rlhi_training.recipe import Recipe


def check_base(recipe: Recipe) -> None:
    """Make sure that the base can be found and that its chat template takes what pairs will hold.

    The embedded model is known to, and is not looked at.

    Raises:
        ConfigError: a training method that the rest of the recipe does not allow, no such base, no chat template, or
            one that refuses a system message or leaves it out while the recipe puts personas there.
        ArtefactError: the base cannot be fetched or read.
    """
    from rlhi_adapters.base_models import EMBEDDED, resolve_base
    from rlhi_adapters.loading import load_tokenizer
    from rlhi_adapters.templates import encode, require_system_role
    from rlhi_training.methods.choice import check

    check(recipe)
    if recipe.model.base == EMBEDDED:
        return
    base = resolve_base(recipe.model.base)
    tokenizer = load_tokenizer(base.path)
    encode(tokenizer, [ChatMessage(role="user", content="Hello")], add_generation_prompt=True)
    if recipe.personas.enabled:
        require_system_role(tokenizer, base.name)
