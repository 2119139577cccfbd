"""The report as Markdown: findings and tables, for a terminal, a pull request or a model card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlhi_eval_harness.records import EvalReport
from rlhi_eval_harness.report import binary_outcomes
from rlhi_eval_harness.report.judges import identity_grid
from rlhi_eval_harness.report.people import EXPLAINED, about, judge_grid, people_grid, rater_grid, trust_grid
from rlhi_eval_harness.report.roles import roles_of
from rlhi_eval_harness.report.tables import Grid, by_group, comparisons, preferences, ranking, text_rows
from rlhi_eval_harness.report.tests_of_differences import grid, note

INTERVALS = (
    "In brackets: 95 % bootstrap intervals, {clusters} resampled with all their answers. "
    "`!` marks a number that is not to be used because more than 5 % of its answers are unscored."
)


def render_markdown(report: EvalReport) -> str:
    """The whole report but the samples."""
    models = report.config["models"]
    base = models.get("base", "none in this process")
    lines = [
        f"# Evaluation `{report.suite}`",
        "",
        f"Base `{base}`, adapter `{models.get('adapter', 'none')}`, {report.created_at:%Y-%m-%d %H:%M} UTC.",
        "",
        "## What the numbers say",
        "",
        *(f"- {finding}" for finding in report.findings),
        "",
        "## Subjects, best first",
        "",
        *_table(_with_roles(ranking(report), report.config["suite"]["subjects"])),
        "",
        INTERVALS.format(clusters=report.config.get("clusters", "users")),
        "",
        "## Paired differences",
        "",
        *_table(comparisons(report)),
        "",
        *_tests(report),
        *_section("Preference by preference", preferences(report)),
        *_section("By metric and group", by_group(report)),
        "## What the metrics mean",
        "",
        *(f"- **{metric.label}** (`{metric.name}`): {metric.meaning}" for metric in report.metrics),
        "",
        *(line for each in report.config.get("tables") or [] for line in _extra(each)),
        *_judges(report.config.get("judging") or []),
        *_section("Which models judged", identity_grid(report)),
        *_section("How far the judges can be trusted", trust_grid(report.config.get("judge_trust") or [])),
        *_people(report),
    ]
    return "\n".join(lines)


def _with_roles(grid: Grid, subjects: Sequence[str]) -> Grid:
    roles = roles_of(subjects)
    rows = ((f"{name} ({roles[name]})" if name in roles else name, cells) for name, cells in grid.rows)
    return Grid(grid.columns, tuple(rows))


def _section(title: str, grid: Grid) -> list[str]:
    return [f"## {title}", "", *_table(grid), ""] if grid.rows else []


def _extra(table: dict[str, Any]) -> list[str]:
    """A table that a suite adds of its own: texts in rows, and a note."""
    rule = "|" + "|".join(" --- " for _ in table["columns"]) + "|"
    rows = ["| " + " | ".join(row) + " |" for row in (table["columns"], *table["rows"])]
    return [f"## {table['title']}", "", rows[0], rule, *rows[1:], "", table["note"], ""]


def _judges(facts: list[dict[str, Any]]) -> list[str]:
    """How each judge did: the numbers above are the first one's."""
    if not facts:
        return []
    lines = ["## Judges", ""]
    for each in facts:
        reasons = ", ".join(f"{reason} {count}" for reason, count in each["unscored"].items()) or "none"
        lines.append(
            f"- `{each['judge']}`: {each['answered']} of {each['questions']} questions answered; unscored: {reasons}; "
            f"first answer wins {_share(each['first_position_wins'])}, ties {_share(each['ties'])}, both orders agree "
            f"{_share(each['order_consistency'])}; {each['prompt_tokens']} tokens in, {each['completion_tokens']} out, "
            f"cost {_dollars(each['cost_usd'])}; prompts {', '.join(each['prompts'])}."
        )
    return [*lines, ""]


def _tests(report: EvalReport) -> list[str]:
    found = grid(report)
    tested = ["## Differences, tested", "", *_table(found), "", note(report), ""] if found.rows else []
    pairs = binary_outcomes.grid(report)
    by_item = ["## Yes or no, item by item", "", *_table(pairs), "", binary_outcomes.note(report), ""]
    return [*tested, *(by_item if pairs.rows else [])]


def _people(report: EvalReport) -> list[str]:
    """What people said, study by study."""
    lines: list[str] = []
    for result in report.human:
        lines += [f"## People: `{result.subject}` against `{result.versus}` (study `{result.study}`)", ""]
        lines += [*(f"- {sentence}" for sentence in about(result)), "", EXPLAINED, "", *_table(people_grid(result)), ""]
        if (beside := judge_grid(result)).rows:
            lines += [f"Beside the judge `{result.judge}`:", "", *_table(beside), ""]
        lines += [*_table(rater_grid(result)), ""]
    return lines


def _dollars(value: float | None) -> str:
    return "unknown" if value is None else f"$ {value:.4f}"


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.0f} %"


def _table(grid: Grid) -> list[str]:
    rule = "|" + "|".join([" --- ", *(" ---: " for _ in grid.columns[1:])]) + "|"
    body = ["| " + " | ".join(row) + " |" for row in text_rows(grid)]
    return ["| " + " | ".join(grid.columns) + " |", rule, *body]
