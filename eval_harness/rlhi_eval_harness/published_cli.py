"""`rlhi-eval prove`: our numbers beside published ones; and one call that mounts the commands of their benchmarks."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from rlhi_eval_harness.alpaca.cli import alpaca_app
from rlhi_eval_harness.arena_hard.cli import arena_app
from rlhi_plugin import terminal
from rlhi_plugin.errors import ArtefactError

if TYPE_CHECKING:
    from rlhi_eval_harness.alpaca.proof import AlpacaProof
    from rlhi_eval_harness.arena_hard.proof import ArenaProof, BootstrapProof, StyleProof
    from rlhi_eval_harness.reasoning.proof import OutputsProof, ReferenceProof

PIPED_WIDTH = 140
"""Columns for the tables of proofs where the output is no terminal."""


@dataclass(frozen=True)
class Claim:
    """One thing that is proved: the bound, and how far off we are."""

    what: str
    cases: int
    bound: float
    measured: float

    @property
    def met(self) -> bool:
        """Whether something was compared, and lies within the bound."""
        return self.cases > 0 and self.measured <= self.bound


def add_to(app: typer.Typer) -> None:
    """Mount ``alpaca-eval``, ``arena-hard`` and ``prove`` on a command line."""
    app.add_typer(alpaca_app, name="alpaca-eval")
    app.add_typer(arena_app, name="arena-hard")
    app.command(epilog="Example: rlhi-eval prove --data data")(prove)


def prove(
    data: Annotated[Path, typer.Option(help="Folder with alpaca-eval-2/, arena-hard/ and reasoning/.")],
    coefficients: Annotated[
        Path | None, typer.Option(help="Table of published GLM coefficients; default: the one that ships.")
    ] = None,
    gamed: Annotated[
        Path | None, typer.Option(help="df_gamed.csv: proves the exact length-controlled fit; without it, the refit.")
    ] = None,
) -> None:
    """Compute published scores from published judgments, and print both. Exits 1 where a bound is not met."""
    from rlhi_eval_harness.alpaca.proof import prove_alpaca_eval
    from rlhi_eval_harness.arena_hard.proof import prove_bootstrap, prove_scores, prove_style
    from rlhi_eval_harness.reasoning.proof import prove_outputs, prove_references

    alpaca = prove_alpaca_eval(
        data / "alpaca-eval-2", coefficients=coefficients or published_coefficients(), gamed=gamed
    )
    arena = prove_scores(data / "arena-hard")
    outputs = prove_outputs(data / "reasoning")
    references = prove_references(data / "reasoning")
    _show_alpaca(alpaca)
    _show_arena(arena)
    _show_reasoning(outputs, references)
    claims = [
        *alpaca_claims(alpaca),
        *arena_claims(arena, prove_bootstrap(data / "arena-hard"), prove_style(data / "arena-hard")),
        *reasoning_claims(outputs, references),
    ]
    rows = [
        (each.what, each.cases, f"{each.bound:g}", f"{each.measured:.2g}", "yes" if each.met else "NO")
        for each in claims
    ]
    _print("Claims", ("claim", "cases", "bound", "furthest off", "met"), rows)
    failed = [each.what for each in claims if not each.met]
    if failed:
        raise ArtefactError(f"{len(failed)} claims do not hold: {'; '.join(failed)}. Give the data as published.")


def published_coefficients() -> Path:
    """The GLM coefficients that ship: of 15 models and the baseline, by tatsu-lab/alpaca_eval (Apache-2.0)."""
    return Path(str(files("rlhi_eval_harness.alpaca") / "published_coefficients.csv"))


def alpaca_claims(proofs: Iterable[AlpacaProof]) -> list[Claim]:
    """What is claimed of AlpacaEval 2.0: the furthest of all models, and the median for the refit."""
    items = list(proofs)
    raw = [abs(each.win_rate - each.published_win_rate) for each in items if each.published_win_rate is not None]
    given = [
        abs(each.from_coefficients.win_rate - each.published_length_controlled)
        for each in items
        if each.from_coefficients is not None and each.published_length_controlled is not None
    ]
    fitted = [
        abs(each.fitted.win_rate - each.published_length_controlled)
        for each in items
        if each.fitted is not None and each.published_length_controlled is not None
    ]
    exact = any(each.fitted is not None and each.fitted.method == "exact fit" for each in items)
    fit = (
        Claim("AlpacaEval LC win rate, exact fit, points", len(fitted), 0.01, max(fitted, default=1.0))
        if exact
        else Claim(
            "AlpacaEval LC win rate, refit without df_gamed.csv, median points",
            len(fitted),
            1.5,
            statistics.median(fitted) if fitted else 100.0,
        )
    )
    return [
        Claim("AlpacaEval raw win rate, points", len(raw), 0.00005, max(raw, default=1.0)),
        Claim("AlpacaEval LC win rate, given coefficients, points", len(given), 0.001, max(given, default=1.0)),
        fit,
    ]


def arena_claims(
    scores: Iterable[ArenaProof], bootstraps: Iterable[BootstrapProof], styles: Iterable[StyleProof]
) -> list[Claim]:
    """What is claimed of Arena-Hard."""
    models = [each for each in scores if not each.is_baseline]
    off = [abs(each.ours.score - each.published[0]) for each in models]
    elo = [abs(each.elo - each.published_elo) for each in models]
    ends = [abs(ours - theirs) for each in bootstraps for ours, theirs in zip(each.ours, each.published, strict=True)]
    counts = list(styles)
    return [
        Claim("Arena-Hard score from judgments, points", len(off), 0.05, max(off, default=1.0)),
        Claim("Arena-Hard Elo from judgments, Elo points", len(elo), 0.05, max(elo, default=1.0)),
        Claim("Arena-Hard v0.1 interval from bootstrap samples, points", len(ends), 1e-6, max(ends, default=1.0)),
        Claim(
            "Arena-Hard v2.0 markdown counts, answers that differ",
            sum(each.answers for each in counts),
            0,
            sum(each.answers - each.equal for each in counts),
        ),
    ]


def reasoning_claims(outputs: Iterable[OutputsProof], references: Iterable[ReferenceProof]) -> list[Claim]:
    """What is claimed of reasoning benchmarks."""
    scored, items = list(outputs), list(references)
    off = [abs(each.accuracy - each.own_accuracy) for each in scored]
    guessed = [each for each in scored if each.published is not None]
    from_published = [abs(each.guessed - (each.published or 0.0)) for each in guessed]
    return [
        Claim(
            "MMLU-Pro predictions that we read otherwise",
            sum(each.answers for each in scored),
            0,
            sum(len(each.differing) for each in scored),
        ),
        Claim("MMLU-Pro accuracy of the published predictions, points", len(off), 0, max(off, default=1.0)),
        Claim(
            "MMLU-Pro published score, expected with its random guesses, points (bound: two deviations)",
            len(guessed),
            round(2 * max((each.spread for each in guessed), default=0.0), 2),
            max(from_published, default=1.0),
        ),
        Claim(
            "Reference answers of benchmarks that are not accepted",
            sum(each.items for each in items),
            0,
            sum(len(each.refused) for each in items),
        ),
        Claim(
            "Other items' answers that are accepted",
            sum(each.items for each in items),
            0,
            sum(len(each.accepted) for each in items),
        ),
    ]


def _show_reasoning(outputs: Iterable[OutputsProof], references: Iterable[ReferenceProof]) -> None:
    rows = [
        (
            each.model,
            each.answers,
            f"{each.accuracy:.2f}",
            f"{each.own_accuracy:.2f}",
            each.unread,
            f"{each.guessed:.2f} ± {each.spread:.2f}",
            "-" if each.published is None else f"{each.published:.2f}",
        )
        for each in outputs
    ]
    columns = ("model", "outputs", "accuracy", "of its predictions", "unread", "with guesses expected", "leaderboard")
    _print("MMLU-Pro, published outputs", columns, rows)
    for each in outputs:
        changed = ", ".join(each.corrected) or "none"
        text = f"- {each.model}: reference answers corrected since: {changed}; by today's it has {each.today:.2f}."
        terminal.stdout.print(text, markup=False, highlight=False)
    shown = [(each.suite, each.items, len(each.refused), len(each.accepted)) for each in references]
    _print("Reference answers", ("suite", "items", "own refused", "others accepted"), shown)
    for proof in references:
        for line in (*proof.refused, *proof.accepted):
            terminal.stdout.print(f"- {proof.suite} {line}", markup=False, highlight=False)


def _show_alpaca(proofs: Iterable[AlpacaProof]) -> None:
    def cell(value: float | None, digits: int = 4) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    items = list(proofs)
    rows = [
        (
            each.model,
            cell(each.win_rate),
            cell(each.published_win_rate),
            cell(None if each.from_coefficients is None else each.from_coefficients.win_rate),
            cell(None if each.fitted is None else each.fitted.win_rate, 2),
            cell(each.published_length_controlled),
            f"{each.coverage.share:.1%}",
        )
        for each in items
    ]
    method = next((each.fitted.method for each in items if each.fitted is not None), "")
    columns = ("model", "win rate", "published", "LC, given coefficients", f"LC, {method}", "published LC", "unscored")
    _print("AlpacaEval 2.0", columns, rows)
    for each in items:
        if each.published_win_rate is None:
            terminal.stdout.print(f"- {each.model} is annotated, but not on the leaderboard.", markup=False)


def _show_arena(proofs: Iterable[ArenaProof]) -> None:
    rows = [
        (
            f"{each.model}{' (baseline)' if each.is_baseline else ''}",
            f"{each.ours.score:.2f}",
            f"{each.published[0]:.2f}",
            f"{each.ours.low:.2f} to {each.ours.high:.2f}",
            f"{each.ours.upstream_low:.2f} to {each.ours.upstream_high:.2f}",
            f"{each.published[1]:.2f} to {each.published[2]:.2f}",
        )
        for each in proofs
    ]
    columns = ("model", "score", "published", "95 %, by question", "95 %, by battle", "published")
    _print("Arena-Hard v0.1, Korean judgments", columns, rows)
    terminal.stdout.print("- The baseline's published score is 50 by definition; its judgments compare it with itself.")


def _print(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A wide table: piped, it is not folded to 80 columns."""
    console = terminal.stdout if terminal.stdout.is_terminal else Console(width=PIPED_WIDTH)
    console.print(terminal.table(title, columns, rows))


def main() -> None:
    """The commands on their own: ``python -m rlhi_eval_harness.published_cli``."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    add_to(app)
    terminal.run(app, "rlhi-eval")


if __name__ == "__main__":
    main()
