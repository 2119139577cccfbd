"""Whether this machine has the memory that a recipe's training takes, before anything is done."""

from __future__ import annotations

import os

from rlhi_adapters.base_models import BaseModel
from rlhi_adapters.loading import pick_device, pick_dtype
from rlhi_plugin.errors import ConfigError
from rlhi_training.plan.hardware import GIB, shape_of
from rlhi_training.plan.training_memory import Load, training_memory, would_fit
from rlhi_training.recipe import Recipe


def memory_gib(device: str) -> float | None:
    """All memory of the GPU, or of the machine; None where that cannot be told."""
    if device == "cuda":
        import torch

        return float(torch.cuda.get_device_properties(0).total_memory) / GIB
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def require_memory(
    recipe: Recipe, base: BaseModel, *, load: Load | None = None, available_gib: float | None = None
) -> None:
    """Make sure that training can fit: weights and optimiser, and the largest pass as far as it is known.

    Args:
        recipe: `recipe.model` and `recipe.train` are read.
        base: The base, on this machine.
        load: The largest pass. None: before there are pairs, a pass of the token budget; without one nobody knows yet
            how long pairs will be, and only what they cannot change is counted.
        available_gib: Instead of this machine's memory.

    Raises:
        ConfigError: it cannot; the message names options with which it would.
    """
    device = pick_device()
    available = available_gib if available_gib is not None else memory_gib(device)
    shape = shape_of(str(base.path))
    if shape is None or available is None:
        return
    dtype = pick_dtype(recipe.model.dtype, device)
    budget = recipe.train.token_budget or 0
    load = load or Load(budget, budget // 2, min(budget, 512))
    needed = training_memory(shape, recipe.train, load, dtype=dtype, device=device).gib
    if needed <= available:
        return
    remedy = would_fit(shape, recipe.train, load, available, dtype=dtype, device=device)
    raise ConfigError(
        f"training {base.name} takes about {needed:.1f} GiB, and this machine's {device} has {available:.1f}. "
        + (f"It would fit with {remedy}." if remedy else "Choose a smaller base, or a machine with more memory.")
    )
