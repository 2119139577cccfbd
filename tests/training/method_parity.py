"""What tests that compare a training method with a plain computation share."""

from __future__ import annotations

from typing import Any

import torch


def noisy_lora(model: Any, seed: int = 1) -> None:
    """LoRA weights that are not zero: B starts at zero, where A has no gradient."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """A copy of every gradient, which is then forgotten."""
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float = 1e-4) -> None:
    """Relative error of each gradient; one that is nothing but rounding is measured against all of them."""
    assert found.keys() == expected.keys()
    assert found
    whole = torch.cat([gradient.flatten() for gradient in expected.values()]).norm()
    for name, gradient in found.items():
        scale = torch.maximum(expected[name].norm(), 1e-3 * whole)
        assert (gradient - expected[name]).norm() / scale < tolerance, name
