"""`rlhi-eval alpaca-eval`: annotate outputs, score annotations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhi_eval_harness.pinned_option import Pinned, say_who_answered
from rlhi_plugin import terminal

if TYPE_CHECKING:
    from rlhi_eval_harness.alpaca.files import Annotation
    from rlhi_eval_harness.judge_identity import JudgeIdentity

alpaca_app = typer.Typer(
    no_args_is_help=True,
    help="AlpacaEval 2.0: annotate outputs with a judge, compute win rates from annotations.",
    epilog="Example: rlhi-eval alpaca-eval score annotations.json --set set.jsonl",
)

EvalSet = Annotated[
    Path, typer.Option("--set", help="The 805 instructions with the baseline's outputs, JSON or JSON lines.")
]
Difficulties = Annotated[
    Path | None, typer.Option(help="instruction_difficulty.csv, for the length-controlled win rate.")
]
Gamed = Annotated[Path | None, typer.Option(help="df_gamed.csv: the length-controlled fit is then alpaca_eval's own.")]
JSONFile = Annotated[Path | None, typer.Option("--json", help="Write the numbers to this file as well.")]


@alpaca_app.command(
    epilog="Example: rlhi-eval alpaca-eval score annotations.json --set set.jsonl --difficulties difficulty.csv"
)
def score(  # noqa: PLR0917 - typer turns every parameter into an option
    annotations: Annotated[Path, typer.Argument(help="annotations.json of alpaca_eval, or a table of them (CSV).")],
    set_: EvalSet,
    model: Annotated[
        str | None, typer.Option(help="Which model, where the file holds several; default: the only one.")
    ] = None,
    difficulties: Difficulties = None,
    gamed: Gamed = None,
    json_: JSONFile = None,
) -> None:
    """Compute win rates from annotations; asks no judge."""
    from rlhi_eval_harness.alpaca.files import read_annotations, read_instructions

    found = read_annotations(annotations, read_instructions(set_), model=model)
    _show(found, difficulties, gamed, json_)


@alpaca_app.command(
    epilog="Example: rlhi-eval alpaca-eval annotate outputs.json --set set.jsonl --out runs/alpaca --base-url "
    "http://127.0.0.1:8000/v1 --judge-model my-judge"
)
def annotate(  # noqa: PLR0917 - typer turns every parameter into an option
    outputs: Annotated[Path, typer.Argument(help="The model's outputs: a JSON list of {instruction, output}.")],
    set_: EvalSet,
    out: Annotated[Path, typer.Option(help="Folder for annotations and cache; a stopped run goes on there.")],
    annotator: Annotated[
        str, typer.Option(help="One of alpaca_eval's annotators, or a folder with configs.yaml and its prompt.")
    ] = "weighted_alpaca_eval_gpt4_turbo",
    judge_model: Annotated[
        str | None, typer.Option(help="Judge model; default: the one that the annotator names.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="OpenAI-compatible endpoint, with /v1; default: the annotator's own.")
    ] = None,
    retry_unscored: Annotated[bool, typer.Option(help="Ask again where no verdict could be read.")] = False,
    require_pinned_judge: Pinned = False,
    difficulties: Difficulties = None,
    gamed: Gamed = None,
    json_: JSONFile = None,
) -> None:
    """Let a judge compare outputs with the baseline's, and compute win rates. The key is read from OPENAI_API_KEY."""
    from rlhi_eval_harness.alpaca.annotate import Judge
    from rlhi_eval_harness.alpaca.annotate import annotate as run
    from rlhi_eval_harness.alpaca.files import read_instructions, read_outputs

    judge = Judge(
        annotator=annotator, model=judge_model, base_url=base_url, retry_unscored=retry_unscored,
        require_pinned=require_pinned_judge,
    )  # fmt: skip
    instructions = read_instructions(set_)
    annotated = run(instructions, read_outputs(outputs, instructions), judge, out, generator=outputs.stem)
    terminal.stdout.print(
        f"judge: {annotated.judge_model} as {annotated.annotator}, prompt {annotated.prompt_digest}", markup=False
    )
    if not annotated.comparable:
        terminal.stdout.print("Another judge than the leaderboard's: do not compare these numbers with it.")
    say_who_answered(annotated.identity, again="in another folder, with --judge-model")
    _show(annotated.annotations, difficulties, gamed, json_, annotated.identity)


def _show(
    annotations: Sequence[Annotation],
    difficulties: Path | None,
    gamed: Path | None,
    json_: Path | None,
    judge: JudgeIdentity | None = None,
) -> None:
    from rlhi_eval_harness.alpaca.files import read_difficulties
    from rlhi_eval_harness.alpaca.length_control import fit
    from rlhi_eval_harness.alpaca.win_rates import win_rate

    raw = win_rate(annotations)
    controlled = None
    if difficulties is not None or gamed is not None:
        hardness = None if difficulties is None else read_difficulties(difficulties)
        controlled = fit(annotations, hardness, gamed=gamed)
    interval = "" if raw.low is None else f"{raw.low:.1f} to {raw.high:.1f}"
    rows = [("win rate", f"{raw.win_rate:.2f}", interval)]
    if controlled is not None:
        rows.append((f"length-controlled ({controlled.method})", f"{controlled.win_rate:.2f}", "-"))
    terminal.stdout.print(terminal.table("Against the baseline", ("", "0 to 100", "95 %"), rows))
    longer = raw.length_bias
    lines = [raw.coverage.sentence()]
    if longer.longer_wins.value is not None:
        lines.append(
            f"The longer output wins {longer.longer_wins.value:.0%}; the median output has "
            f"{longer.median_ratio:.2f} times the baseline's length."
        )
    if controlled is not None:
        lines.append(
            f"The length-controlled rate has the leaderboard's standard error, {controlled.standard_error:.2f}: the "
            "spread of predictions over instructions, without the uncertainty of the fit, so no interval is given."
        )
    if controlled is not None and gamed is None:
        lines.append("The length-controlled rate is a refit: the leaderboard's own needs df_gamed.csv (--gamed).")
    for line in lines:
        terminal.stdout.print(f"- {line}", markup=False, highlight=False)
    if json_ is not None:
        body = {"raw": asdict(raw), "length_controlled": None if controlled is None else asdict(controlled)}
        if judge is not None:
            body["judge"] = judge.model_dump(mode="json")
        json_.write_text(json.dumps(body, indent=2) + "\n", "utf-8")
