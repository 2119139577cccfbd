"""One suite model: it is the TOML file, the environment, the command line and the documentation of every option.

Values come, later ones winning, from the defaults here, the file, environment variables ``RLHI_EVAL_USERS=8``, and
``--set users=8``. All values are ours: the paper evaluates on private splits with a judge.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlhi_eval_harness.simulation import Habits
from rlhi_eval_harness.simulation.phrases import Wording
from rlhi_eval_harness.simulation.users import USUAL
from rlhi_plugin.errors import ConfigError

SubjectName = Literal["base", "base+persona", "adapter", "adapter+persona", "adapter+shuffled-persona"]


class Suite(BaseModel):
    """A whole evaluation with simulated users."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    summary: str
    """One line for ``rlhi-eval suites``."""
    kind: Literal["simulated_users"] = "simulated_users"
    seed: int = 0
    users: int = Field(default=16, ge=2)
    """Held-out simulated users: the clusters of every interval."""
    wordings: tuple[Wording, ...] = ("seen", "new")
    """How they complain, in turn: as the training users do, or in words of their own."""
    preferences: tuple[str, ...] = USUAL
    """What they may want: names from `rlhi_plugin.checks` that there are complaint wordings for."""
    habits: Habits = Habits()
    """How they talk with the base assistant before they are evaluated."""
    requests: int = Field(default=6, ge=1)
    """Held-out requests per user; every subject answers each of them."""
    subjects: tuple[SubjectName, ...] = (
        "base",
        "base+persona",
        "adapter",
        "adapter+persona",
        "adapter+shuffled-persona",
    )
    system_prompt: str | None = None
    """The assistant's own system prompt, in history and evaluation; None: whatever the chat template has."""
    max_new_tokens: int = Field(default=96, ge=1)
    """Cap on every answer, in history and evaluation. An answer that reaches it is judged as the user received it."""
    temperature: float = Field(default=0.7, ge=0.0, le=2.0)
    """Of the evaluated answers; 0 is greedy."""
    labeller: str = "embedded"
    """What reads the history: ``embedded``, ``llm``, or another package's entry point."""
    resamples: int = Field(default=4000, ge=100)
    """Bootstrap resamples per interval."""


def shipped_suites() -> dict[str, Suite]:
    """The suites that come with the package, by name, sorted."""
    folder = files("rlhi_eval_harness.suites")
    names = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return {name: _validate(tomllib.loads((folder / f"{name}.toml").read_text("utf-8")), name) for name in names}


def load_suite(name_or_path: str, *, overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Suite:
    """Load a shipped suite by name, or a TOML file by path, and apply environment and overrides.

    Args:
        name_or_path: ``smoke`` or ``my_suite.toml``.
        overrides: ``key=value`` or ``habits.key=value``; the value is read as TOML, or else taken as text.
        environ: Defaults to the process environment; reads ``RLHI_EVAL_<KEY>`` and ``RLHI_EVAL_HABITS_<KEY>``.

    Raises:
        ConfigError: no such suite, not TOML, or a key or value that the model does not allow.
    """
    path = Path(name_or_path)
    shipped = files("rlhi_eval_harness.suites") / f"{name_or_path}.toml"
    try:
        if path.suffix == ".toml":
            text = path.read_text("utf-8")
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
    return _validate(data, name_or_path)


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


def _validate(data: dict[str, Any], origin: str) -> Suite:
    try:
        return Suite.model_validate(data)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
        remedy = "See: rlhi-eval suites --options"
        raise ConfigError("\n".join([f"{origin} is not a valid suite:", *lines, remedy])) from error
