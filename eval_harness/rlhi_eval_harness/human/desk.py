"""Between the page and the disk: who is looking at what, what they say, and that it is on disk before they go on."""

from __future__ import annotations

import hashlib
import threading
import time
import unicodedata
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from rlhi_eval_harness.human.planning import Pair
from rlhi_eval_harness.human.records import SKIP_REASONS, HumanVerdict, Side, Study, Undo
from rlhi_eval_harness.human.tasks import Others, Task, judged_by, next_task
from rlhi_eval_harness.human.verdict_file import VerdictFile, standing

LONGEST_NAME = 60
LONGEST_NOTE = 2000
STALE = "That pair has been judged already, perhaps in another window. This is the next one."
NOTHING_TO_UNDO = "There is nothing to take back."


@dataclass(frozen=True)
class Progress:
    """How far it is.

    Attributes:
        mine: Pairs that this rater has judged, checks not counted.
        given: Verdicts that the study needs and has.
        needed: Verdicts that it needs: pairs times raters of each.
    """

    mine: int
    given: int
    needed: int


@dataclass(frozen=True)
class View:
    """What a rater sees; nothing of it says whose answer is whose.

    Attributes:
        rater: Their name.
        token: Stands for exactly this pair at this point; empty where nothing is left.
        pair: Request and what was before it; None where nothing is left.
        left: Text on the left.
        right: Text on the right.
        progress: How far it is.
        more: Whether they may go on although every pair has as many raters as planned.
        message: What they have to know of what they just did.
    """

    rater: str
    token: str
    pair: Pair | None
    left: str
    right: str
    progress: Progress
    more: bool = False
    message: str = ""


class Desk:
    """A study that is being judged. Safe to use from many threads.

    Args:
        study: What is asked.
        pairs: By item, those of the study at least.
        file: Where verdicts go.
        clock: Seconds, for how long a verdict took.
    """

    def __init__(
        self,
        study: Study,
        pairs: Mapping[str, Pair],
        file: VerdictFile,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.study = study
        self._pairs, self._file, self._clock = pairs, file, clock
        self._looking: dict[str, tuple[str, Task, float]] = {}
        self._beyond: set[str] = set()
        self._lock = threading.Lock()

    def rater(self, said: str) -> str:
        """The name under which somebody is known: the first spelling of it; empty where it is none."""
        name = " ".join(unicodedata.normalize("NFC", said).split())[:LONGEST_NAME]
        known = {line.rater.casefold(): line.rater for line in self._file.lines}
        return known.get(name.casefold(), name)

    def view(self, rater: str, message: str = "") -> View:
        """What the rater has before them."""
        with self._lock:
            return self._view(rater, message)

    def judge(self, rater: str, token: str, answers: Mapping[str, Side], note: str = "") -> View:
        """Put a verdict on disk.

        Raises:
            OSError: it could not be written; nothing has changed.
        """
        with self._lock:
            task = self._task(rater)
            complete = answers.keys() == self.study.dimensions.keys()
            if task is None or token != self._token(rater, task) or not complete:
                return self._view(rater, STALE)
            self._write(rater, task, {"answers": dict(answers), "note": note.strip()[:LONGEST_NOTE]})
            return self._view(rater)

    def skip(self, rater: str, token: str, reason: str, note: str = "") -> View:
        """Leave a pair without a verdict; raises as `judge` does."""
        with self._lock:
            task = self._task(rater)
            if task is None or token != self._token(rater, task) or reason not in SKIP_REASONS:
                return self._view(rater, STALE)
            self._write(rater, task, {"skipped": reason, "note": note.strip()[:LONGEST_NOTE]})
            return self._view(rater)

    def undo(self, rater: str) -> View:
        """Take the rater's last verdict back and show its pair again; raises as `judge` does."""
        with self._lock:
            mine = [each for each in standing(self._file.lines) if each.rater == rater]
            if not mine:
                return self._view(rater, NOTHING_TO_UNDO)
            self._file.append(Undo(undoes=mine[-1].verdict_id, rater=rater, given_at=datetime.now(UTC)))
            return self._view(rater, "Taken back. Judge this pair again.")

    def go_on(self, rater: str) -> View:
        """Judge more pairs than were planned."""
        with self._lock:
            self._beyond.add(rater)
            return self._view(rater)

    def _task(self, rater: str) -> Task | None:
        """The current pair: the one just taken back, else the next."""
        lines = self._file.lines
        last = next((line for line in reversed(lines) if line.rater == rater), None)
        if isinstance(last, Undo):
            undone = next(line for line in lines if isinstance(line, HumanVerdict) and line.verdict_id == last.undoes)
            return Task(undone.item_id, undone.left, undone.check)
        if rater in self._looking and self._looking[rater][0] == self._token(rater, self._looking[rater][1]):
            return self._looking[rater][1]
        others = [task.item_id for who, (_, task, _) in self._looking.items() if who != rater and task.check is None]
        return next_task(self.study, rater, standing(lines), Others(others), beyond=rater in self._beyond)

    def _token(self, rater: str, task: Task) -> str:
        """Stands for one pair at one point of the rater's work; tells nothing of either."""
        count = sum(line.rater == rater for line in self._file.lines)
        about = f"{self.study.seed}/{rater}/{count}/{task.item_id}/{task.check}"
        return hashlib.sha256(about.encode()).hexdigest()[:16]

    def _view(self, rater: str, message: str = "") -> View:
        verdicts = standing(self._file.lines)
        counts = judged_by(self.study, verdicts)
        progress = Progress(
            mine=sum(each.rater == rater and each.check is None and each.skipped is None for each in verdicts),
            given=sum(min(count, self.study.overlap) for count in counts.values()),
            needed=self.study.overlap * len(self.study.items),
        )
        task = self._task(rater)
        if task is None:
            self._looking.pop(rater, None)
            more = next_task(self.study, rater, verdicts, beyond=True) is not None
            return View(rater, "", None, "", "", progress, more, message)
        token = self._token(rater, task)
        if self._looking.get(rater, ("",))[0] != token:
            self._looking[rater] = (token, task, self._clock())
        pair = self._pairs[task.item_id]
        return View(rater, token, pair, *self._texts(task, pair), progress, message=message)

    def _texts(self, task: Task, pair: Pair) -> tuple[str, str]:
        other = self.study.versus if task.left == self.study.subject else self.study.subject
        return pair.answers[task.left], pair.answers[task.left if task.check == "identical" else other]

    def _write(self, rater: str, task: Task, said: Mapping[str, object]) -> None:
        token, _, since = self._looking.get(rater, ("", task, 0.0))
        seconds = round(self._clock() - since, 1) if token == self._token(rater, task) else None
        pair = self._pairs[task.item_id]
        verdict = HumanVerdict.model_validate(
            {
                "verdict_id": uuid.uuid4().hex,
                "rater": rater,
                "item_id": task.item_id,
                "shown": pair.shown(self.study.subject, self.study.versus),
                "left": task.left,
                "check": task.check,
                "seconds": seconds,
                "given_at": datetime.now(UTC),
                **said,
            }
        )
        self._file.append(verdict)
        self._looking.pop(rater, None)
