"""What each subject is in the comparison, so that a control is never taken for a contender."""

from __future__ import annotations

from collections.abc import Iterable

from rlhi_eval_harness.subjects import Subject, parse_subjects

_NAMED = {
    "sft": "SFT adapter",
    "agnostic": "user-agnostic adapter",
    "user-agnostic": "user-agnostic adapter",
}
"""Names that a user gives to an adapter which is a control (``sft:adapter=PATH``)."""


def roles_of(subjects: Iterable[str]) -> dict[str, str]:
    """What each subject is, by its name; those that are simply under test are not in it.

    Args:
        subjects: As a suite writes them: ``base+persona``, ``sft:adapter=PATH+persona``.
    """
    return {subject.name: role for subject in parse_subjects(subjects) if (role := _role(subject))}


def _role(subject: Subject) -> str:
    name = subject.name.partition("+")[0]
    controls = [_NAMED[name]] if name in _NAMED else []
    if subject.persona == "shuffled":
        controls.append("shuffled persona")
    if subject.source == "base" and subject.persona == "own":
        controls.append("persona only")
    if controls:
        return f"control: {', '.join(controls)}"
    return {"base": "base, no persona", "logged": "what the log's assistant said"}.get(subject.source, "")
