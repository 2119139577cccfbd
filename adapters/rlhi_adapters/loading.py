"""Opens model folders with transformers, without its noise, in the number format that the hardware computes fastest.

The one place that decides device and dtype; the trainer and the in-process server share it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

from rlhi_plugin.errors import ArtefactError, MissingExtraError

DType = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars, log lines and warnings inside the block; failures still raise."""
    try:
        from transformers.utils import logging as transformers_logging
    except ImportError as error:
        raise MissingExtraError("transformers", "train") from error
    verbosity = transformers_logging.get_verbosity()
    had_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bar:
            transformers_logging.enable_progress_bar()


def pick_device(device: Device = "auto") -> Literal["cpu", "cuda"]:
    """``cuda`` where torch sees a CUDA device, else ``cpu``; an explicit choice is returned as it is."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def pick_dtype(dtype: DType, device: Literal["cpu", "cuda"]) -> Literal["float32", "bfloat16"]:
    """``auto`` is bfloat16 where the device has instructions for it, else float32."""
    import torch

    if dtype != "auto":
        return dtype
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if _cpu_computes_bfloat16() else "float32"


@cache
def _cpu_computes_bfloat16() -> bool:
    import torch

    # torch names these checks differently from release to release; without them, the kernel's own list decides.
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        if bool(getattr(torch.cpu, name, bool)()):
            return True
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def load_tokenizer(path: Path) -> Any:
    """A folder's tokenizer, padding on the left, with a pad token.

    Raises:
        ArtefactError: the folder holds no tokenizer that can be read, or one without an end-of-sequence token.
    """
    with quiet():
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", local_files_only=True)
        except (OSError, ValueError) as error:
            raise ArtefactError(f"{path} holds no readable tokenizer: {error}. Save one beside the weights.") from error
    if tokenizer.eos_token_id is None:
        raise ArtefactError(
            f"the tokenizer in {path} has no end-of-sequence token. Set eos_token in its configuration."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_causal_lm(path: Path, *, dtype: DType = "auto", device: Device = "auto", four_bit: bool = False) -> Any:
    """A folder's causal language model, in evaluation mode, on its device.

    Args:
        path: The folder.
        dtype: Number format; with `four_bit`, the one that is computed in.
        device: Where it goes.
        four_bit: Whether its linear layers, but for the output layer, are kept in 4 bits.

    Raises:
        ArtefactError: the folder's configuration or weights cannot be read.
        MissingExtraError: `four_bit` without the extra ``qlora``.
        ConfigError: `four_bit` where this machine cannot.
    """
    import torch

    where = pick_device(device)
    number = getattr(torch, pick_dtype(dtype, where))
    more: dict[str, Any] = {}
    if four_bit:
        from rlhi_adapters.four_bit import nf4_config

        more = {"quantization_config": nf4_config(where, number), "device_map": {"": where}}
    with quiet():
        from transformers import AutoModelForCausalLM

        try:
            model = AutoModelForCausalLM.from_pretrained(
                path, dtype=number, local_files_only=True, use_safetensors=True, **more
            )
        except (OSError, ValueError) as error:
            raise ArtefactError(f"cannot load a model from {path}: {error}. Check the folder.") from error
    return (model if four_bit else model.to(where)).eval()
