"""Scores a folder and writes its report in three forms: JSON for machines, Markdown for a terminal, HTML for people."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rlhi_eval_harness.human.summary import human_results
from rlhi_eval_harness.judge_identity import identity_of
from rlhi_eval_harness.judging import Judgment, Question, judges_of, read_judgments
from rlhi_eval_harness.numbers import Numbers
from rlhi_eval_harness.records import EvalReport
from rlhi_eval_harness.report.analysis import Table, differences, estimates
from rlhi_eval_harness.report.facts import (
    answering_facts,
    follow_up_shares,
    judging_facts,
    training_curve,
    training_funnel,
)
from rlhi_eval_harness.report.judge_trust import judge_trust
from rlhi_eval_harness.report.judges import judge_findings
from rlhi_eval_harness.report.markdown import render_markdown
from rlhi_eval_harness.report.people import people_findings
from rlhi_eval_harness.report.tests_of_differences import sentences, tests_of
from rlhi_eval_harness.run_folder import RunFolder, write_text
from rlhi_eval_harness.suites.kind import Stored, SuiteKind
from rlhi_eval_harness.suites.suite import Suite, parse_suite


def run_config(suite: Suite, identity: dict[str, str], frame_digest: str) -> dict[str, Any]:
    """What run.json holds: equal for two runs exactly if they evaluate the same thing."""
    return {"suite": suite.model_dump(mode="json"), "models": identity, "persona_frame_digest": frame_digest}


def read_suite(folder: RunFolder) -> Suite:
    """The options that a folder was made with.

    Raises:
        ConfigError: the folder holds no evaluation.
        ArtefactError: it holds a damaged one.
    """
    return parse_suite(folder.read_config()["suite"], str(folder.config))


def build_report(folder: RunFolder, kind: SuiteKind, stored: Stored, *, judge_names: Sequence[str] = ()) -> EvalReport:
    """Score what is stored. Needs no model; a changed check or statistic only needs this again.

    Args:
        folder: The evaluation.
        kind: Its suite.
        stored: Its plan and outputs.
        judge_names: Whose judgments count, the first one's in the numbers; all that are on record, unless given.

    Raises:
        ArtefactError: the folder is damaged.
    """
    config = folder.read_config()
    questions = kind.questions(stored)
    names = tuple(judge_names) or judges_of(folder.judgments)
    judged = {name: _by_question(folder, name, questions) for name in names}
    judgments = judged[names[0]] if names else {}
    scores = tuple(kind.score(stored, judgments))
    kind.write_more(stored, judgments)
    table = Table(stored, scores, kind)
    suite = kind.suite
    estimated = estimates(table, seed=suite.seed, resamples=suite.resamples)
    compared = differences(table, seed=suite.seed, resamples=suite.resamples)
    tests = tests_of(table, seed=suite.seed, resamples=suite.resamples)
    people = human_results(stored, scores, suite, judge=names[0] if names else None)
    judges = tuple(
        identity_of(name, (each.answered_by for each in found.values() if each.reply or each.answered_by))
        for name, found in judged.items()
    )
    adapter = Path(config["models"].get("adapter", ""))
    return EvalReport(
        suite=suite.name,
        created_at=datetime.now(UTC),
        metrics=table.metrics,
        estimates=estimated,
        differences=compared,
        samples=tuple(stored.outputs[each.sample_id] for each in stored.plan if each.sample_id in stored.outputs),
        scores=scores,
        findings=(
            *kind.findings(Numbers(estimated, compared), table.metrics),
            *sentences(tests, table.metrics, kind.clusters),
            *judge_findings(judges),
            *people_findings(people),
        ),
        judges=judges,
        human=people,
        config={
            **config,
            **kind.facts(stored, judgments),
            "clusters": kind.clusters,
            "tests": tests,
            "judging": judging_facts(questions, judged),
            "judge_trust": judge_trust(questions, judged, stored.plan, seed=suite.seed, resamples=suite.resamples),
            "answering": answering_facts(stored.plan, stored.outputs),
            "training_curve": training_curve(adapter),
            "training_funnel": training_funnel(adapter),
            "follow_up_shares": follow_up_shares(adapter),
            "versions": _versions(),
            "machine": {"system": platform.system(), "processor": platform.machine()},
        },
    )


def _by_question(folder: RunFolder, name: str, questions: Sequence[Question]) -> dict[str, Judgment]:
    return {each.question_id: each for each in read_judgments(folder.judgments, name, questions)}


def write_report(report: EvalReport, folder: RunFolder) -> Path:
    """Write all three forms; the JSON is complete, the others are made from it alone.

    A report that says what the one before it said keeps its time, and so its bytes.

    Returns:
        The HTML file.
    """
    from rlhi_eval_harness.report.page import render_page

    report = _with_time_of_the_same(report, folder)
    write_text(folder.report_json, report.model_dump_json(indent=1) + "\n")
    write_text(folder.report_markdown, render_markdown(report))
    write_text(folder.report_html, render_page(report))
    return folder.report_html


def _with_time_of_the_same(report: EvalReport, folder: RunFolder) -> EvalReport:
    try:
        earlier = EvalReport.model_validate_json(folder.report_json.read_text("utf-8"))
    except (OSError, ValueError):
        return report
    same = earlier.model_dump_json(exclude={"created_at"}) == report.model_dump_json(exclude={"created_at"})
    return report.model_copy(update={"created_at": earlier.created_at}) if same else report


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("rlhi", "torch", "transformers", "peft", "langchain", "scipy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
