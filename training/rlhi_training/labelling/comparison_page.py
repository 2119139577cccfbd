"""A comparison of labellers for people: Markdown tables."""

from __future__ import annotations

from rlhi_plugin.records import FollowUpLabel
from rlhi_training.labelling.comparing import Compared, Comparison
from rlhi_training.labelling.llm_trial import LLMTrial
from rlhi_training.labelling.measuring import Quality
from rlhi_training.labelling.report_page import shown

_WITH = FollowUpLabel.WITH_FEEDBACK


def as_markdown(found: Comparison) -> str:
    """All tables."""
    parts = [
        "# Labellers compared on train and development",
        f"Learned from {found.learned_from} labelled follow-ups and {found.invented} invented exchanges"
        + (f", self-trained candidates also from a part of {found.pool} that nobody labelled" if found.pool else "")
        + f"; tried on {found.tried_on} of other conversations. 95 % intervals over conversations; gains are paired.",
        _candidates(found.candidates, found.tried_on),
        *(() if found.llm is None else (_trial(found.llm))),
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _figures(quality: Quality) -> list[str]:
    figures = (quality.f1[_WITH], quality.auroc, quality.kappa, quality.calibration_error)
    return [shown(figure) for figure in figures]


def _candidates(candidates: dict[str, Compared], tried_on: int) -> str:
    head = ["candidate", "F1 with", "AUROC with", "kappa", "ECE", "F1 over fast", "AUROC over fast"]
    head += ["rows learned from", "unlabelled", "CPU s to fit", "CPU s per 1,000"]
    rows = []
    for name, one in candidates.items():
        facts = one.facts
        each = 1000 * facts["label_cpu_s"] / max(1, tried_on)
        costs = [f"{facts['rows']:.0f}", f"{facts['unlabelled']:.0f}", f"{facts['fit_cpu_s']:.0f}", f"{each:.1f}"]
        rows.append([name, *_figures(one.quality), shown(one.gain.f1), shown(one.gain.auroc), *costs])
    return _table(head, rows)


def _trial(found: LLMTrial) -> tuple[str, ...]:
    counts = ", ".join(f"{count} {name}" for name, count in found.per_class.items())
    head = ["labeller", "F1 with", "AUROC with", "kappa", "ECE"]
    tables = {f"`{found.labeller}`": found.quality, **found.beside}
    cascade = [
        [point.tiers, f"{point.passed_on:.0%}", *_figures(point.quality), f"{point.seconds_per_thousand:.1f}"]
        for point in found.cascade
    ]
    return (
        "## A language model asked",
        (
            f"{found.asked} follow-ups ({counts}), {found.seconds_each:.1f} s each. {found.unreadable} replies could"
            f" not be read and are in no figure; of {found.abstained} labels it said itself that its confidence is low."
        ),
        _table(head, [[name, *_figures(quality)] for name, quality in tables.items()]),
        "## As the last tier of the cascade, on the same follow-ups",
        _table(["tiers", "the last is asked about", *head[1:], "s per 1,000"], cascade),
    )
