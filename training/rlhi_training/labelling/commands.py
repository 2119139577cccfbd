"""The commands of `rlhi-train` about labels: label a log, fit the labellers, report on them, take in annotations."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rlhi_plugin import terminal
from rlhi_training.labelling import compare_command
from rlhi_training.labelling.compare_command import Confidence, Share, Unlabelled, Weight, self_training

if TYPE_CHECKING:
    from rlhi_plugin.calls.journal import CallJournal
    from rlhi_plugin.chat import ChatClient
    from rlhi_plugin.labelling import Labeller
    from rlhi_training.labelling.label_log import LabelCounts, LabelOptions
    from rlhi_training.labelling.label_set import Joined

Logs = Annotated[list[Path], typer.Argument(help="Logs that hold the texts: WildChat, Chatbot Arena, or both.")]
Name = Annotated[str, typer.Option("--labeller", help="fast, encoder, llm, cascade, or another package's.")]
Llm = Annotated[str | None, typer.Option("--llm", help="Model of llm and cascade: openai/gpt-4o or local:FOLDER.")]


def label_command(
    logs: str,
    out: Path,
    name: str,
    options: LabelOptions,
    *,
    llm: str | None = None,
    votes: int = 1,
    workers: int = 1,
) -> None:
    """Label a log and say what happened.

    What a model is asked is in a journal beside `out`: a command that was ended goes on where it was, and pays for
    nothing again.

    Raises:
        UserError: the log, the labeller or the output cannot be used.
    """
    from rlhi_adapters.opening import open_client
    from rlhi_plugin.calls.stack import equip
    from rlhi_plugin.importers.files import size_of
    from rlhi_training.labelling.label_log import label_log
    from rlhi_training.labelling.tiers import ASKING, make_labeller
    from rlhi_training.log_source import log_source

    source = log_source(logs)
    source.require()
    # How much a hub will send is not known before.
    unit, total = ("rows", None) if source.hub else ("bytes", size_of(source.path))
    asked = llm if name in ASKING else None
    with _journal(out, asked) as journal:
        client = equip(open_client(asked), journal=journal) if asked else None
        labeller = make_labeller(name, llm=None if client else llm, client=client, votes=votes, workers=workers)
        with terminal.progress(f"label {source.path.name} ({unit})", total) as advance:
            counts = asyncio.run(_landing(label_log(logs, out, labeller, options, advance), journal, client))
    _say(counts, out)
    decided = getattr(labeller, "decided", None)
    if decided:
        terminal.stdout.print(f"decided by tier: {', '.join(map(str, decided))}", markup=False)


@contextmanager
def _journal(out: Path, llm: str | None) -> Iterator[CallJournal | None]:
    """The journal of the calls to a model; None where none is asked."""
    if llm is None:
        yield None
        return
    from rlhi_plugin.calls.journal import CallJournal

    with CallJournal(out.with_name(f"{out.name}.calls.db")) as opened:
        opened.purpose = "label"
        yield opened


async def _landing(
    work: Coroutine[None, None, LabelCounts], journal: CallJournal | None, client: ChatClient | None
) -> LabelCounts:
    """What work gives; also after an error or Ctrl-C, calls that are on their way are waited for and kept."""
    try:
        return await work
    finally:
        if journal is not None:
            await journal.land()
        aclose = getattr(client, "aclose", None)
        if aclose is not None:
            await aclose()


def _say(counts: LabelCounts, out: Path) -> None:
    for problem in counts.named:
        terminal.stderr.print(f"set aside: {problem}", style="yellow", markup=False)
    total = sum(counts.labels.values())
    rows = [(name, f"{number}", f"{number / max(1, total):.1%}") for name, number in counts.labels.most_common()]
    terminal.stdout.print(terminal.table("Follow-ups", ("label", "count", "share"), rows))
    aside = f", {counts.refused} row(s) set aside" if counts.refused else ""
    kept_out = f", {counts.kept_out} conversation(s) kept out by their users" if counts.kept_out else ""
    signals = f", {sum(counts.signals.values())} signal(s) without words" if counts.signals else ""
    terminal.stdout.print(
        f"{total} follow-up(s) of {counts.conversations} conversation(s) in {out}{kept_out}{aside}{signals}",
        markup=False,
    )


def fit_labeller(  # noqa: PLR0917 - a command's options, not a call's arguments
    logs: Logs,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the weights; default: the package's own, which are then replaced."),
    ] = None,
    only_fast: Annotated[
        bool, typer.Option("--only-fast", help="Fit the fast tier alone: no torch, a minute.")
    ] = False,
    folds_used: Annotated[
        int,
        typer.Option(
            "--folds-used", help="Of three folds, how many are trained on to weigh and calibrate the tiers: 1 to 3."
        ),
    ] = 1,
    work: Annotated[
        Path | None, typer.Option("--work", help="Folder that keeps trained networks, to go on later; default: none.")
    ] = None,
    unlabelled: Unlabelled = None,
    share: Share = 0.3,
    confidence: Confidence = 0.6,
    weight: Weight = 0.3,
) -> None:
    """Fit the embedded labellers on the label set and the texts in your logs. The held-out third is not looked at.

    Example: rlhi-train fit-labeller wildchat.jsonl arena.jsonl.gz --out weights/
    """
    import logging

    from rlhi_training.labelling.fitting import FitOptions, fit_labellers, rows_to_fit
    from rlhi_training.labelling.weights import FOLDER

    options = None
    if not only_fast:
        from rlhi_training.labelling.fit_encoder import EncoderOptions

        options = EncoderOptions()
    logging.getLogger("rlhi.training").setLevel(logging.INFO)
    joined = joined_with(logs)
    rows = rows_to_fit(joined.examples)
    more = self_training(unlabelled, share, confidence, weight)
    made = fit_labellers(rows, out or FOLDER, FitOptions(options, folds_used=folds_used, work=work, more=more))
    for key, value in made.items():
        terminal.stdout.print(f"{key}: {value}", markup=False)
    terminal.stdout.print(f"weights: {out or FOLDER}", markup=False)


def labeller_report(  # noqa: PLR0917 - a command's options, not a call's arguments
    logs: Logs,
    out: Annotated[Path, typer.Option("--out", help="Folder for report.json, report.md and cascade.svg.")],
    part: Annotated[
        Literal["train", "development", "held_out"],
        typer.Option(
            "--part", help="Part of the label set to measure on; the shipped weights have seen all but held_out."
        ),
    ] = "development",
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--labeller",
            help="fast, encoder, llm, cascade, or another's. Repeatable, cheapest first; default: fast, encoder.",
        ),
    ] = None,
    llm: Llm = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="Folder of fit-labeller; default the shipped weights.")
    ] = None,
) -> None:
    """Measure labellers on the label set: F1, AUROC, kappa, calibration, by language and source, beside baselines.

    Example: rlhi-train labeller-report wildchat.jsonl arena.jsonl.gz --part held_out --out report/
    """
    from rlhi_training.labelling.agreement import agreement
    from rlhi_training.labelling.encoder import EncoderLabeller
    from rlhi_training.labelling.fast import FastLabeller
    from rlhi_training.labelling.label_set import part_of, read_labels, read_second_readings
    from rlhi_training.labelling.report import report
    from rlhi_training.labelling.report_page import as_markdown, draw_cascade
    from rlhi_training.labelling.tiers import make_labeller

    joined = joined_with(logs)
    fast = FastLabeller(weights / "fast.safetensors" if weights else None)
    own: dict[str, Labeller] = {
        "fast": fast,
        "encoder": EncoderLabeller(weights / "encoder.safetensors" if weights else None, fast=fast),
    }
    labellers: dict[str, Labeller] = {
        name: own.get(name) or make_labeller(name, llm=llm) for name in names or list(own)
    }
    missing = sum(part_of(one.label.conversation_id) == part for one in joined.unmatched)
    readers = agreement(read_labels(), read_second_readings())
    found = asyncio.run(report(joined.examples, part, labellers, readers, unmatched=missing))
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(found.model_dump_json(indent=2) + "\n", "utf-8")
    text = as_markdown(found)
    (out / "report.md").write_text(text, "utf-8")
    if found.cascade:
        draw_cascade(found, out / "cascade.svg")
    terminal.stdout.print(text, markup=False, soft_wrap=True)


def import_labels(
    folder: Annotated[Path, typer.Argument(help="Folder of annotations: key.json, texts.json, out/*.tsv.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for follow_ups.csv and second_readings.csv; default the package's."),
    ] = None,
) -> None:
    """Take annotators' files into the label set, without texts. Run it again when there are more.

    Example: rlhi-train import-labels annotations/ --out labels/
    """
    from importlib.resources import files

    from rlhi_training.labelling.label_set.annotations import read_annotations
    from rlhi_training.labelling.label_set.reading import write_labels

    found = read_annotations(folder)
    target = out or Path(str(files("rlhi_training") / "labelling" / "label_set"))
    target.mkdir(parents=True, exist_ok=True)
    write_labels(target / "follow_ups.csv", found.first)
    write_labels(target / "second_readings.csv", found.second)
    for problem in found.refused:
        terminal.stderr.print(f"set aside: {problem}", style="yellow", markup=False)
    terminal.stdout.print(
        f"{len(found.first)} label(s) and {len(found.second)} second reading(s) in {target},"
        f" {len(found.refused)} line(s) set aside",
        markup=False,
    )


def joined_with(logs: list[Path]) -> Joined:
    """The label set with the texts of these logs; says what is missing.

    Raises:
        ConfigError: there is no such log, or one of them holds no conversation.
    """
    from rlhi_training.labelling.fitting import unmatched_summary
    from rlhi_training.labelling.label_set import join, read_labels
    from rlhi_training.labelling.logs import conversations_of

    joined = join(read_labels(), conversations_of(logs))
    terminal.stdout.print(f"{len(joined.examples)} labelled follow-ups found", markup=False)
    missing = unmatched_summary([one.why for one in joined.unmatched])
    if missing:
        terminal.stderr.print(missing, style="yellow", markup=False)
    return joined


def mount(app: typer.Typer) -> None:
    """Add the commands to `rlhi-train`."""
    app.command("fit-labeller")(fit_labeller)
    app.command("labeller-report")(labeller_report)
    app.command("import-labels")(import_labels)
    compare_command.mount(app)
