"""A whole evaluation in one function: load the models, bring the folder to completion, score it, write the report."""

from __future__ import annotations

from pathlib import Path

from rlhi_eval_harness.records import EvalReport
from rlhi_eval_harness.report import build_report, write_report
from rlhi_eval_harness.report.build import run_config
from rlhi_eval_harness.run_folder import RunFolder
from rlhi_eval_harness.subjects import AdapterFolder, Assistants, LocalAssistants
from rlhi_eval_harness.suites.simulated_users import run_suite
from rlhi_eval_harness.suites.suite import Suite
from rlhi_plugin import terminal
from rlhi_plugin.labelling import Labeller, load_labeller
from rlhi_plugin.persona import FRAME_DIGEST, ExtractivePersonaBuilder, PersonaBuilder


def evaluate(suite: Suite, adapter: AdapterFolder, out: Path) -> EvalReport:
    """Evaluate an adapter against its base, with models in this process.

    Args:
        suite: What to measure.
        adapter: The adapter, checked by `rlhi_eval_harness.subjects.read_adapter_folder`.
        out: Folder of the evaluation. A stopped run of the same suite and weights goes on where it stopped.

    Raises:
        ConfigError: `out` holds something else, or a name in the suite is unknown.
        ArtefactError: the adapter does not fit, or the folder is damaged.
        ModelCallError: generation failed; the folder keeps what is done.
    """
    assistants = LocalAssistants.load(adapter)
    try:
        labeller = load_labeller(suite.labeller)
        return evaluate_with(assistants, suite, out, labeller=labeller, builder=ExtractivePersonaBuilder())
    finally:
        assistants.close()


def evaluate_with(
    assistants: Assistants, suite: Suite, out: Path, *, labeller: Labeller, builder: PersonaBuilder
) -> EvalReport:
    """As `evaluate`, with whatever models, labeller and persona builder the caller has."""
    folder = RunFolder(out)
    identity = {**assistants.identity, "labeller": labeller.name, "persona_builder": builder.name}
    if folder.begin(run_config(suite, identity, FRAME_DIGEST)):
        terminal.stderr.print(f"{out} holds this evaluation already: going on from what is there", highlight=False)
    run_suite(suite, assistants, folder, labeller=labeller, builder=builder)
    return score_again(out)


def score_again(path: Path) -> EvalReport:
    """Score a folder's stored answers and rewrite its report.

    Raises:
        ArtefactError: the folder holds no evaluation, or an unfinished or damaged one.
    """
    folder = RunFolder(path)
    report = build_report(folder)
    write_report(report, folder)
    return report
