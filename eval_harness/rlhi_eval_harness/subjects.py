"""Who answers: a source of answers, and whose persona is in the prompt. Controls are subjects like any other.

::

    base                             the base model, in this process
    base+persona                     the same with the asking user's persona in the prompt (persona only)
    adapter=runs/1/adapter+persona   the base with a LoRA adapter on; `adapter` alone is the one of --adapter
    adapter+shuffled-persona         with another user's persona
    sft:adapter=runs/2/adapter       a name of its own: SFT adapter, user-agnostic adapter, ...
    model=FOLDER-OR-HUB-ID           another model in this process
    endpoint=openai/NAME@http://127.0.0.1:8000/v1    an OpenAI-compatible server (vLLM: NAME may be a runtime LoRA)
    outputs=FILE.jsonl               answers that were made elsewhere
    logged                           what the log's own assistant answered (suites that are built from a log)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rlhi_plugin.errors import ConfigError

PersonaUse = Literal["none", "own", "shuffled"]

_SPEC = re.compile(
    r"(?:(?P<name>[A-Za-z0-9._-]+):)?"
    r"(?P<kind>base|adapter|model|endpoint|outputs|logged)(?:=(?P<value>.+?))?"
    r"(?P<persona>\+persona|\+shuffled-persona)?"
)
_PERSONAS: dict[str | None, PersonaUse] = {None: "none", "+persona": "own", "+shuffled-persona": "shuffled"}
_NEEDS_VALUE = frozenset({"model", "endpoint", "outputs"})
_HAS_NO_VALUE = frozenset({"base", "logged"})


@dataclass(frozen=True)
class Subject:
    """One thing under test.

    Attributes:
        name: As in the report.
        source: What answers: ``base``, ``adapter``, ``adapter=PATH``, ``endpoint=MODEL@URL``, ...
        persona: Whose persona is in the prompt: nobody's, the asking user's, or that of a user who wants other things.
    """

    name: str
    source: str
    persona: PersonaUse

    @property
    def kind(self) -> str:
        """The source without its value."""
        return self.source.partition("=")[0]


def parse_subject(text: str) -> Subject:
    """Read one ``[NAME:]SOURCE[+persona|+shuffled-persona]``.

    Raises:
        ConfigError: it is not of this form.
    """
    found = _SPEC.fullmatch(text.strip())
    if found is None:
        raise ConfigError(
            f"{text!r} is no subject. Write [NAME:]SOURCE[+persona or +shuffled-persona]; SOURCE is base, adapter, "
            "adapter=PATH, model=NAME, endpoint=MODEL@URL, outputs=FILE or logged."
        )
    kind, value, persona = found["kind"], found["value"], found["persona"]
    if (kind in _NEEDS_VALUE and not value) or (kind in _HAS_NO_VALUE and value):
        needs = "needs a value: write" if kind in _NEEDS_VALUE else "takes no value: write"
        raise ConfigError(f"{text!r}: {kind} {needs} {kind}{'=...' if kind in _NEEDS_VALUE else ''}")
    source = f"{kind}={value}" if value else kind
    return Subject(name=f"{found['name'] or kind}{persona or ''}", source=source, persona=_PERSONAS[persona])


def parse_subjects(texts: Iterable[str]) -> tuple[Subject, ...]:
    """Read several, in their order.

    Raises:
        ConfigError: none at all, one of them is not of the form, or two have one name.
    """
    subjects = tuple(parse_subject(text) for text in texts)
    if not subjects:
        raise ConfigError("there is nobody to evaluate. Name at least one, such as --subject base")
    names = [subject.name for subject in subjects]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"two subjects are called {', '.join(doubled)}. Give one a name of its own: --subject sft:adapter=PATH"
        )
    return subjects
