"""What people are asked, from a file whose digest is recorded like that of any prompt."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class Guidance:
    """The texts of ``guidance.toml``.

    Attributes:
        introduction: Before the first pair.
        name: What happens with the name that is asked for.
        known: Heading of what is known of the user.
        questions: By dimension, and ``any_other``.
        version: Name and digest of the file.
    """

    introduction: str
    name: str
    known: str
    questions: Mapping[str, str]
    version: str

    def question(self, dimension: str, label: str) -> str:
        """What is asked about one dimension."""
        return self.questions.get(dimension) or self.questions["any_other"].format(label=label)


def load_guidance() -> Guidance:
    """Read the file that ships."""
    content = (files("rlhi_eval_harness.human") / "guidance.toml").read_bytes()
    said = tomllib.loads(content.decode())
    return Guidance(
        introduction=said["introduction"].strip(),
        name=said["name"].strip(),
        known=said["known"],
        questions=said["questions"],
        version=f"guidance-{hashlib.sha256(content).hexdigest()[:8]}",
    )
