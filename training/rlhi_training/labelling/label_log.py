"""Labelling a whole log: any format in, one JSON line per follow-up out, with memory that does not grow.

Each line holds ``conversation_id`` (the log's own: WildChat's ``conversation_hash``), ``turn``, ``message_id``,
``label``, ``subtype``, ``probabilities``, ``evidence`` and ``labeller``. `turn` is the follow-up's place among the
conversation's user messages, the initial request being 1, as in the label set: the first follow-up has turn 2.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rlhi_plugin.errors import ConfigError, ModelCallError, RecordError
from rlhi_plugin.importers import Imported, read_log
from rlhi_plugin.labelling import Exchange, Labeller, exchanges
from rlhi_plugin.labelling.labeller import label_each
from rlhi_plugin.privacy.tombstones import by_user, remembered
from rlhi_plugin.records import Conversation, FollowUp
from rlhi_training.labelling.hindsight import Inherited, inherit
from rlhi_training.labelling.signals import signals
from rlhi_training.log_source import LogSource, log_source
from rlhi_training.run_directory import writing_to

BATCH = 1024
"""Follow-ups that are labelled together; whole conversations, so a batch may be longer."""
NAMED = 3
"""Refused rows that a summary names."""


@dataclass(frozen=True)
class LabelOptions:
    """How a log is labelled.

    Attributes:
        log_format: Name of the log's format; None tells it from the fields.
        hindsight: Whether neutral follow-ups get a field ``hindsight`` (`rlhi_training.labelling.hindsight`).
        signals: File for the signals without words; None leaves them out.
        refused: File for the rows that cannot be read and the follow-ups that a model could not label, one JSON line
            each.
    """

    log_format: str | None = None
    hindsight: bool = False
    signals: Path | None = None
    refused: Path | None = None


@dataclass
class LabelCounts:
    """What happened.

    Attributes:
        conversations: Labelled.
        kept_out: Conversations that are not labelled, since their users were forgotten or want nothing to be learned
            from them.
        labels: Follow-ups by label.
        signals: Without words, by kind.
        refused: Rows that cannot be read, and follow-ups that a model could not label.
        named: The first `NAMED` of them.
    """

    conversations: int = 0
    kept_out: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    signals: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    named: list[str] = field(default_factory=list)


async def label_log(
    name: str | Path,
    out: Path,
    labeller: Labeller,
    options: LabelOptions,
    watch: Callable[[int], object] = lambda _: None,
) -> LabelCounts:
    """Label every user message after the first of each conversation, also those that follow no answer.

    What users keep out of learning, and what forgotten users said, is not labelled either. The output appears whole or
    not at all.

    Args:
        name: A log: a file, an archive, a folder, or ``hf://datasets/OWNER/NAME``.
        out: Where the lines go.
        labeller: What labels.
        options: How.
        watch: Hears how many more bytes were read, or how many more rows of a data set on a hub.

    Raises:
        UserError: there is no such log, or a file cannot be written to its end.
        ConfigError: the log cannot be read, a file cannot be written or would be the log itself, or no row of the log
            could be used.
        ModelCallError: a labeller that asks a model got not one label from it.
    """
    logs = log_source(name)
    logs.require()
    _keep_apart(logs, [file for file in (out, options.signals, options.refused) if file is not None])
    counts = LabelCounts()
    draft = out.with_name(f".{out.name}.partial")
    try:
        with writing_to(out), ExitStack() as stack:
            lines = stack.enter_context(_open(draft))
            written = stack.enter_context(_open(options.signals)) if options.signals else None
            refused = stack.enter_context(_open(options.refused)) if options.refused else None
            sorting = _Sorting(counts, written, refused)
            await _in_batches(
                sorting.conversations(_permitted(_records(logs, options, watch), logs, counts)),
                lambda batch: _label(batch, labeller, options, lines, sorting),
            )
        if counts.refused and not counts.conversations and not counts.kept_out:
            first = str(counts.named[0]).rstrip(".")
            raise ConfigError(f"no row of {name} could be used, the first because: {first}. Give a log.")
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
    return counts


def _keep_apart(logs: LogSource, files: Sequence[Path]) -> None:
    """Refuse to write over the log, into its folder, or two things into one file."""
    places = [file.resolve() for file in files]
    if len(set(places)) < len(places):
        raise ConfigError("labels, signals and refused rows cannot go into one file. Give each its own.")
    for file, place in zip(files, places, strict=True):
        if logs.hub is None and place.is_relative_to(logs.path.resolve()):
            raise ConfigError(f"{file} is the log or lies inside it, which would spoil it. Name another file.")


def _records(logs: LogSource, options: LabelOptions, watch: Callable[[int], object]) -> Iterable[Imported]:
    if logs.hub is None:
        return read_log(logs.path, options.log_format, watch, any_order=True)
    if options.log_format is not None:
        raise ConfigError("the format of a data set on a hub is told from its fields. Leave --format out.")
    return _counted(logs.hub.conversations(), watch)


def _counted(records: Iterable[Imported], watch: Callable[[int], object]) -> Iterator[Imported]:
    for record in records:
        watch(1)
        yield record


def _permitted(records: Iterable[Imported], logs: LogSource, counts: LabelCounts) -> Iterator[Imported]:
    forgotten, exclusions = by_user(logs.tombstones()), logs.exclusions()
    for record in records:
        if isinstance(record, Conversation):
            known = remembered(record, forgotten)
            if known is None or exclusions.of(known) is not None:
                counts.kept_out += 1
                continue
            yield known
        elif isinstance(record, RecordError) or (
            exclusions.of(record) is None and (record.user_id is None or record.user_id not in forgotten)
        ):
            yield record


async def _in_batches(
    found: Iterable[Conversation], work: Callable[[list[tuple[Exchange, ...]]], Awaitable[None]]
) -> None:
    batch: list[tuple[Exchange, ...]] = []
    size = 0
    for conversation in found:
        batch.append(exchanges(conversation, unanswered=True))
        size += len(batch[-1])
        if size >= BATCH:
            await work(batch)
            batch, size = [], 0
    await work(batch)


async def _label(
    batch: Sequence[tuple[Exchange, ...]], labeller: Labeller, options: LabelOptions, lines: TextIO, sorting: _Sorting
) -> None:
    said = iter(await label_each(labeller, [exchange for found in batch for exchange in found]))
    for found in batch:
        own: list[FollowUp] = []
        for exchange, one in zip(found, said, strict=False):
            if isinstance(one, FollowUp):
                own.append(one)
            else:
                sorting.unlabelled(exchange, one)
        later = inherit(own) if options.hindsight else [None] * len(own)
        for one, inherited in zip(own, later, strict=True):
            sorting.counts.labels[one.label.value] += 1
            lines.write(json.dumps(as_row(one, inherited, hindsight=options.hindsight), ensure_ascii=False) + "\n")
    if sorting.error is not None and not sorting.counts.labels:
        raise sorting.error


def as_row(follow_up: FollowUp, inherited: Inherited | None = None, *, hindsight: bool = False) -> dict[str, Any]:
    """A follow-up as a line of the output."""
    row: dict[str, Any] = {
        "conversation_id": follow_up.conversation_id,
        "turn": follow_up.turn + 1,
        "message_id": follow_up.message_id,
        "label": follow_up.label.value,
        "subtype": None if follow_up.subtype is None else follow_up.subtype.value,
        "probabilities": {name.value: round(value, 6) for name, value in follow_up.probabilities.items()},
        "evidence": follow_up.evidence,
        "labeller": follow_up.labeller,
    }
    if hindsight:
        row["hindsight"] = inherited and {
            "label": inherited.label.value,
            "turn": inherited.from_turn + 1,
            "message_id": inherited.from_message_id,
            "probability": round(inherited.probability, 6),
        }
    return row


class _Sorting:
    """Takes records apart: conversations are passed on, signals and refusals are written down."""

    def __init__(self, counts: LabelCounts, written: TextIO | None, refused: TextIO | None) -> None:
        self.counts, self._signals, self._refused = counts, written, refused
        self.error: ModelCallError | None = None
        """Why the last follow-up that a model could not label has no label."""

    def conversations(self, records: Iterable[Imported]) -> Iterator[Conversation]:
        for record in records:
            if isinstance(record, RecordError):
                self._refuse(record)
                continue
            found = signals([record])
            if self._signals is not None:
                for signal in found:
                    self.counts.signals[signal.kind.value] += 1
                    self._signals.write(signal.model_dump_json() + "\n")
            if isinstance(record, Conversation):
                self.counts.conversations += 1
                yield record

    def unlabelled(self, exchange: Exchange, error: ModelCallError) -> None:
        """Note a follow-up that a model could not label."""
        place = {"conversation_id": exchange.conversation_id, "turn": exchange.turn + 1}
        self._note(f"{exchange.conversation_id}, turn {exchange.turn + 1}: {error}", place, str(error))
        self.error = error

    def _refuse(self, error: RecordError) -> None:
        self._note(str(error), {"path": str(error.path), error.unit: error.line}, str(error))

    def _note(self, name: str, place: dict[str, Any], reason: str) -> None:
        self.counts.refused += 1
        if len(self.counts.named) < NAMED:
            self.counts.named.append(name)
        if self._refused is not None:
            self._refused.write(json.dumps({**place, "reason": reason}, ensure_ascii=True) + "\n")


def _open(file: Path) -> TextIO:
    try:
        return file.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}. Name another file.") from error
