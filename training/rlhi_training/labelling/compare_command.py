"""`rlhi-train compare-labellers`: which way of labelling is worth its cost, on your machine."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhi_plugin import terminal

if TYPE_CHECKING:
    from rlhi_training.labelling.self_training import SelfTraining

Unlabelled = Annotated[
    list[Path] | None,
    typer.Option(
        "--unlabelled", help="Log with follow-ups that nobody labelled, for self-training. Repeatable; default: none."
    ),
]
Share = Annotated[
    float,
    typer.Option(
        "--pseudo-share",
        help="Share, 0 to 1, of the follow-ups that the teacher puts into a class: the surest are used.",
    ),
]
Confidence = Annotated[
    float,
    typer.Option("--pseudo-confidence", help="Least probability, 0 to 1, with which the teacher labels one of them."),
]
Weight = Annotated[
    float, typer.Option("--pseudo-weight", help="Weight of one of them beside a labelled one, which weighs 1.")
]


def compare_labellers(  # noqa: PLR0917 - a command's options, not a call's arguments
    logs: Annotated[list[Path], typer.Argument(help="Logs that hold the texts of the label set.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for comparison.json and comparison.md.")],
    candidates: Annotated[
        list[str] | None,
        typer.Option(
            "--candidate",
            help="fast, fast-self-trained, encoder, encoder-self-trained, language-model. Repeatable; default: "
            "fast, encoder.",
        ),
    ] = None,
    unlabelled: Unlabelled = None,
    share: Share = 0.3,
    confidence: Confidence = 0.6,
    weight: Weight = 0.3,
    base: Annotated[
        str, typer.Option("--base", help="Base of the language-model candidate: the embedded one, a folder, a hub id.")
    ] = "smollm2-135m-instruct",
    tokens: Annotated[int, typer.Option("--tokens", help="Most tokens of a row of the language model.")] = 160,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", help="Stop training the language model after so many minutes; default: none."),
    ] = None,
    llm: Annotated[
        str | None, typer.Option("--llm", help="Also ask this model: openai/gpt-4o, local:smollm2-135m-instruct.")
    ] = None,
    sample: Annotated[int, typer.Option("--sample", help="Follow-ups that the model of --llm is asked about.")] = 60,
    train_at_most: Annotated[
        int | None, typer.Option("--train-at-most", help="Labelled follow-ups to learn from; default all.")
    ] = None,
    try_at_most: Annotated[
        int | None, typer.Option("--try-at-most", help="Follow-ups of a fold to try; default all.")
    ] = None,
    folds_used: Annotated[
        int, typer.Option("--folds-used", help="Of three folds, how many are held back in turn: 1 to 3.")
    ] = 1,
    work: Annotated[
        Path | None, typer.Option("--work", help="Folder that keeps what was found, to go on later; default: none.")
    ] = None,
) -> None:
    """Fit candidates on conversations of train and development, and try them on others of these two parts.

    Example: rlhi-train compare-labellers wildchat.jsonl arena.jsonl.gz --candidate fast --out report/
    """
    from rlhi_plugin.errors import ConfigError
    from rlhi_training.labelling.candidates import CandidateOptions
    from rlhi_training.labelling.commands import joined_with
    from rlhi_training.labelling.comparing import ComparisonOptions, compare
    from rlhi_training.labelling.comparison_page import as_markdown
    from rlhi_training.labelling.fitting import rows_to_fit
    from rlhi_training.labelling.language_model import LanguageModelOptions
    from rlhi_training.labelling.tiers import make_labeller

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write to {out}: {error.strerror}. Name another folder: --out FOLDER") from error
    options = ComparisonOptions(
        candidates=tuple(candidates or ("fast", "encoder")),
        train_at_most=train_at_most,
        try_at_most=try_at_most,
        sample=sample,
        folds_used=folds_used,
        work=work,
    )
    seconds = None if minutes is None else 60.0 * minutes
    language_model = LanguageModelOptions(base=base, most_tokens=tokens, most_seconds=seconds)
    labeller = None if llm is None else make_labeller("llm", llm=llm)
    logging.getLogger("rlhi.training").setLevel(logging.INFO)
    rows = rows_to_fit(joined_with(logs).examples)
    training = self_training(unlabelled, share, confidence, weight)
    how = CandidateOptions(training, language_model=language_model)
    found = asyncio.run(compare(rows, options, how, labeller))
    (out / "comparison.json").write_text(found.model_dump_json(indent=2) + "\n", "utf-8")
    text = as_markdown(found)
    (out / "comparison.md").write_text(text, "utf-8")
    terminal.stdout.print(text, markup=False, soft_wrap=True)


def self_training(logs: list[Path] | None, share: float, confidence: float, weight: float) -> SelfTraining | None:
    """What is learned from without labels; None where no log was named.

    Raises:
        ConfigError: the numbers cannot be, or the logs hold no follow-up that is not in the label set.
    """
    from rlhi_plugin.errors import ConfigError
    from rlhi_training.labelling.label_set import read_labels
    from rlhi_training.labelling.logs import conversations_of
    from rlhi_training.labelling.self_training import SelfTraining, unlabelled

    if not logs:
        return None
    training = SelfTraining(unlabelled(conversations_of(logs), read_labels()), share, confidence, weight)
    if not training.pool:
        raise ConfigError(
            "no follow-up of these logs is without a label. Name a log that has others: --unlabelled FILE"
        )
    terminal.stdout.print(f"{len(training.pool)} follow-ups without a label found", markup=False)
    return training


def mount(app: typer.Typer) -> None:
    """Add the command to `rlhi-train`."""
    app.command("compare-labellers")(compare_labellers)
