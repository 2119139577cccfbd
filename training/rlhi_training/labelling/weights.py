"""Weights in files: safetensors, with what is known of them beside the numbers. Never a pickle."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from rlhi_plugin.errors import ArtefactError, MissingExtraError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = Path(str(files("rlhi_training") / "labelling" / "weights"))
"""Where the weights that ship in this package are."""


def write_weights(path: Path, tensors: dict[str, NDArray], facts: dict[str, str]) -> None:  # type: ignore[type-arg]  # of several kinds
    """Write one file, whole or not at all; the same content gives the same bytes.

    Raises:
        MissingExtraError: safetensors is not installed.
    """
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise MissingExtraError("safetensors", "train") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.partial")
    try:
        save_file(tensors, draft, facts)
        draft.chmod(0o644)  # safetensors makes a private file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read_weights(path: Path) -> tuple[dict[str, NDArray], dict[str, str]]:  # type: ignore[type-arg]  # of several kinds
    """Read what `write_weights` wrote.

    Raises:
        ArtefactError: the file is absent or damaged.
        MissingExtraError: safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingExtraError("safetensors", "train") from error
    try:
        with safe_open(path, "np") as stream:
            names = list(stream.keys())
            return {name: stream.get_tensor(name) for name in names}, dict(stream.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ArtefactError(f"cannot read the weights {path}: {error}. Install the package again.") from error
