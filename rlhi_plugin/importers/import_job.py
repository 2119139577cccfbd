"""The work of ``rlhi import``: read a log, store what is good, name what is not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TextIO

from rlhi_plugin.errors import ConfigError, OwnerMismatchError, RecordError
from rlhi_plugin.importers.files import size_of
from rlhi_plugin.importers.reading import FORMATS, read_log
from rlhi_plugin.importers.row import Imported
from rlhi_plugin.importers.screening import Screening
from rlhi_plugin.privacy.messages import RedactOption
from rlhi_plugin.records import Conversation, FeedbackEvent
from rlhi_plugin.terminal import Advance, progress

NAMED = 20
"""Refused rows that are named one by one; all of them go to the file that was asked for."""


class Store(Protocol):
    """What an import needs of a store; `rlhi_plugin.stores.SQLStore` has it."""

    def add(self, conversation: Conversation) -> int:
        """Append what the conversation has that is new, and say how many messages that is."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportOptions:
    """How to import.

    Attributes:
        log_format: Name of the format of every row; None tells each row's from its fields.
        refused: File to which every refused row is written, as JSON lines of path, number, unit and reason.
        keep_feedback: Stores an event; None counts events as not stored.
        redact: What is taken out before anything is stored: ``default``, ``off``, or some kinds, as in the middleware.
        show_progress: Whether stderr says how far it is.
    """

    log_format: str | None = None
    refused: Path | None = None
    keep_feedback: Callable[[FeedbackEvent], object] | None = None
    redact: RedactOption = "default"
    show_progress: bool = True


@dataclass(slots=True)
class ImportCounts:
    """What came of an import.

    Attributes:
        conversations: Stored or already there, by format.
        messages: Of them, messages that the store did not hold yet.
        known: Messages that it held already.
        feedback: Events that were stored.
        feedback_left: Events that were read, but that nothing stores.
        refused: Rows that could not be used, and conversations that belong to somebody else.
        named: The first `NAMED` refusals.
        withdrawn: Conversations and events of users who allow no log; none of it is stored.
        forgotten: Messages and events from before their user was forgotten; not stored.
        redacted: How many things were taken out, by kind; None where nothing was looked for.
    """

    conversations: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    known: int = 0
    feedback: int = 0
    feedback_left: int = 0
    refused: int = 0
    named: list[str] = field(default_factory=list)
    withdrawn: int = 0
    forgotten: int = 0
    redacted: Mapping[str, int] | None = None

    def lines(self) -> Iterator[str]:
        """What happened, for people."""
        read = sum(self.conversations.values())
        yield f"{read} conversation(s) read, {self.messages} new message(s) stored, {self.refused} line(s) passed over"
        if self.known:
            yield f"{self.known} message(s) were there already"
        for name, count in self.conversations.most_common():
            yield f"  {name}: {count} conversation(s)"
        if self.feedback or self.feedback_left:
            left = f", {self.feedback_left} read but not stored" if self.feedback_left else ""
            yield f"{self.feedback} feedback event(s) stored{left}"
        if self.withdrawn:
            yield f"{self.withdrawn} conversation(s) or event(s) left out: their users allow no log"
        if self.forgotten:
            yield f"{self.forgotten} message(s) or event(s) left out: their users were forgotten"
        if self.redacted is None:
            yield "nothing was redacted: --redact off"
        elif self.redacted:
            kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.redacted.items()))
            yield f"{sum(self.redacted.values())} thing(s) redacted: {kinds}"


def import_log(path: str | Path, store: Store, options: ImportOptions | None = None) -> ImportCounts:
    """Add what a log holds to a store. What the store already holds is not added twice.

    Raises:
        ConfigError: there is no such file, format or option of redaction, the file of refusals cannot be written, or
            not one row of the log could be used.
        StoreError: the store cannot be written. What was stored until then stays; import again to go on.
    """
    how = options or ImportOptions()
    counts, screening = ImportCounts(), Screening(store, how.redact)
    with ExitStack() as stack:
        # First of all, so that a wrong name is said before a bar is drawn.
        read: list[Advance] = []
        records = read_log(path, how.log_format, lambda count: read[0](count) if read else None)
        refusals = stack.enter_context(_open(how.refused)) if how.refused else None
        read.append(stack.enter_context(_progress(path, shown=how.show_progress)))
        for record in records:
            problem = _store(record, store, how, counts, screening)
            if problem is not None:
                _refuse(problem, path, counts, refusals)
    counts.withdrawn, counts.forgotten = screening.refused, screening.forgotten
    counts.redacted = screening.redacted
    used = counts.conversations or counts.feedback or counts.feedback_left or counts.withdrawn or counts.forgotten
    if counts.refused and not used:
        known = ", ".join(known.name for known in FORMATS)
        first = str(counts.named[0]).rstrip(".")
        raise ConfigError(
            f"no line of {path} could be used, the first because: {first}. Give an RLHI export or WildChat "
            f"rows, or another log in one of these formats, if need be with --format: {known}"
        )
    return counts


def _store(
    record: Imported, store: Store, how: ImportOptions, counts: ImportCounts, screening: Screening
) -> Exception | None:
    """Take one record; the error where that cannot be done."""
    if isinstance(record, RecordError):
        return record
    try:
        if isinstance(record, FeedbackEvent):
            event = screening.feedback(record)
            if event is not None and how.keep_feedback is None:
                counts.feedback_left += 1
            elif event is not None and how.keep_feedback is not None:
                how.keep_feedback(event)
                counts.feedback += 1
            return None
        kept = screening.conversation(record)
        if kept is None:
            return None
        new = store.add(kept)
    except OwnerMismatchError as error:
        return error
    counts.conversations[record.source] += 1
    counts.messages += new
    counts.known += len(kept.messages) - new
    return None


def _refuse(problem: Exception, path: str | Path, counts: ImportCounts, refusals: TextIO | None) -> None:
    counts.refused += 1
    said = str(problem) if isinstance(problem, RecordError) else f"{path}: {problem}"
    if len(counts.named) < NAMED:
        counts.named.append(said)
    if refusals is not None:
        row: dict[str, object] = {"path": str(path), "reason": said}
        if isinstance(problem, RecordError):
            row = {"path": str(problem.path), problem.unit: problem.line, "reason": said}
        refusals.write(json.dumps(row, ensure_ascii=True) + "\n")


def _open(file: Path) -> TextIO:
    try:
        return file.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}. Name another file for what is refused.") from error


@contextmanager
def _progress(path: str | Path, *, shown: bool) -> Iterator[Advance]:
    """Progress in bytes: nobody has counted the rows."""
    if not shown:
        yield lambda _: None
        return
    with progress(f"Importing {Path(path).name} (bytes)", size_of(path)) as advance:
        yield advance
