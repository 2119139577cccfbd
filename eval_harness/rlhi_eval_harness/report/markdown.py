"""The report as Markdown: findings and tables, for a terminal, a pull request or a model card."""

from __future__ import annotations

from rlhi_eval_harness.records import EvalReport
from rlhi_eval_harness.report.tables import Grid, comparisons, preferences, ranking, text_rows

INTERVALS = (
    "In brackets: 95 % bootstrap intervals, users resampled with all their answers. "
    "`!` marks a number that is not to be used because more than 5 % of its answers are unscored."
)


def render_markdown(report: EvalReport) -> str:
    """The whole report but the samples."""
    models = report.config["models"]
    lines = [
        f"# Evaluation `{report.suite}`",
        "",
        f"Base `{models['base']}`, adapter `{models.get('adapter', 'none')}`, {report.created_at:%Y-%m-%d %H:%M} UTC.",
        "",
        "## What the numbers say",
        "",
        *(f"- {finding}" for finding in report.findings),
        "",
        "## Subjects, best first",
        "",
        *_table(ranking(report)),
        "",
        INTERVALS,
        "",
        "## Paired differences",
        "",
        *_table(comparisons(report)),
        "",
        "## Preference by preference",
        "",
        *_table(preferences(report)),
        "",
    ]
    return "\n".join(lines)


def _table(grid: Grid) -> list[str]:
    rule = "|" + "|".join([" --- ", *(" ---: " for _ in grid.columns[1:])]) + "|"
    body = ["| " + " | ".join(row) + " |" for row in text_rows(grid)]
    return ["| " + " | ".join(grid.columns) + " |", rule, *body]
