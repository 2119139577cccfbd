"""LoRA adapters as an evaluation finds them: a folder, or an entry of the registry, each with its base."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rlhi_plugin.errors import ArtefactError, ConfigError
from rlhi_plugin.persona import FRAME_DIGEST


@dataclass(frozen=True)
class AdapterFolder:
    """A folder that holds a LoRA adapter.

    Attributes:
        path: The folder.
        base: The base model that it was trained on.
        base_digest: Digest of that base's weights, where the registry knows it.
    """

    path: Path
    base: str
    base_digest: str | None = None


def read_adapter_folder(path: Path, *, base: str | None = None) -> AdapterFolder:
    """Check that `path` holds a LoRA adapter and find the base it was trained on.

    Args:
        path: Folder with ``adapter_config.json`` and ``adapter_model.safetensors``.
        base: The base that the caller asked for; must then be the adapter's own.

    Raises:
        ConfigError: no such folder, not an adapter, or an adapter of another base.
        ArtefactError: its configuration is damaged.
    """
    if not path.is_dir():
        raise ConfigError(f"there is no adapter folder {path}. Train one with: rlhi-train run LOGS --out RUN")
    config_file, weights = path / "adapter_config.json", path / "adapter_model.safetensors"
    missing = [file.name for file in (config_file, weights) if not file.is_file()]
    if missing:
        raise ConfigError(f"{path} is not a LoRA adapter: it has no {' and no '.join(missing)}. Give RUN/adapter.")
    try:
        trained_on = json.loads(config_file.read_text("utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{config_file} names no base model. Train the adapter again, or mend the file.") from error
    if base is not None and trained_on is not None and base != trained_on:
        raise ConfigError(f"the adapter {path} belongs to {trained_on}, not to {base}. Leave out --base, or use it.")
    if base is None and not trained_on:
        raise ConfigError(f"{config_file} does not say which base it belongs to. Name it with --base.")
    return AdapterFolder(path=path, base=base or str(trained_on))


def read_registered_adapter(registry: Path, adapter_id: str, *, base: str | None = None) -> AdapterFolder:
    """As `read_adapter_folder`, for an adapter in a registry, whose record pins its files, its base and its frame.

    Raises:
        ConfigError: no such registry or adapter, or it belongs to another base.
        ArtefactError: its files changed, or it was trained with another persona frame.
    """
    from rlhi_adapters.registry import AdapterRegistry

    if not registry.is_dir():
        raise ConfigError(f"there is no registry folder {registry}. See: rlhi-adapters list")
    record = AdapterRegistry(registry).verify(adapter_id)
    if record.persona_prompt_digest != FRAME_DIGEST:
        raise ArtefactError(f"{adapter_id} was trained with another persona frame than this version's. Train it again.")
    if base is not None and base != record.base_model:
        raise ConfigError(f"{adapter_id} belongs to {record.base_model}, not to {base}. Leave out --base, or use it.")
    return AdapterFolder(path=Path(record.path), base=record.base_model, base_digest=record.base_digest)
