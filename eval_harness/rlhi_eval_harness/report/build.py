"""Scores a folder and writes its report in three forms: JSON for machines, Markdown for a terminal, HTML for people."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rlhi_eval_harness.answering import PlannedSample
from rlhi_eval_harness.records import EvalReport, EvalSample
from rlhi_eval_harness.report.analysis import Table, differences, estimates
from rlhi_eval_harness.report.facts import follow_up_shares, history_facts, training_curve, training_funnel
from rlhi_eval_harness.report.findings import findings
from rlhi_eval_harness.report.markdown import render_markdown
from rlhi_eval_harness.run_folder import RunFolder, read_records, write_text
from rlhi_eval_harness.scoring import score
from rlhi_eval_harness.simulation import SimulatedUser, Utterance
from rlhi_eval_harness.suites.suite import Suite
from rlhi_plugin.records import FollowUp, Persona


def run_config(suite: Suite, identity: dict[str, str], frame_digest: str) -> dict[str, Any]:
    """What run.json holds: equal for two runs exactly if they evaluate the same thing."""
    return {"suite": suite.model_dump(mode="json"), "models": identity, "persona_frame_digest": frame_digest}


def build_report(folder: RunFolder) -> EvalReport:
    """Score what is stored. Needs no model; a changed check or statistic only needs this again.

    Raises:
        ArtefactError: the folder holds no evaluation, or a damaged one.
    """
    config = folder.read_config()
    suite = Suite.model_validate(config["suite"])
    plan = read_records(folder.plan, PlannedSample)
    outputs = read_records(folder.outputs, EvalSample)
    users = read_records(folder.users, SimulatedUser)
    scores = score(plan, outputs, users)
    order = {sample.sample_id: place for place, sample in enumerate(plan)}
    table = Table(plan, scores, users)
    estimated = estimates(table, seed=suite.seed, resamples=suite.resamples)
    compared = differences(table, seed=suite.seed, resamples=suite.resamples)
    utterances = read_records(folder.utterances, Utterance)
    names = sorted({utterance.user for utterance in utterances})
    personas = dict(zip(names, read_records(folder.personas, Persona), strict=True))
    adapter = Path(config["models"].get("adapter", ""))
    return EvalReport(
        suite=suite.name,
        created_at=datetime.now(UTC),
        estimates=estimated,
        differences=compared,
        samples=tuple(sorted(outputs, key=lambda output: order[output.sample_id])),
        scores=scores,
        findings=findings(estimated, compared),
        config={
            **config,
            "users": {user.name: user.model_dump(mode="json") for user in users},
            "history": history_facts(users, utterances, read_records(folder.follow_ups, FollowUp), personas),
            "training_curve": training_curve(adapter),
            "training_funnel": training_funnel(adapter),
            "follow_up_shares": follow_up_shares(adapter),
            "versions": _versions(),
            "machine": {"system": platform.system(), "processor": platform.machine()},
        },
    )


def write_report(report: EvalReport, folder: RunFolder) -> Path:
    """Write all three forms; the JSON is complete, the others are made from it alone.

    Returns:
        The HTML file.
    """
    from rlhi_eval_harness.report.page import render_page

    write_text(folder.report_json, report.model_dump_json(indent=1) + "\n")
    write_text(folder.report_markdown, render_markdown(report))
    write_text(folder.report_html, render_page(report))
    return folder.report_html


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("rlhi", "torch", "transformers", "peft", "langchain", "scipy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
