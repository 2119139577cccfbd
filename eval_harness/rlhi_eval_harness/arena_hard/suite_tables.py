"""Arena-Hard's own scores of an evaluation's subjects, as tables of its report: one a category."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlhi_eval_harness.arena_hard.files import BASELINES
from rlhi_eval_harness.arena_hard.files import Judgment as Judged
from rlhi_eval_harness.arena_hard.scores import ArenaScore, arena_score
from rlhi_eval_harness.arena_hard.style import Style, tiktoken_counter
from rlhi_eval_harness.arena_hard.style_control import StyleControlled, StyleOptions, style_controlled
from rlhi_eval_harness.judging import Judgment
from rlhi_eval_harness.records import PlannedSample
from rlhi_eval_harness.suites.kind import Stored
from rlhi_plugin.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from rlhi_eval_harness.arena_hard.kind import ArenaHard

COLUMNS = (
    "Subject",
    "Score",
    "95 %, by question",
    "As upstream, by battle",
    "Style controlled",
    "As upstream, at the pool's style",
    "First shown wins",
    "Unscored",
)
NONE = "–"  # noqa: RUF001 - a dash where there is no number


def tables(
    kind: ArenaHard, stored: Stored, judgments: Mapping[str, Judgment], *, published: bool
) -> list[dict[str, Any]]:
    """Title, columns, rows and note of every category, ready to print.

    Args:
        kind: The suite.
        stored: Plan and outputs.
        judgments: The first judge's.
        published: Whether the judge was told what the published prompts say.
    """
    categories = dict.fromkeys(sample.facts["category"] for sample in stored.plan)
    return [_category(kind, category, stored, judgments, published=published) for category in categories]


def _category(
    kind: ArenaHard, category: str, stored: Stored, judgments: Mapping[str, Judgment], *, published: bool
) -> dict[str, Any]:
    mine = [sample for sample in stored.plan if sample.facts["category"] == category]
    judged = {
        subject: [kind.judged_games(sample, judgments) for sample in mine if sample.subject == subject]
        for subject in dict.fromkeys(sample.subject for sample in mine)
    }
    controlled, why = _controlled(kind, judged, mine, stored)
    rows = [_row(subject, games, controlled, kind) for subject, games in judged.items()]
    model = mine[0].facts["baseline_model"]
    note = [f"Scores are 0 to 100 against {model}, clear verdicts counting thrice; 50 is on a par with it.", why]
    if not published:
        note.append("The judge's prompts are not the published ones.")
    if model != BASELINES.get(category):
        note.append(f"The leaderboard compares with {BASELINES.get(category, 'others')}.")
    if not published or model != BASELINES.get(category):
        note.append("Do not compare these scores with the leaderboard.")
    title = (
        f"Arena-Hard {kind.version}" if category.startswith("arena-hard") else f"Arena-Hard {kind.version}, {category}"
    )
    return {"title": title, "columns": list(COLUMNS), "rows": rows, "note": " ".join(note)}


def _row(
    subject: str,
    games: Sequence[Judged],
    controlled: tuple[StyleControlled, StyleControlled] | None,
    kind: ArenaHard,
) -> list[str]:
    try:
        found = arena_score(games, kind.version, seed=kind.suite.seed)
    except ConfigError:
        return [subject, *[NONE] * (len(COLUMNS) - 2), "100 %"]
    styles = [NONE, NONE]
    if controlled is not None and subject in controlled[0].scores:
        styles = [
            f"{each.scores[subject].score:.1f} ({each.scores[subject].low:.1f} to {each.scores[subject].high:.1f})"
            for each in controlled
        ]
    first = found.position_bias.first_wins.value
    return [
        subject,
        f"{found.score:.1f}",
        NONE if found.low is None else f"{found.low:.1f} to {found.high:.1f}",
        f"{found.upstream_low:.1f} to {found.upstream_high:.1f} ({100 * found.upstream_level:.0f} %)",
        *styles,
        NONE if first is None else f"{100 * first:.0f} %",
        _unscored(found),
    ]


def _unscored(found: ArenaScore) -> str:
    return f"{100 * found.coverage.share:.1f} %{'' if found.coverage.usable else ' !'}"


def _controlled(
    kind: ArenaHard, judged: Mapping[str, Sequence[Judged]], samples: Sequence[PlannedSample], stored: Stored
) -> tuple[tuple[StyleControlled, StyleControlled] | None, str]:
    """Scores at the baseline's style and at the pool's mean style, and how length was counted or why there are none."""
    count, said = _counter()
    texts = {sample.sample_id: output.output for sample in samples if (output := stored.outputs.get(sample.sample_id))}
    styles = {
        subject: {
            sample.facts["uid"]: Style.of(texts[sample.sample_id], count or _words)
            for sample in samples
            if sample.subject == subject and sample.sample_id in texts
        }
        for subject in judged
    }
    baseline = {sample.facts["uid"]: _baseline_style(sample, count) for sample in samples}
    scored = {name: games for name, games in judged.items() if any(g.win is not None for j in games for g in j.games)}
    try:
        equal, pool = (
            style_controlled(scored, styles, baseline, options)
            for options in (
                StyleOptions(version=kind.version, seed=kind.suite.seed),
                StyleOptions(version=kind.version, seed=kind.suite.seed, reference="pool", over="battles"),
            )
        )
    except ConfigError as error:
        return None, f"Style was not controlled for: {error}"
    worth = ", ".join(f"{name} {value:+.2f}" for name, value in equal.coefficients.items())
    return (equal, pool), (
        f"Style controlled: at the baseline's style, {100 * equal.level:.0f} % intervals; log-odds of one standard "
        f"deviation more: {worth}. {said}"
    )


def _counter() -> tuple[Callable[[str], int] | None, str]:
    try:
        return tiktoken_counter(), "Length is in tokens of gpt-4o, as upstream counts."
    except (ConfigError, MissingExtraError) as error:
        return None, f"Length is in words on both sides, not in upstream's tokens: {error}"


def _words(text: str) -> int:
    return len(text.split())


def _baseline_style(sample: PlannedSample, count: Callable[[str], int] | None) -> Style:
    """As published with the answer; counted like the subjects' where their tokens cannot be counted."""
    stored = sample.facts["baseline_style"]
    if stored is not None and count is not None:
        return Style(**stored)
    return Style.of(sample.facts["baseline"], count or _words)
