"""Weights in 4 bits: NormalFloat with double quantisation (QLoRA, arXiv 2305.14314), by bitsandbytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhi_plugin.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    import torch


def nf4_config(device: str, dtype: torch.dtype) -> Any:
    """What transformers loads a model in 4 bits with.

    Args:
        device: ``cpu`` or ``cuda``.
        dtype: What is computed in.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
        ConfigError: it does not work on this machine.
    """
    require_four_bit(device)
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def require_four_bit(device: str) -> None:
    """Quantise a few numbers and read them back: what bitsandbytes offers differs from machine to machine.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
        ConfigError: it does not work on this machine.
    """
    import torch

    try:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    except ImportError as error:
        raise MissingExtraError("bitsandbytes", "qlora") from error
    given = torch.linspace(-1.0, 1.0, 4096, device=device).reshape(64, 64)
    try:
        found = dequantize_4bit(*quantize_4bit(given, blocksize=64, quant_type="nf4"))
    # Where its kernels are missing, bitsandbytes raises one of these, depending on what is missing: library or device.
    except (RuntimeError, NotImplementedError, AttributeError, OSError) as error:
        raise _no(device, f"{type(error).__name__}: {error}") from error
    if not bool((found - given).abs().mean() < _MAX_ERROR):
        raise _no(device, "numbers come back changed")


_MAX_ERROR = 0.1
"""Of numbers from -1 to 1; the widest gap between two of NormalFloat's sixteen values is 0.3."""


def _no(device: str, why: str) -> ConfigError:
    return ConfigError(
        f"4-bit weights do not work on this machine's {device} ({why.strip()}). "
        'Set train.quantize = "none", or use a machine that bitsandbytes supports.'
    )
