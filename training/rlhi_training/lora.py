"""The adapter that training starts with: a new one, or one that exists."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhi_adapters.base_models import BaseModel
from rlhi_adapters.digests import ADAPTER_CONFIG, adapter_digests, weights_digest
from rlhi_adapters.loading import quiet
from rlhi_adapters.registry import AdapterRegistry
from rlhi_plugin.errors import ArtefactError, ConfigError, MissingExtraError
from rlhi_training.train_options import TrainSection


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """An adapter that training continues."""

    name: str
    """Its name in the registry, or its folder."""
    folder: Path
    digest: str
    """SHA-256 of its weights."""
    registered: bool


def starting_point(name: str | None, base: BaseModel, registry: Path | None) -> StartingPoint | None:
    """Find the adapter that ``train.continue_from`` names, and make sure that it is one for this base.

    Args:
        name: A name in the registry, or a folder; None is a new adapter.
        base: What will be trained.
        registry: The registry's folder; None is the default one.

    Raises:
        ConfigError: there is no such adapter, it is no LoRA adapter, or it is one for another base.
        ArtefactError: its files are damaged, or are not what was registered.
    """
    if name is None:
        return None
    adapters = AdapterRegistry(registry)
    folder = Path(name).expanduser()
    known = {record.adapter_id: record for record in adapters.list()}
    trained_on: str | None
    if name in known:
        record = adapters.verify(name)
        folder, trained_on = Path(record.path), record.base_digest
        label, digest = record.base_model, record.weights_digest
    elif folder.is_dir():
        digest = adapter_digests(folder).weights
        same = [record for record in known.values() if record.weights_digest == digest]
        label = str(_config(folder).get("base_model_name_or_path"))
        trained_on = same[0].base_digest if same else _digest_of(label, base)
    else:
        names = ", ".join(sorted(known)) or "none"
        raise ConfigError(
            f"train.continue_from: {name!r} is neither a folder nor an adapter in {adapters.root} (there: {names}). "
            "Name one of these, or give an adapter's folder."
        )
    if (kind := _config(folder).get("peft_type")) != "LORA":
        raise ConfigError(f"train.continue_from: {name} is a {kind} adapter, not a LoRA one. Name a LoRA adapter.")
    if trained_on != base.digest:
        raise ConfigError(
            f"train.continue_from: {name} was trained on {label}, whose weights are not those of {base.name} "
            f"(SHA-256 {base.digest[:12]}). Set model.base to its own base, or continue another adapter."
        )
    return StartingPoint(name, folder.resolve(), digest, registered=name in known)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{folder / ADAPTER_CONFIG} cannot be read: {error}. Restore it or train again.") from error
    return config if isinstance(config, dict) else {}


def _digest_of(label: str, base: BaseModel) -> str | None:
    """Digest of the weights that an unregistered adapter names as its base; None where that cannot be told."""
    if label in {base.reference, base.name}:
        return base.digest
    folder = Path(label)
    return weights_digest(folder) if (folder / "config.json").is_file() else None


def with_adapter(model: Any, train: TrainSection, start: StartingPoint | None) -> tuple[Any, Any]:
    """The model and the ``peft_config`` that TRL's trainer takes: a continued adapter is in the model already.

    Raises:
        ArtefactError: the adapter does not fit the model.
    """
    try:
        from peft import LoraConfig, PeftModel
        from safetensors import SafetensorError
    except ImportError as error:
        raise MissingExtraError(error.name or "peft", "train") from error
    if start is not None:
        try:
            with quiet():
                return PeftModel.from_pretrained(model, str(start.folder), is_trainable=True), None
        except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
            raise ArtefactError(
                f"the adapter {start.name} does not fit the base: {error}. Restore it, or continue another one."
            ) from error
    modules = train.target_modules
    return model, LoraConfig(
        r=train.lora_rank,
        lora_alpha=train.lora_alpha,
        lora_dropout=train.lora_dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        use_dora=train.dora,
        use_rslora=train.rslora,
        task_type="CAUSAL_LM",
    )
