"""Where else a user's data is: training runs and adapters, read as plain files, for this package imports neither."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_data_dir

MANIFEST = "manifest.json"
_UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class RunTrace:
    """A run directory that holds a user's data.

    Attributes:
        path: The directory.
        lines: How many lines of which of its files name the user, by path relative to it.
    """

    path: Path
    lines: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class AdapterTrace:
    """An adapter that learned from a user's data.

    Attributes:
        adapter_id: Its name.
        stage: ``candidate``, ``promoted``, ``retired``, or ``unreadable`` where its record is damaged.
        path: Its folder.
        why: Where its record says so.
    """

    adapter_id: str
    stage: str
    path: str
    why: str


def default_registry() -> Path:
    """Where `rlhi-adapters` keeps its records: ``RLHI_REGISTRY``, else the user's data folder."""
    return Path(os.environ.get("RLHI_REGISTRY") or Path(user_data_dir("rlhi")) / "adapters")


def find_runs(folders: Iterable[Path], user_id: str) -> list[RunTrace]:
    """The run directories in or below these folders whose JSONL files name a user.

    All files of a run are searched, also what was dropped and what models generated.

    Args:
        folders: Run directories, or folders that hold them. Those that do not exist hold none.
        user_id: Pseudonym.
    """
    found = []
    for run in sorted({manifest.parent for folder in folders for manifest in folder.rglob(MANIFEST)}):
        lines = {
            file.relative_to(run).as_posix(): count
            for file in sorted(run.rglob("*.jsonl"))
            if (count := count_lines(file, user_id))
        }
        if lines:
            found.append(RunTrace(run, lines))
    return found


def count_lines(file: Path, user_id: str) -> int:
    """How many lines of a file hold a user's pseudonym as a JSON string. The file is never read into memory."""
    if file.stat().st_size == 0:
        return 0
    # A pseudonym is 128 bits of chance, so a line with it in quotes is about that user, whatever its form.
    wanted, count, place = f'"{user_id}"'.encode(), 0, 0
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as body:
        while (place := body.find(wanted, place)) >= 0:
            count += 1
            place = body.find(b"\n", place)
            if place < 0:
                break
    return count


def find_adapters(registry: Path, user_id: str, runs: Iterable[RunTrace] = ()) -> list[AdapterTrace]:
    """The adapters that were trained on a user's data, and those that training continued from one of them.

    Args:
        registry: Folder of an adapter registry: one JSON file an adapter.
        user_id: Pseudonym.
        runs: Runs that hold the user's data: an adapter of one may have been registered without its users.
    """
    records = {str(record["adapter_id"]): record for record in _records(registry)}
    tainted = {run.path.resolve() / MANIFEST for run in runs}
    reasons: dict[str, str] = {}
    for name, record in records.items():
        if record.get("stage") == _UNREADABLE:
            reasons[name] = "its record cannot be read: look whether it was trained on this user's turns"
        elif user_id in record.get("user_ids", ()):
            reasons[name] = "trained on this user's turns"
        elif Path(str(record.get("run_manifest", ""))).resolve() in tainted:
            reasons[name] = "made by a run that holds this user's turns"
    grows = True
    while grows:
        heirs = {
            name: f"continues {record['parent']}"
            for name, record in records.items()
            if record.get("parent") in reasons and name not in reasons
        }
        reasons.update(heirs)
        grows = bool(heirs)
    return [
        AdapterTrace(name, str(records[name].get("stage", "candidate")), str(records[name].get("path", "")), why)
        for name, why in sorted(reasons.items())
    ]


def _records(registry: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(registry.glob("*.json")):
        try:
            record = json.loads(file.read_bytes())
        except (OSError, ValueError):
            record = {"adapter_id": file.stem, "stage": _UNREADABLE, "path": str(file)}
        if isinstance(record, dict) and "adapter_id" in record:
            yield record
