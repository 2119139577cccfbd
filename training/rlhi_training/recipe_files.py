"""Recipes from files: shipped ones by name, others by path, with what environment and command line change.

A recipe is a TOML file with one table per stage. Values come, later ones winning, from the defaults of
`rlhi_training.recipe`, the file, environment variables ``RLHI_TRAIN__LEARNING_RATE=1e-4`` and ``--set
train.learning_rate=1e-4``. A file that begins with ``extends = "rlhi_llama31_8b"`` says only what differs from that
shipped recipe, as the ablations do.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlhi_plugin.errors import ConfigError
from rlhi_training.recipe import Recipe


def shipped_recipes() -> dict[str, Recipe]:
    """The recipes that come with the package, by name, sorted."""
    folder = files("rlhi_training") / "recipes"
    names = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return {
        name: _validate(_extended(tomllib.loads((folder / f"{name}.toml").read_text("utf-8"))), f"{name}.toml")
        for name in names
    }


def load_recipe(
    name_or_path: str, *, overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Recipe:
    """Load a shipped recipe by name, or a TOML file by path, and apply environment and overrides.

    Args:
        name_or_path: ``smoke_cpu`` or ``my_recipe.toml``.
        overrides: ``section.key=value`` strings; the value is read as TOML, or else taken as text.
        environ: Defaults to the process environment; reads ``RLHI_<SECTION>__<KEY>``.

    Raises:
        ConfigError: no such recipe, not TOML, or a key or value that the model does not allow.
    """
    path = Path(name_or_path)
    shipped = files("rlhi_training") / "recipes" / f"{name_or_path}.toml"
    try:
        if path.suffix == ".toml":
            text = path.read_text("utf-8")
        elif shipped.is_file():
            text = shipped.read_text("utf-8")
        else:
            known = ", ".join(shipped_recipes())
            raise ConfigError(f"no recipe named {name_or_path!r}. Shipped: {known}; or give the path of a .toml file.")
        data = _extended(tomllib.loads(text))
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {path}: {error.strerror}. Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    for key, value in sorted((os.environ if environ is None else environ).items()):
        if key.startswith("RLHI_") and "__" in key:
            section, _, option = key.removeprefix("RLHI_").lower().partition("__")
            _assign(data, [section, option], value, origin=key)
    _apply(data, overrides)
    return _validate(data, name_or_path)


def override_recipe(data: Mapping[str, Any], overrides: Sequence[str]) -> Recipe:
    """A recipe as a manifest holds it, with ``section.key=value`` strings applied.

    Raises:
        ConfigError: an override is malformed, or the result is no valid recipe.
    """
    changed: dict[str, Any] = json.loads(json.dumps(data))
    _apply(changed, overrides)
    return _validate(changed, "the recipe of this run")


def _extended(data: dict[str, Any]) -> dict[str, Any]:
    """A recipe's tables over those of the shipped recipe that it extends, if it does.

    Raises:
        ConfigError: there is no such shipped recipe.
    """
    name = data.pop("extends", None)
    if name is None:
        return data
    source = files("rlhi_training") / "recipes" / f"{name}.toml"
    if not isinstance(name, str) or "/" in name or not source.is_file():
        raise ConfigError(f"extends = {name!r}: no shipped recipe of that name. See: rlhi-train recipes")
    whole = _extended(tomllib.loads(source.read_text("utf-8")))
    for key, value in data.items():
        whole[key] = {**whole[key], **value} if isinstance(value, dict) and key in whole else value
    return whole


def _apply(data: dict[str, Any], overrides: Sequence[str]) -> None:
    for override in overrides:
        dotted, separator, value = override.partition("=")
        if not separator:
            raise ConfigError(f"--set {override!r}: write it as section.key=value, e.g. train.epochs=1")
        _assign(data, dotted.strip().split("."), value, origin=f"--set {override}")


def _assign(data: dict[str, Any], keys: list[str], value: str, *, origin: str) -> None:
    """Set one dotted key. The value is TOML where it parses as such, else a string."""
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    target = data
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise ConfigError(f"{origin}: {key!r} is not a section of the recipe")
    target[keys[-1]] = parsed


def _validate(data: dict[str, Any], origin: str) -> Recipe:
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
        raise ConfigError("\n".join([f"{origin} is not a valid recipe:", *lines, "See: rlhi-train recipes"])) from error
