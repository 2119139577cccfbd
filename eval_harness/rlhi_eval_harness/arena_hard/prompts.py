"""The judge's prompts, read from the user's copy of Arena-Hard and recognised by their digests.

They are not carried here. Their licence (Apache-2.0) would allow it, but questions and baseline answers must come from
the published repository anyway, the prompts lie in the same checkout, and what this project contains, it wrote. The
digests tell whether a prompt is the published one; with any other, scores are not comparable, and that is said.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhi_eval_harness.arena_hard.files import WHERE
from rlhi_eval_harness.arena_hard.verdicts import Version
from rlhi_plugin.errors import ConfigError

PUBLISHED = {
    "hard_prompt": "03f68010febd7a6405102ef882b4dd5a9700c56b2e1ff286d3b38f5d3a929bbf",
    "arena-hard-v0.1": "03f68010febd7a6405102ef882b4dd5a9700c56b2e1ff286d3b38f5d3a929bbf",
    "creative_writing": "171489efbca7f19fb520e1b3c23783c76af7c723e770fe897a55f391684aa358",
    "user": "80fb20ab2eaae6d38a19f707f3f051f0456bcb977b0086bebe15f9bd23ce45f8",
}
"""SHA-256 of the published texts, without white space at the ends; v0.1 and v2.0's hard prompts share theirs."""

FIELDS = ("QUESTION", "ANSWER_A", "ANSWER_B")
_OLD_FIELDS = {"{question_1}": "{QUESTION}", "{answer_1}": "{ANSWER_A}", "{answer_2}": "{ANSWER_B}"}


@dataclass(frozen=True)
class JudgePrompts:
    """What the judge is told.

    Attributes:
        system: By the question's category.
        user: Template with ``{QUESTION}``, ``{ANSWER_A}`` and ``{ANSWER_B}``.
        source: Where they were read.
    """

    system: Mapping[str, str]
    user: str
    source: Path

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            ConfigError: a field of the template is missing.
        """
        missing = [field for field in FIELDS if f"{{{field}}}" not in self.user]
        if missing:
            raise ConfigError(f"{self.source}: the prompt lacks {{{missing[0]}}}. Give one with {', '.join(FIELDS)}.")

    def render(self, question: str, answer_a: str, answer_b: str) -> str:
        """The user message. What stands in the answers is never taken for a field."""
        return self.user.format(QUESTION=question, ANSWER_A=answer_a, ANSWER_B=answer_b)

    def system_for(self, category: str) -> str:
        """The system message for a category of questions.

        Raises:
            ConfigError: there is none.
        """
        if category not in self.system:
            raise ConfigError(f"{self.source} holds no system prompt for {category!r}, only for {sorted(self.system)}.")
        return self.system[category]

    def digest(self, category: str) -> str:
        """First 16 hex digits of the SHA-256 of both messages' texts."""
        return hashlib.sha256(f"{self.system_for(category)}\0{self.user}".encode()).hexdigest()[:16]

    def published(self, category: str) -> bool:
        """Whether both messages are the published ones."""
        return _digest(self.system_for(category)) == PUBLISHED.get(category) and _digest(self.user) == PUBLISHED["user"]


def load_prompts(folder: Path, version: Version) -> JudgePrompts:
    """Read the prompts from a checkout of arena-hard-auto, or from a folder of Markdown files.

    Args:
        folder: The checkout; or a folder with ``user.md`` and one file for each category (``hard_prompt.md``,
            ``creative_writing.md``, ``arena-hard-v0.1.md``).
        version: Which benchmark.

    Raises:
        ConfigError: it holds no prompts.
    """
    if (folder / "user.md").is_file():
        texts = {path.stem: path.read_text("utf-8").strip() for path in sorted(folder.glob("*.md"))}
        user = texts.pop("user")
        return JudgePrompts(texts, user, folder)
    settings = _settings(folder / "config" / f"arena-hard-{version}.yaml")
    for place in ("utils", "src/arenahard/utils"):
        path = folder / place / "judge_utils.py"
        if path.is_file() and settings is not None:
            return JudgePrompts(_system_prompts(path), _template(settings), folder)
    older = _settings(folder / "config" / "judge_config.yaml")
    if version == "v0.1" and older is not None and "system_prompt" in older:
        return JudgePrompts({"arena-hard-v0.1": str(older["system_prompt"]).strip()}, _template(older), folder)
    raise ConfigError(
        f"{folder} holds no judge prompts for Arena-Hard {version}. Give a checkout of arena-hard-auto (with "
        f"utils/judge_utils.py and config/arena-hard-{version}.yaml), or a folder with user.md and hard_prompt.md. "
        f"{WHERE}"
    )


def _settings(path: Path) -> dict[str, Any] | None:
    import yaml

    if not path.is_file():
        return None
    settings = yaml.safe_load(path.read_text("utf-8"))
    return settings if isinstance(settings, dict) and "prompt_template" in settings else None


def _template(settings: Mapping[str, Any]) -> str:
    template = settings["prompt_template"]
    text = str(template[0] if isinstance(template, list) else template)
    for old, new in _OLD_FIELDS.items():
        text = text.replace(old, new)
    return text.strip()


def _system_prompts(path: Path) -> dict[str, str]:
    """The constants of upstream's module, read without running it."""
    names: dict[str, Any] = {}
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names[node.targets[0].id] = _constant(node.value, names)
    found = names.get("JUDGE_SETTINGS")
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds no JUDGE_SETTINGS. {WHERE}")
    return {category: str(each["system_prompt"]).strip() for category, each in found.items()}


def _constant(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """The value of a text, of a name of one, or of a dictionary of them; None for anything else."""
    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return names.get(node.id)
        case ast.Dict():
            pairs = zip(node.keys, node.values, strict=True)
            return {_constant(key, names): _constant(value, names) for key, value in pairs if key is not None}
        case _:
            return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.strip().encode()).hexdigest()
