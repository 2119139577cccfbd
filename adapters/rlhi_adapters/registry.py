"""Which adapters there are and where each stands: one JSON file an adapter in one folder, safe for several processes.

Records are written to a temporary file and moved into place, so a reader never sees half of one. Registering uses an
exclusive link, so of two processes that register the same name one fails instead of being overwritten. Changes of
stage hold a lock and are also appended to ``history.jsonl``.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from platformdirs import user_data_dir
from pydantic import ValidationError

from rlhi_adapters.digests import adapter_digests, sha256_file
from rlhi_adapters.records import AdapterRecord, AdapterStage
from rlhi_plugin.errors import ArtefactError, ConfigError, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhi_adapters.base_models import BaseModel

_HISTORY = "history.jsonl"
_LOCK = ".lock"


class Decision(Protocol):
    """What `AdapterRegistry.promote` reads of a decision (see `rlhi_eval_harness.records.PromotionDecision`)."""

    @property
    def adapter_id(self) -> str:
        """The adapter decided on."""
        ...

    @property
    def decision(self) -> str:
        """``promote`` or ``hold``."""
        ...

    @property
    def reasons(self) -> Sequence[str]:
        """One for each rule."""
        ...

    @property
    def report_digest(self) -> str:
        """SHA-256 of the report file, in hex."""
        ...


def default_registry() -> Path:
    """Where adapters are registered unless told otherwise: ``RLHI_REGISTRY``, else the user's data folder."""
    return Path(os.environ.get("RLHI_REGISTRY") or Path(user_data_dir("rlhi")) / "adapters")


def describe_adapter(
    adapter_dir: Path,
    adapter_id: str,
    *,
    base: BaseModel,
    persona_prompt_digest: str,
    run_manifest: Path,
    user_ids: Sequence[str] = (),
    parent: str | None = None,
) -> AdapterRecord:
    """A candidate's record, with the digests of its files as they are now.

    Raises:
        ArtefactError: the folder is not an adapter.
        ConfigError: the name is not lower-case letters, digits, dots, dashes and underscores.
    """
    digests = adapter_digests(adapter_dir)
    try:
        return AdapterRecord(
            adapter_id=adapter_id,
            path=str(adapter_dir.resolve()),
            weights_digest=digests.weights,
            config_digest=digests.config,
            base_model=base.name,
            base_digest=base.digest,
            persona_prompt_digest=persona_prompt_digest,
            run_manifest=str(run_manifest.resolve()),
            parent=parent,
            user_ids=tuple(sorted(set(user_ids))),
            created_at=datetime.now(UTC),
        )
    except ValidationError as error:
        raise ConfigError(f"{adapter_id!r} cannot be registered: {error}. Choose another name.") from error


class AdapterRegistry:
    """The adapters registered in one folder.

    Args:
        root: The folder; made when something is registered. None is `default_registry`.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else default_registry()

    def register(self, record: AdapterRecord) -> None:
        """Add an adapter. Registering the same record again does nothing.

        Raises:
            ConfigError: the name belongs to another adapter.
            ArtefactError: the adapter's files are not what the record says.
            StoreError: the folder cannot be written.
        """
        _check(record)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with self._temporary(record.to_json()) as temporary:
                os.link(temporary, self._file(record.adapter_id))
        except FileExistsError as error:
            if self.get(record.adapter_id) != record:
                raise ConfigError(
                    f"an adapter named {record.adapter_id} is registered in {self.root}. Choose another name."
                ) from error
            return
        except OSError as error:
            raise StoreError(f"cannot register in {self.root}: {error.strerror}. Set RLHI_REGISTRY.") from error
        self._log(record.adapter_id, None, record.stage, "registered")

    def list(self, *, stage: AdapterStage | None = None) -> tuple[AdapterRecord, ...]:
        """All adapters, or those in one stage; oldest first.

        Raises:
            ArtefactError: a record cannot be read.
        """
        records = [self._read(path) for path in self.root.glob("*.json")]
        chosen = [record for record in records if stage is None or record.stage is stage]
        return tuple(sorted(chosen, key=lambda record: (record.created_at, record.adapter_id)))

    def get(self, adapter_id: str) -> AdapterRecord:
        """One adapter's record; its files are not looked at (see `verify`).

        Raises:
            ConfigError: there is none of this name.
            ArtefactError: its record cannot be read.
        """
        path = self._file(adapter_id)
        if not path.is_file():
            known = ", ".join(record.adapter_id for record in self.list()) or "none"
            raise ConfigError(f"no adapter named {adapter_id!r} in {self.root} (registered: {known}).")
        return self._read(path)

    def verify(self, adapter_id: str) -> AdapterRecord:
        """One adapter's record, after checking its files against the digests in it. Do this before serving.

        Raises:
            ConfigError: there is none of this name.
            ArtefactError: the weights or the configuration changed, or are gone.
        """
        record = self.get(adapter_id)
        _check(record)
        return record

    def promote(self, decision: Decision, report: Path) -> AdapterRecord:
        """Make an adapter the one to serve, on the strength of a report.

        Args:
            decision: What was decided, by whoever did; only ``promote`` promotes.
            report: The report file that was decided on.

        Raises:
            ConfigError: the decision is to hold, is about another report, or the adapter is retired.
            ArtefactError: the adapter's files changed, or the report cannot be read.
        """
        if decision.decision != "promote":
            reasons = "; ".join(decision.reasons)
            raise ConfigError(f"the decision on {decision.adapter_id} is {decision.decision!r}: {reasons}")
        if sha256_file(report) != decision.report_digest:
            raise ConfigError(f"{report} is not the report that was decided on. Give that one, or decide again.")
        self.verify(decision.adapter_id)
        why = f"report {decision.report_digest}: {'; '.join(decision.reasons)}"
        return self._move(decision.adapter_id, AdapterStage.PROMOTED, why, allowed={AdapterStage.CANDIDATE})

    def retire(self, adapter_id: str, *, reason: str) -> AdapterRecord:
        """Take an adapter out of service for good; its files stay.

        Raises:
            ConfigError: there is none of this name, or no reason is given.
        """
        if not reason.strip():
            raise ConfigError("say why the adapter is retired: it is kept in the registry's history.")
        return self._move(adapter_id, AdapterStage.RETIRED, reason, allowed=set(AdapterStage))

    def _move(self, adapter_id: str, stage: AdapterStage, why: str, *, allowed: set[AdapterStage]) -> AdapterRecord:
        self.get(adapter_id)
        with _locked(self.root / _LOCK):
            record = self.get(adapter_id)
            if record.stage is stage:
                return record
            if record.stage not in allowed:
                raise ConfigError(f"{adapter_id} is {record.stage} and cannot become {stage}. Train a new adapter.")
            moved = record.model_copy(update={"stage": stage})
            with self._temporary(moved.to_json()) as temporary:
                temporary.replace(self._file(adapter_id))
            self._log(adapter_id, record.stage, stage, why)
        return moved

    def _file(self, adapter_id: str) -> Path:
        return self.root / f"{Path(adapter_id).name}.json"

    def _read(self, path: Path) -> AdapterRecord:
        try:
            return AdapterRecord.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise ArtefactError(f"{path} is not an adapter record: {error}. Move it away, register again.") from error

    @contextmanager
    def _temporary(self, text: str) -> Iterator[Path]:
        """A complete file with this text in the registry's folder, to be linked or moved, then removed."""
        descriptor, name = tempfile.mkstemp(prefix=".writing-", dir=self.root)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _log(self, adapter_id: str, before: AdapterStage | None, after: AdapterStage, why: str) -> None:
        event = {"at": datetime.now(UTC).isoformat(), "adapter_id": adapter_id, "from": before, "to": after, "why": why}
        # One write in append mode: lines of two processes do not mix.
        with (self.root / _HISTORY).open("a", encoding="utf-8") as file:
            file.write(json.dumps(event, ensure_ascii=False) + "\n")


def _check(record: AdapterRecord) -> None:
    digests = adapter_digests(Path(record.path))
    for what, recorded, found in (
        ("weights", record.weights_digest, digests.weights),
        ("configuration", record.config_digest, digests.config),
    ):
        if recorded != found:
            raise ArtefactError(
                f"the {what} of {record.adapter_id} in {record.path} changed since it was registered "
                f"({recorded[:12]} then, {found[:12]} now). Do not serve it; restore the files or train again."
            )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes; the system frees it when its holder dies."""
    with path.open("a+b") as file:
        try:
            import fcntl
        except ImportError:  # Windows
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined]
            yield
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
