"""Activations that are cheap to make again are not kept for the backward pass.

A decoder layer keeps the outputs of its norms, of its activation function and of the gated product, although each
follows from something that is kept anyway by one elementwise pass. Inside `saving`, such a tensor is kept as the recipe
that makes it. The values are the same bits, so gradients are; what is saved is almost half of what a layer keeps. A
module is only trusted after its recipe has given the very tensor once.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

Recipe = Callable[[], torch.Tensor]


@dataclass(slots=True)
class _Pantry:
    """Which living tensors can be made again, and how."""

    recipes: dict[int, tuple[weakref.ref[torch.Tensor], Recipe]] = field(default_factory=dict)

    def note(self, tensor: torch.Tensor, recipe: Recipe) -> None:
        self.recipes[tensor.data_ptr()] = (weakref.ref(tensor), recipe)

    def keep(self, tensor: torch.Tensor) -> torch.Tensor | tuple[Recipe, torch.Size]:
        """What autograd keeps instead of a tensor: itself, or its recipe and shape."""
        known = self.recipes.get(tensor.data_ptr())
        original = known[0]() if known else None
        # A tensor that is gone may have left its memory to another; linear layers keep theirs without the batch axis.
        if known is None or original is None or original.dtype != tensor.dtype or original.numel() != tensor.numel():
            return tensor
        if not (original.is_contiguous() and tensor.is_contiguous()):
            return tensor
        return known[1], tensor.shape


def _unpack(kept: torch.Tensor | tuple[Recipe, torch.Size]) -> torch.Tensor:
    if isinstance(kept, torch.Tensor):
        return kept
    recipe, shape = kept
    with torch.no_grad():
        return recipe().reshape(shape)


class Rematerialisation:
    """Finds the modules of a model whose outputs follow from their inputs elementwise.

    Args:
        model: A causal language model of transformers; norms are found by their class's name, gated products in modules
            that have ``gate_proj``, ``up_proj``, ``act_fn`` and ``down_proj``.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._norms = [m for m in model.modules() if type(m).__name__.endswith(("RMSNorm", "LayerNorm"))]
        parts = ("gate_proj", "up_proj", "act_fn", "down_proj")
        self._gated = [
            module
            for module in model.modules()
            if all(isinstance(getattr(module, part, None), torch.nn.Module) for part in parts)
        ]
        self._trusted: dict[int, bool] = {}

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Keep recipes for what runs inside; does nothing where no gradient is asked for."""
        if not torch.is_grad_enabled():
            yield
            return
        pantry = _Pantry()
        with ExitStack() as stack:
            for norm in self._norms:
                stack.callback(norm.register_forward_hook(self._after(pantry)).remove)
            for module in self._gated:
                self._watch_gated(pantry, module, stack)
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(pantry.keep, _unpack))
            yield

    def _after(self, pantry: _Pantry) -> Callable[..., None]:
        def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            source = inputs[0].detach()
            self._offer(pantry, module, output, lambda: module.forward(source))

        return hook

    def _watch_gated(self, pantry: _Pantry, module: Any, stack: ExitStack) -> None:
        parts: dict[str, torch.Tensor] = {}

        def take(name: str) -> Callable[..., None]:
            def hook(_: torch.nn.Module, __: Any, output: torch.Tensor) -> None:
                parts[name] = output.detach()

            return hook

        def before_down(down: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            gate, up = parts.pop("gate"), parts.pop("up")
            self._offer(pantry, down, inputs[0], lambda: module.act_fn.forward(gate) * up)

        stack.callback(module.gate_proj.register_forward_hook(take("gate")).remove)
        stack.callback(module.up_proj.register_forward_hook(take("up")).remove)
        stack.callback(module.act_fn.register_forward_hook(self._after(pantry)).remove)
        stack.callback(module.down_proj.register_forward_pre_hook(before_down).remove)

    def _offer(self, pantry: _Pantry, module: torch.nn.Module, tensor: torch.Tensor, recipe: Recipe) -> None:
        """Note a recipe if its module's has proven itself."""
        key = id(module)
        if key not in self._trusted:
            with torch.no_grad():
                self._trusted[key] = torch.equal(recipe(), tensor)
        if self._trusted[key]:
            pantry.note(tensor, recipe)
