"""What people said, as the tables and the sentences that Markdown and HTML share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rlhi_eval_harness.human.records import SKIP_REASONS
from rlhi_eval_harness.human.results import DimensionResult, HumanResult, Measured
from rlhi_eval_harness.inference.coverage import UNSCORED_LIMIT
from rlhi_eval_harness.report.tables import NOTHING, Cell, Grid

EXPLAINED = (
    "Win rates are the first subject's, ties a half. Agreement is the share of equal verdicts; alpha and kappa are "
    "agreement beyond chance (0 is chance, 1 is full agreement). Intervals are over users, or over raters where said."
)


def people_grid(result: HumanResult) -> Grid:
    """One row a question: people's win rate, how far they agree, how they lean."""
    columns: tuple[tuple[str, Callable[[DimensionResult], Cell]], ...] = (
        ("People's win rate", lambda each: share(each.people)),
        ("Over raters", lambda each: share(each.over_raters)),
        ("Raters agree", lambda each: share(each.agreement)),
        ("Krippendorff's alpha", lambda each: coefficient(each.alpha)),
        ("Left wins", lambda each: share(each.left_wins)),
        ("Longer wins", lambda each: share(each.longer_wins)),
    )
    rows = tuple((each.label, tuple(make(each) for _, make in columns)) for each in result.dimensions)
    return Grid(("Question", *(head for head, _ in columns)), rows)


def judge_grid(result: HumanResult) -> Grid:
    """One row a question: people beside the judge on the same pairs, and the judge corrected by people."""
    rows = []
    for each in result.dimensions:
        if (beside := each.with_judge) is None:
            continue
        corrected = beside.corrected
        rows.append(
            (
                each.label,
                (
                    share(each.people),
                    share(beside.judge),
                    share(beside.difference, signed=True),
                    share(beside.agreement),
                    coefficient(beside.kappa),
                    NOTHING if corrected.win_rate is None else share(corrected.win_rate),
                ),
            )
        )
    heads = ("People", "Judge, same pairs", "People minus judge", "Verdicts agree", "Cohen's kappa", "Judge corrected")
    return Grid(("Question", *heads), tuple(rows))


def rater_grid(result: HumanResult) -> Grid:
    """One row a rater, with their attention checks."""
    heads = ("Verdicts", "Skipped", "Taken back", "Median seconds", "Mirrored pair: same verdict", "Equal pair: tie")
    rows = tuple(
        (
            each.rater,
            (
                Cell(str(each.verdicts)),
                Cell(str(each.skipped)),
                Cell(str(each.undone)),
                NOTHING if each.median_seconds is None else Cell(f"{each.median_seconds:g}"),
                Cell(f"{each.mirrored_same} of {each.mirrored}") if each.mirrored else NOTHING,
                Cell(f"{each.identical_tied} of {each.identical}") if each.identical else NOTHING,
            ),
        )
        for each in result.raters
    )
    return Grid(("Rater", *heads), rows)


def trust_grid(rows: Sequence[Mapping[str, Any]]) -> Grid:
    """One row for each judge and question that compares two answers, or that two judges answered."""
    shown = [row for row in rows if row["pairwise"] or "with_first_judge" in row]
    heads = (
        "Orders agree",
        "Kappa of the orders",
        "First wins, ties half",
        "Longer wins, ties half",
        "Length correlation",
        "Kappa with first judge",
    )
    return Grid(("Judge and question", *heads), tuple((f"{row['judge']}: {row['what']}", _trust(row)) for row in shown))


def _trust(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    other = row.get("with_first_judge")
    kappa = NOTHING if other is None else coefficient(_read(other))
    if not row["pairwise"]:
        return (*(NOTHING for _ in range(5)), kappa)
    orders = row["between_orders"]
    lean = row["length_correlation"]
    return (
        NOTHING if orders["observed"] is None else Cell(f"{100 * orders['observed']:.0f} %"),
        coefficient(Measured(value=orders["kappa"], low=orders["low"], high=orders["high"])),
        share(_read(row["first_wins"])),
        share(_read(row["longer_wins"])),
        NOTHING if lean is None else Cell(f"{lean:+.2f}", f"p = {row['length_p']:.2g}"),
        kappa,
    )


def _read(found: Mapping[str, Any]) -> Measured:
    return Measured.model_validate({name: found[name] for name in Measured.model_fields if name in found})


def share(found: Measured, *, signed: bool = False) -> Cell:
    """A share in per cent, a difference of shares in points; struck where too much is missing."""
    if found.value is None:
        return NOTHING
    total = found.n + found.unscored
    missing = found.unscored / total if total else 0.0
    form, unit = ("+.0f", "pts") if signed else (".0f", "%")
    interval = (
        ""
        if found.low is None or found.high is None
        else f"{round(100 * found.low) + 0.0:{form}} to {round(100 * found.high) + 0.0:{form}}"
    )
    unscored = f"{100 * missing:.0f} % unscored" if missing else ""
    return Cell(f"{round(100 * found.value) + 0.0:{form}} {unit}", interval, missing <= UNSCORED_LIMIT, unscored)


def coefficient(found: Measured) -> Cell:
    """Alpha or kappa."""
    if found.value is None:
        return NOTHING
    interval = "" if found.low is None or found.high is None else f"{found.low:.2f} to {found.high:.2f}"
    return Cell(f"{found.value:.2f}", interval)


def about(result: HumanResult) -> list[str]:
    """Size, gaps and provenance of a study, one sentence each."""
    raters = [each for each in result.raters if each.verdicts]
    size = (
        f"{len(raters)} {'person' if len(raters) == 1 else 'people'} gave {result.verdicts} verdicts on "
        f"{result.judged} of {result.items} pairs ({result.eligible} could have been shown); {result.complete} pairs "
        f"have the planned {result.overlap} raters or more."
    )
    said = [size]
    if result.skipped:
        reasons = ", ".join(f"{SKIP_REASONS.get(name, name)} {count}" for name, count in result.skipped.items())
        said.append(f"Skipped: {reasons}.")
    if result.left_out:
        reasons = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in result.left_out.items())
        said.append(f"Pairs that were not shown: {reasons}.")
    if result.stale:
        said.append(f"Verdicts that do not count, because the answers have changed since: {result.stale}.")
    said += [_correction(each) for each in result.dimensions if each.with_judge is not None]
    checks = sum(each.mirrored + each.identical for each in raters)
    if checks:
        passed = sum(each.mirrored_same + each.identical_tied for each in raters)
        said.append(f"Attention checks: {passed} of {checks} passed; nobody is left out because of them.")
    return said


def _correction(each: DimensionResult) -> str:
    assert each.with_judge is not None  # noqa: S101 - the caller passes those that have one
    corrected = each.with_judge.corrected
    if corrected.win_rate is None:
        return f"{each.label}: the judge is not corrected, because {corrected.why_not}."
    return (
        f"{each.label}: judge corrected by people (prediction-powered inference, PPI++), from {corrected.labelled} "
        f"pairs that both judged and {corrected.unlabelled} that only the judge did; the judge's weight is "
        f"{corrected.weight:.2f}."
    )


def people_findings(results: Sequence[HumanResult]) -> Iterator[str]:
    """What is to be known before anything else is believed: what people prefer, and whether the judge may stand in."""
    for result in results:
        for each in result.dimensions:
            if each.people.value is not None:
                yield _people_said(result, each)
        yield from _checks_failed(result)


def _people_said(result: HumanResult, each: DimensionResult) -> str:
    win = share(each.people)
    interval = f"95 % interval {win.interval}" if win.interval else "no interval: a single user"
    agree = "" if each.alpha.value is None else f", alpha {each.alpha.value:.2f}"
    text = (
        f"People, {each.label.lower()}: {result.subject} against {result.versus} {win.value} ({interval}; "
        f"{each.people.n} pairs, {each.people.clusters} users, {each.over_raters.clusters} raters{agree})"
    )
    beside = each.with_judge
    if beside is not None and beside.judge.value is not None:
        kappa = "" if beside.kappa.value is None else f", kappa {beside.kappa.value:.2f}"
        text += f"; the judge on the same pairs {share(beside.judge).value}{kappa}"
    too_much = "" if win.usable else f" Not to be used: {win.unscored}, which is more than {UNSCORED_LIMIT:.0%}."
    return f"{text}.{too_much}"


def _checks_failed(result: HumanResult) -> Iterator[str]:
    for rater in result.raters:
        asked, passed = rater.mirrored + rater.identical, rater.mirrored_same + rater.identical_tied
        if asked and passed < asked / 2:
            yield f"{rater.rater} passed {passed} of {asked} attention checks: read the study with and without them."
