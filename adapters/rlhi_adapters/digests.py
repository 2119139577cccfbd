"""SHA-256 digests that pin adapters and base models to their bytes."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from rlhi_plugin.errors import ArtefactError

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
_CACHE_NAME = ".rlhi-digest.json"


@dataclass(frozen=True, slots=True)
class AdapterDigests:
    """SHA-256, in hex, of an adapter's two files."""

    weights: str
    config: str


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex.

    Raises:
        ArtefactError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtefactError(f"cannot read {path}: {error.strerror}. Restore the file or train again.") from error


def adapter_digests(adapter_dir: Path) -> AdapterDigests:
    """Digests of a LoRA adapter's weights and configuration; always computed from the bytes, never cached.

    Raises:
        ArtefactError: one of the two files is missing.
    """
    for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
        if not (adapter_dir / name).is_file():
            raise ArtefactError(f"{adapter_dir} holds no {name}. Give the folder that training wrote its adapter to.")
    return AdapterDigests(sha256_file(adapter_dir / ADAPTER_WEIGHTS), sha256_file(adapter_dir / ADAPTER_CONFIG))


def weights_digest(model_dir: Path) -> str:
    """SHA-256 over names and digests of a model folder's safetensors files, in hex.

    Hashing gigabytes takes seconds, so the result is kept beside the weights and used again while every file has the
    size and modification time that it was computed from.

    Raises:
        ArtefactError: the folder holds no safetensors file.
    """
    files = sorted(model_dir.glob("*.safetensors"))
    if not files:
        raise ArtefactError(
            f"{model_dir} holds no .safetensors weights. Convert them: pickled weights are not loaded here."
        )
    stamp = {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files}
    cache = model_dir / _CACHE_NAME
    known = _read_cache(cache)
    if known.get("files") == stamp and isinstance(digest := known.get("digest"), str):
        return digest
    lines = "".join(f"{file.name}\0{sha256_file(file)}\n" for file in files)
    digest = hashlib.sha256(lines.encode()).hexdigest()
    _write_cache(cache, json.dumps({"digest": digest, "files": stamp}))
    return digest


def _read_cache(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_cache(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, "utf-8")
        temporary.replace(path)
    except OSError:
        # A read-only model folder only costs the next call the time to hash again.
        temporary.unlink(missing_ok=True)
