"""An adapter as a versioned artefact: what it is, what it was trained from, and where it stands."""

from __future__ import annotations

from enum import StrEnum

from pydantic import AwareDatetime, Field

from rlhi_plugin.records import Record, UserId


class AdapterStage(StrEnum):
    """Life of an adapter. Training makes candidates; a decision on a report promotes one."""

    CANDIDATE = "candidate"
    PROMOTED = "promoted"
    RETIRED = "retired"


class AdapterRecord(Record):
    """One LoRA adapter, pinned by digests to its weights, its base model and its training run."""

    adapter_id: str = Field(pattern=r"^[a-z0-9][a-z0-9._\-]{0,127}$")
    path: str
    """Folder with ``adapter_config.json`` and ``adapter_model.safetensors``."""
    stage: AdapterStage = AdapterStage.CANDIDATE
    weights_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of ``adapter_model.safetensors``."""
    config_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of ``adapter_config.json``."""
    base_model: str
    """Hub id of the base, or the name of an embedded model; never a local path."""
    base_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 over the base's weight files: an adapter answers for one base only."""
    persona_prompt_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Digest of the frame that personas were rendered into during training; serving must use the same."""
    run_manifest: str
    """Path of the training run's manifest.json."""
    parent: str | None = None
    """The adapter that training continued from."""
    user_ids: tuple[UserId, ...] = ()
    """Users whose turns are in its training data, sorted; `rlhi forget` looks here."""
    created_at: AwareDatetime
