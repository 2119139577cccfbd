"""Prompts are files beside the code that uses them; whatever they produce records their digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt file.

    Attributes:
        name: File name without its ending.
        text: Its content, without white space at the ends.
    """

    name: str
    text: str

    @property
    def version(self) -> str:
        """Name and the first 8 hex digits of the text's SHA-256."""
        return f"{self.name}-{hashlib.sha256(self.text.encode()).hexdigest()[:8]}"


@lru_cache(maxsize=64)
def load_prompt(package: str, name: str) -> Prompt:
    """Read ``prompts/NAME.md`` of a package; once in a process."""
    return Prompt(name, (files(package) / "prompts" / f"{name}.md").read_text("utf-8").strip())
