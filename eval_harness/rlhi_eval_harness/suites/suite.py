"""Suites as options: one model a kind, which is the TOML file, the environment, the command line and the documentation.

Values come, later ones winning, from the defaults here, the file, environment variables ``RLHI_EVAL_USERS=8``, and
``--set users=8``. All values are ours: the paper evaluates on private splits with a judge.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from rlhi_eval_harness.subjects import parse_subjects
from rlhi_plugin.errors import ConfigError


class Suite(BaseModel):
    """What every suite has; each kind adds its own options (`rlhi_eval_harness.suites.kinds`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """What the suite is called in the report."""
    summary: str
    """One line for ``rlhi-eval suites``."""
    kind: str = "simulated_users"
    """Which kind of suite it is (`rlhi_eval_harness.suites.kinds`)."""
    seed: int = 0
    """Of users, items, orders and samples, as far as the suite draws them."""
    subjects: tuple[str, ...] = ("base", "base+persona", "adapter", "adapter+persona", "adapter+shuffled-persona")
    """Who answers, unless --subject says so; see `rlhi_eval_harness.subjects`. Win rates are against the first one."""
    system_prompt: str | None = None
    """The assistant's own system prompt; None: whatever the chat template has."""
    max_new_tokens: int = Field(default=96, ge=1)
    """Cap on every answer. An answer that reaches it is judged as the user received it."""
    temperature: float = Field(default=0.7, ge=0.0, le=2.0)
    """Of the evaluated answers; 0 is greedy."""
    resamples: int = Field(default=4000, ge=100)
    """Bootstrap resamples per interval."""

    @field_validator("subjects")
    @classmethod
    def _subjects_can_be_read(cls, subjects: tuple[str, ...]) -> tuple[str, ...]:
        parse_subjects(subjects)
        return subjects


HERE = "{here}"
"""In a suite's file: the folder that the file lies in."""


def shipped_suites() -> dict[str, Suite]:
    """The suites that come with the package, by name, sorted."""
    folder = files("rlhi_eval_harness.suites")
    names = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return {name: parse_suite(tomllib.loads((folder / f"{name}.toml").read_text("utf-8")), name) for name in names}


def load_suite(name_or_path: str, *, overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Suite:
    """Load a shipped suite by name, or a TOML file by path, and apply environment and overrides.

    Args:
        name_or_path: ``smoke``, ``my_suite.toml``, or a folder that holds a ``suite.toml``.
        overrides: ``key=value`` or ``habits.key=value``; the value is read as TOML, or else taken as text.
        environ: Defaults to the process environment; reads ``RLHI_EVAL_<KEY>`` and ``RLHI_EVAL_HABITS_<KEY>``.

    Raises:
        ConfigError: no such suite, not TOML, or a key or value that the model does not allow.
    """
    path = Path(name_or_path)
    if path.is_dir() and (path / "suite.toml").is_file():
        path /= "suite.toml"
    shipped = files("rlhi_eval_harness.suites") / f"{name_or_path}.toml"
    try:
        if path.suffix == ".toml":
            text = path.read_text("utf-8").replace(HERE, json.dumps(str(path.parent.resolve()))[1:-1])
        elif shipped.is_file():
            text = shipped.read_text("utf-8")
        else:
            known = ", ".join(shipped_suites())
            raise ConfigError(f"no suite named {name_or_path!r}. Shipped: {known}; or give the path of a .toml file.")
        data = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read the suite {path}: {error.strerror}. Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}. Mend the file.") from error
    for key, value in sorted((os.environ if environ is None else environ).items()):
        if key.startswith("RLHI_EVAL_"):
            option = key.removeprefix("RLHI_EVAL_").lower()
            _assign(data, option.replace("habits_", "habits.", 1) if option.startswith("habits_") else option, value)
    for override in overrides:
        dotted, separator, value = override.partition("=")
        if not separator:
            raise ConfigError(f"--set {override!r}: write it as key=value, e.g. users=8")
        _assign(data, dotted.strip(), value)
    return parse_suite(data, name_or_path)


def _assign(data: dict[str, Any], dotted: str, value: str) -> None:
    """Set one dotted key. The value is TOML where it parses as such, else a string."""
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    *sections, last = dotted.split(".")
    target = data
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise ConfigError(f"{dotted}: {section!r} is not a section of a suite. See: rlhi-eval suites --options")
    target[last] = parsed


def parse_suite(data: dict[str, Any], origin: str) -> Suite:
    """Options as the model of their kind.

    Raises:
        ConfigError: no such kind, or a key or value that its model does not allow; `origin` is named.
    """
    from rlhi_eval_harness.suites.kinds import kind_named

    options = kind_named(str(data.get("kind", "simulated_users"))).options
    try:
        return options.model_validate(data)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
        remedy = "See: rlhi-eval suites --options"
        raise ConfigError("\n".join([f"{origin} is not a valid suite:", *lines, remedy])) from error
