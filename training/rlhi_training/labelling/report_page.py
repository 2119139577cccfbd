"""The labeller report for people: Markdown with the tables, and the curve of cost against accuracy as a picture."""

from __future__ import annotations

from pathlib import Path

from rlhi_plugin.errors import MissingExtraError
from rlhi_training.labelling.decision import CLASSES
from rlhi_training.labelling.measuring import Figure, Quality
from rlhi_training.labelling.report import LabellerReport

_SHORT = {
    "new_request": "new",
    "reattempt_with_feedback": "with",
    "reattempt_without_feedback": "without",
    "positive_feedback": "positive",
}


def as_markdown(report: LabellerReport) -> str:
    """All tables."""
    first = next(iter(report.labellers.values()))
    parts = [
        f"# Labellers on the part `{report.part}`",
        f"{first.follow_ups} follow-ups of {first.conversations} conversations, {first.with_feedback} of them with"
        f" feedback. 95 % intervals over conversations."
        + (f" {report.unmatched} labels of the part had no text in the logs." if report.unmatched else ""),
        _table(report.labellers),
        "## By source",
        *(f"### {name}\n\n{_table(rows, brief=True)}" for name, rows in report.by_source.items()),
        "## By language",
        *(f"### {name}\n\n{_table(rows, brief=True)}" for name, rows in report.by_language.items()),
        "## The fast tier fitted on one source, tried on another",
        _table(report.across),
        "## Cascade",
        _cascade(report),
        "## Hindsight",
        _hindsight(report),
        "## Readers",
        (
            f"{report.readers.follow_ups} follow-ups were read twice: the same label for"
            f" {report.readers.same_label:.1%}, kappa {report.readers.kappa:.3f},"
            f" of sub-types {report.readers.kappa_of_subtype:.3f}."
        ),
        _readers(report),
    ]
    return "\n\n".join(parts) + "\n"


def _table(rows: dict[str, Quality], *, brief: bool = False) -> str:
    names = [f"F1 {_SHORT[name]}" for name in CLASSES]
    head = ["labeller", "follow-ups", *names, "AUROC with", *([] if brief else ["precision", "recall"]), "kappa", "ECE"]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for who, quality in rows.items():
        extra = [] if brief else [shown(quality.precision), shown(quality.recall)]
        cells = [
            who,
            str(quality.follow_ups),
            *(shown(quality.f1[name]) for name in CLASSES),
            shown(quality.auroc),
            *extra,
            shown(quality.kappa),
            shown(quality.calibration_error),
        ]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def shown(figure: Figure) -> str:
    """A figure with its interval, or a dash."""
    if figure.value is None:
        return "-"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _cascade(report: LabellerReport) -> str:
    lines = (
        ["first tier keeps from", "---"],
        ["passed on", "---"],
        ["F1 with", "---"],
        ["accuracy of what it kept", "---"],
        ["s per 1,000", "---"],
    )
    rows = [" | ".join(column[k] for column in lines) for k in (0, 1)]
    for step in report.cascade:
        f1 = "-" if step.f1 is None else f"{step.f1:.3f}"
        kept = "-" if step.kept_accuracy is None else f"{step.kept_accuracy:.3f}"
        rows.append(f"{step.keeps:.2f} | {step.passed_on:.1%} | {f1} | {kept} | {step.seconds_per_thousand:.2f}")
    return "\n".join(f"| {row} |" for row in rows)


def _hindsight(report: LabellerReport) -> str:
    rows = [
        "labeller | follow-ups | inherit by the readers' labels | by the labeller's | the same | precision | recall",
        " | ".join(["---"] * 7),
    ]
    for who, own in report.hindsight.items():
        shares = ("-" if share is None else f"{share:.3f}" for share in (own.precision, own.recall))
        cells = (str(count) for count in (own.follow_ups, own.by_readers, own.by_labeller, own.same))
        rows.append(" | ".join((who, *cells, *shares)))
    return "\n".join(f"| {row} |" for row in rows)


def _readers(report: LabellerReport) -> str:
    rows = ["class | kappa", "--- | ---"]
    rows += [f"{_SHORT[name]} | {value:.3f}" for name, value in report.readers.kappa_of_class.items()]
    return "\n".join(f"| {row} |" for row in rows)


def draw_cascade(report: LabellerReport, path: Path) -> None:
    """Draw the curve: seconds for a thousand follow-ups against the F1 of "with feedback".

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure as Canvas
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report") from error
    canvas = Canvas(figsize=(7.0, 4.2), layout="constrained")
    axes = canvas.subplots()
    steps = [step for step in report.cascade if step.f1 is not None]
    axes.plot([s.seconds_per_thousand for s in steps], [s.f1 or 0.0 for s in steps], "o-", color="#0072b2")
    for step in steps:
        axes.annotate(
            f"{step.keeps:.2f}",
            (step.seconds_per_thousand, step.f1 or 0.0),
            xytext=(4, -10),
            textcoords="offset points",
            fontsize=7,
        )
    axes.set_xlabel("seconds for 1,000 follow-ups")
    axes.set_ylabel('F1 of "with feedback"')
    axes.set_title("Fast tier decides from the probability at each point on, the encoder the rest", fontsize=9)
    axes.grid(alpha=0.3)
    canvas.savefig(path)
