"""From an answer to a verdict: lm_eval's metrics, and beside them whether there was anything to judge.

lm_eval counts whatever it cannot read as wrong. That number is kept, since published ones are made so; but an answer
that was cut before it came to its end, one in which no answer can be found, and one whose check did not come back are
something else than a wrong answer. `Verdict.correct` has a reason in their place.

math-verify's and sympy's time limits work by signals, so checks run in the main thread.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhi_eval_harness.reasoning import lm_eval_tasks
from rlhi_eval_harness.run_folder import drop_torn_line, read_records
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import Record
from rlhi_plugin.terminal import progress

CUT = "cut_at_token_limit"
UNREAD = "no_answer_read"
EMPTY = "empty_answer"
TIMED_OUT = "checker_timed_out"
CHECK_SECONDS = 4.9
"""Just under the 5 s after which math-verify and lm_eval give a comparison up and call it unequal."""
NO_MATCH = "[invalid]"
"""What lm_eval's regex filters read where nothing fits."""
_DECLARED = re.compile(r"\\f?boxed|answer\s+is|answer\s*:|####", re.IGNORECASE)


class Verdict(Record):
    """What one answer to one item is worth."""

    key: str
    """Digest of item, answer, task and version: what has a verdict is not checked again."""
    metrics: dict[str, float]
    """lm_eval's own, ``metric,filter``: what cannot be read counts as wrong."""
    correct: float | None = None
    unscored: str | None = None


def declares(text: str) -> bool:
    """Whether a text says what its answer is, so that nothing later can make it another one."""
    return _DECLARED.search(text) is not None


def stopped(text: str, stops: Sequence[str], *, cut: bool) -> tuple[str, bool]:
    """An answer up to where lm_eval would have ended it, and whether the token limit ended it before."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], False) if places else (text, cut)


class Checker:
    """Checks the answers to one task; verdicts are kept in a file.

    Args:
        task: From `lm_eval_tasks.open_tasks`.
        primary: ``metric,filter`` that says what is correct.
        kept: JSONL that grows by one line a verdict; None keeps none.

    Raises:
        ConfigError: the task has no such metric.
    """

    def __init__(self, task: Any, primary: str, kept: Path | None = None) -> None:
        names = lm_eval_tasks.metric_names(task)
        if primary not in names:
            raise ConfigError(
                f"{task.task_name} has no metric {primary}. Set one of its own: --set metric={' or '.join(names)}"
            )
        self._task = task
        self._primary = primary
        self._kept = kept
        if kept is not None:
            drop_torn_line(kept)
        found = read_records(kept, Verdict) if kept is not None and kept.exists() else []
        self._known = {verdict.key: verdict for verdict in found}

    def check(self, items: Sequence[Mapping[str, Any]], texts: Sequence[str], cuts: Sequence[bool]) -> list[Verdict]:
        """Verdicts on generated answers.

        Args:
            items: One an answer, as the task prepared them.
            texts: Whole answers.
            cuts: Whether the token limit ended them.
        """
        stops = lm_eval_tasks.stop_texts(self._task)
        ended = [stopped(text, stops, cut=cut) for text, cut in zip(texts, cuts, strict=True)]
        read = lm_eval_tasks.filtered(self._task, items, [text for text, _ in ended])
        return self._judge(items, ended, read)

    def weigh(self, items: Sequence[Mapping[str, Any]], sums: Sequence[Sequence[float]]) -> list[Verdict]:
        """Verdicts on log-likelihoods of the options: there is always one that is likeliest."""
        read = lm_eval_tasks.filtered(self._task, items, sums)
        return self._judge(items, [(json.dumps(list(each)), False) for each in sums], read, weighed=True)

    def _judge(
        self,
        items: Sequence[Mapping[str, Any]],
        ended: Sequence[tuple[str, bool]],
        read: Sequence[Mapping[str, Any]],
        *,
        weighed: bool = False,
    ) -> list[Verdict]:
        keys = [self._key(item, text, cut) for item, (text, cut) in zip(items, ended, strict=True)]
        todo = [place for place, key in enumerate(keys) if key not in self._known]
        if todo and threading.current_thread() is not threading.main_thread():
            raise ConfigError("answers are checked with time limits that work in the main thread only. Score there.")
        with progress(f"checking {self._task.task_name}", len(todo)) as advance:
            for place in todo:
                verdict = self._one(keys[place], items[place], ended[place], read[place], weighed=weighed)
                self._keep(verdict)
                advance(1)
        return [self._known[key] for key in keys]

    def _one(
        self, key: str, item: Mapping[str, Any], ended: tuple[str, bool], read: Mapping[str, Any], *, weighed: bool
    ) -> Verdict:
        started = time.perf_counter()
        metrics = {
            f"{metric},{name}": value
            for name, each in read.items()
            for metric, value in lm_eval_tasks.judged(self._task, item, each).items()
        }
        slow = time.perf_counter() - started >= CHECK_SECONDS
        right = metrics[self._primary]
        reason = None if weighed else self._why_not(ended, read[self._primary.partition(",")[2]])
        if reason is None and slow and not right:
            reason = TIMED_OUT
        return Verdict(key=key, metrics=metrics, correct=None if reason else right, unscored=reason)

    def _why_not(self, ended: tuple[str, bool], read: Any) -> str | None:
        """Why there is nothing to judge in an answer, or None."""
        text, cut = ended
        if not text.strip():
            return CUT if cut else EMPTY
        if cut and not declares(text):
            return CUT
        found = read != NO_MATCH
        if found and callable(self._task.config.process_results):
            # These tasks read the answer out of the whole text themselves.
            from rlhi_eval_harness.reasoning.answers import readable

            found = readable(text)
        return None if found else CUT if cut else UNREAD

    def _key(self, item: Mapping[str, Any], text: str, cut: bool) -> str:
        task = self._task
        what = [
            task.task_name,
            str(task.VERSION),
            lm_eval_tasks.lm_eval_version(),
            self._primary,
            dict(item),
            text,
            cut,
        ]
        return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()

    def _keep(self, verdict: Verdict) -> None:
        self._known[verdict.key] = verdict
        # A check that did not come back may do so on a quieter machine.
        if self._kept is not None and verdict.unscored != TIMED_OUT:
            with self._kept.open("a", encoding="utf-8") as file:
                file.write(verdict.to_json() + "\n")
