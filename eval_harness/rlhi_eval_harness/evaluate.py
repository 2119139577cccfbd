"""A whole evaluation in three steps: plan and answer, ask the judges, score and report. The last two need no GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlhi_eval_harness.answering import answer, current
from rlhi_eval_harness.judge_identity import refuse_aliases
from rlhi_eval_harness.judging import judge
from rlhi_eval_harness.models import Assistants
from rlhi_eval_harness.records import EvalReport, EvalSample
from rlhi_eval_harness.report import build_report, write_report
from rlhi_eval_harness.report.build import read_suite, run_config
from rlhi_eval_harness.run_folder import RunFolder, held, read_records
from rlhi_eval_harness.scoring import by_sample
from rlhi_eval_harness.suites.kind import Stored, SuiteKind
from rlhi_eval_harness.suites.kinds import open_kind
from rlhi_plugin import terminal
from rlhi_plugin.chat import ChatClient
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.persona import FRAME_DIGEST


def evaluate(
    kind: SuiteKind,
    assistants: Assistants,
    out: Path,
    *,
    judges: Sequence[ChatClient] = (),
    require_pinned: bool = False,
) -> EvalReport:
    """Run a suite: answer, judge, score, report.

    Args:
        kind: The suite, from `rlhi_eval_harness.suites.kinds.open_kind`.
        assistants: The models behind its subjects.
        out: Folder of the evaluation. A stopped run of the same suite and weights goes on where it stopped.
        judges: Whom to ask; the report's numbers are the first one's.
        require_pinned: Write no report whose judges are aliases (`rlhi_eval_harness.judge_identity`).

    Raises:
        ConfigError: `out` holds something else, data is missing, a name in the suite is unknown, or a judge is an
            alias and must not be.
        ArtefactError: the folder is damaged.
        ModelCallError: a model failed; the folder keeps what is done.
    """
    answer_suite(kind, assistants, out)
    return score_again(out, judges=judges, require_pinned=require_pinned)


def answer_suite(kind: SuiteKind, assistants: Assistants, out: Path, *, plan_only: bool = False) -> None:
    """Bring a folder to where it can be scored; raises as `evaluate` does.

    Args:
        kind: The suite.
        assistants: The models.
        out: Folder of the evaluation.
        plan_only: Stop once plan.jsonl is there, for outputs that are made elsewhere.
    """
    folder = RunFolder(out)
    identity = {**assistants.identity, **kind.identity}
    if folder.begin(run_config(kind.suite, identity, FRAME_DIGEST)):
        terminal.stderr.print(f"{out} holds this evaluation already: going on from what is there", highlight=False)
    with held(out):
        if not folder.plan.exists():
            folder.write_plan(kind.plan(assistants, folder))
        if not plan_only:
            answer(folder.read_plan(), assistants, folder.outputs)


def score_again(path: Path, *, judges: Sequence[ChatClient] = (), require_pinned: bool = False) -> EvalReport:
    """Score a folder's stored answers and rewrite its report; asks `judges` what they have not yet been asked.

    Raises:
        ArtefactError: the folder is damaged.
        ConfigError: the folder holds no evaluation, or an unfinished one; judges were given to a suite that asks none;
            a judge is an alias and must not be; or another process is at work in the folder.
        ModelCallError: a judge could not be asked at all; the folder keeps what is done.
    """
    with held(path):
        return _score(RunFolder(path), judges, require_pinned=require_pinned)


def _score(folder: RunFolder, judges: Sequence[ChatClient], *, require_pinned: bool) -> EvalReport:
    kind = open_kind(read_suite(folder))
    stored = read_stored(folder)
    questions = kind.questions(stored) if judges else ()
    if judges and not kind.judged:
        raise ConfigError(f"the suite {kind.suite.name} is scored by code and asks no judge. Leave --judge out.")
    for client in judges:
        judge(questions, client, folder.judgments)
    report = build_report(folder, kind, stored, judge_names=[client.model for client in judges])
    if require_pinned:
        refuse_aliases((each.judge, each.pin) for each in report.judges)
    write_report(report, folder)
    return report


def read_stored(folder: RunFolder) -> Stored:
    """Plan and outputs of a folder.

    Raises:
        ArtefactError: one of the two is missing or damaged, or they do not belong together.
    """
    plan = folder.read_plan()
    outputs = current(read_records(folder.outputs, EvalSample))
    return Stored(folder, plan, by_sample(plan, outputs))
