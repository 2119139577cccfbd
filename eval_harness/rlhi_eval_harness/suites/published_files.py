"""Files of a published benchmark: from a folder of the user's, or from the model hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhi_plugin.errors import ConfigError, MissingExtraError


@dataclass(frozen=True)
class Wanted:
    """One file.

    Attributes:
        names: What it may be called in a folder, the first that is there counts.
        on_hub: Its path in the hub's data set; empty where it is not there.
    """

    names: tuple[str, ...]
    on_hub: str = ""


def locate(data: str | None, wanted: Wanted, repository: str, *, where: str) -> Path:
    """Where a file is; without a folder it is fetched from the hub, once.

    Args:
        data: Folder of the benchmark's files, or None for the hub.
        wanted: Which file.
        repository: The hub's data set.
        where: A sentence that says where the files are published.

    Raises:
        ConfigError: it is not there; the message says what is missing, and how to get it.
        MissingExtraError: the hub's library is not installed.
    """
    if data is not None:
        folder = Path(data)
        found = [folder / name for name in wanted.names if (folder / name).is_file()]
        if found:
            return found[0]
        raise ConfigError(f"{folder} lacks {' or '.join(wanted.names)}. {where} Give its folder with --data.")
    if not wanted.on_hub:
        raise ConfigError(f"{wanted.names[0]} is not on the hub. {where} Give its folder with --data.")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "eval") from error
    try:
        return Path(hf_hub_download(repository, wanted.on_hub, repo_type="dataset"))
    except Exception as error:
        raise ConfigError(
            f"{wanted.on_hub} of {repository} cannot be fetched from the hub ({type(error).__name__}). {where} Give a "
            "folder that holds it with --data."
        ) from error


def locate_if_there(data: str | None, names: Sequence[str]) -> Path | None:
    """An optional file of the user's folder."""
    return next((Path(data) / name for name in names if (Path(data) / name).is_file()), None) if data else None
