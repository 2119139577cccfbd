"""`rlhi-eval arena-hard`: judge answers, score judgments."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhi_eval_harness.pinned_option import Pinned, say_who_answered
from rlhi_plugin import terminal

if TYPE_CHECKING:
    from rlhi_eval_harness.arena_hard.files import Judgment, ModelAnswer, Question
    from rlhi_eval_harness.arena_hard.scores import ArenaScore
    from rlhi_eval_harness.arena_hard.style import Style

arena_app = typer.Typer(
    no_args_is_help=True,
    help="Arena-Hard: judge answers against a baseline in both orders, score judgments.",
    epilog="Example: rlhi-eval arena-hard score judgments/my-model.jsonl --questions question.jsonl",
)


class Release(StrEnum):
    """Which benchmark's rules."""

    V01 = "v0.1"
    V20 = "v2.0"


Questions = Annotated[Path, typer.Option(help="question.jsonl of the benchmark.")]
Version = Annotated[Release, typer.Option("--version", help="Release whose prompts, verdicts and intervals count.")]


@arena_app.command(
    epilog="Example: rlhi-eval arena-hard score judgments/my-model.jsonl --questions question.jsonl --version v2.0"
)
def score(  # noqa: PLR0917 - typer turns every parameter into an option
    judgments: Annotated[list[Path], typer.Argument(help="Files of judgments, one for each model.")],
    questions: Annotated[Path | None, typer.Option(help="question.jsonl: what is not judged is then counted.")] = None,
    version: Version = Release.V20,
    answers: Annotated[
        Path | None, typer.Option(help="Folder of the models' answers, named as the judgments: style control.")
    ] = None,
    baseline: Annotated[Path | None, typer.Option(help="The baseline's answers: style control.")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Write the numbers to this file as well.")] = None,
) -> None:
    """Score models from their judgments; asks no judge."""
    from rlhi_eval_harness.arena_hard.files import read_judgments, read_questions
    from rlhi_eval_harness.arena_hard.scores import arena_score
    from rlhi_plugin.errors import ConfigError

    if (answers is None) != (baseline is None):
        raise ConfigError("style control needs both the models' and the baseline's answers: --answers and --baseline.")
    asked = None if questions is None else read_questions(questions)
    found = {path.stem: read_judgments(path, asked) for path in judgments}
    body: dict[str, object] = {}
    for category in sorted({each.category for model in found.values() for each in model}):
        chosen = {m: [each for each in rows if each.category == category] for m, rows in found.items()}
        scores = {model: arena_score(rows, version.value) for model, rows in chosen.items() if rows}
        body[category or "all"] = {model: asdict(each) for model, each in scores.items()}
        _show(category, scores)
        if answers is not None and baseline is not None and asked is not None:
            of_category = [question for question in asked if question.category == category]
            _show_controlled(chosen, _styles(answers, baseline, list(chosen), of_category), version)
    if json_ is not None:
        json_.write_text(json.dumps(body, indent=2) + "\n", "utf-8")


@arena_app.command(
    epilog="Example: rlhi-eval arena-hard judge answers.jsonl --questions question.jsonl --baseline o3-mini.jsonl "
    "--prompts arena-hard-auto/ --judge openai/gpt-4.1-2025-04-14 --out judgments/my-model.jsonl"
)
def judge(  # noqa: PLR0917 - typer turns every parameter into an option
    answers: Annotated[Path, typer.Argument(help="The model's answers, JSON lines.")],
    questions: Questions,
    baseline: Annotated[Path, typer.Option(help="The baseline's answers, JSON lines.")],
    prompts: Annotated[Path, typer.Option(help="Checkout of arena-hard-auto, or a folder with user.md and others.")],
    judge_: Annotated[str, typer.Option("--judge", help="The judge, as LiteLLM writes it: openai/gpt-4.1-2025-04-14.")],
    out: Annotated[Path, typer.Option(help="File of judgments; a stopped run goes on there.")],
    version: Version = Release.V20,
    category: Annotated[
        str | None, typer.Option(help="Only this category: each has its own baseline. Default: all.")
    ] = None,
    api_base: Annotated[
        str | None, typer.Option(help="OpenAI-compatible address, with /v1; default: the provider's own.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0, help="Sampling temperature of the judge.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a verdict.")] = 16_000,
    require_pinned_judge: Pinned = False,
) -> None:
    """Judge a model's answers against the baseline's, in both orders, and score it."""
    from rlhi_eval_harness.arena_hard import judging
    from rlhi_eval_harness.arena_hard.files import read_answers, read_judgments, read_questions
    from rlhi_eval_harness.arena_hard.prompts import load_prompts
    from rlhi_eval_harness.arena_hard.scores import arena_score
    from rlhi_eval_harness.judge_identity import pin_of, refuse_aliases
    from rlhi_plugin.litellm_client import LiteLLMClient

    if require_pinned_judge:
        refuse_aliases([(judge_, pin_of(judge_))])
    asked = [each for each in read_questions(questions) if category is None or each.category == category]
    told = load_prompts(prompts, version.value)
    if not all(told.published(each.category) for each in asked):
        terminal.stdout.print("Another prompt than the published one: do not compare these numbers with others.")
    contest = judging.Contest(asked, read_answers(answers, asked), read_answers(baseline, asked))
    for line in _other_baselines(contest.baseline, asked):
        terminal.stdout.print(line, markup=False, highlight=False)
    options = judging.JudgeOptions(version=version.value, temperature=temperature, max_tokens=max_tokens)
    client = LiteLLMClient(judge_, api_base=api_base)
    with terminal.progress("judging", total=len(asked)) as advance:
        asyncio.run(judging.judge(contest, client, told, out, options=options, advance=advance))
    say_who_answered(judging.identity_in(out), again="into another file, with --judge")
    rows = read_judgments(out, asked)
    for each in sorted({question.category for question in asked}):
        _show(each, {answers.stem: arena_score([row for row in rows if row.category == each], version.value)})


def _other_baselines(baseline: Mapping[str, ModelAnswer], questions: Sequence[Question]) -> list[str]:
    """What to say where a category is not compared with the baseline of the leaderboard."""
    from rlhi_eval_harness.arena_hard.files import BASELINES

    used = sorted({(question.category, baseline[question.uid].model) for question in questions})
    return [
        f"{category} is compared with {model}, the leaderboard compares with {BASELINES.get(category, 'others')}: do "
        "not compare these numbers with it. Give the right --baseline with --category."
        for category, model in used
        if model != BASELINES.get(category)
    ]


def _show(category: str, scores: Mapping[str, ArenaScore]) -> None:
    rows = [
        (
            model,
            f"{each.score:.2f}",
            "" if each.low is None else f"{each.low:.1f} to {each.high:.1f}",
            f"{each.upstream_low:.1f} to {each.upstream_high:.1f} ({each.upstream_level:.0%})",
            "-" if each.position_bias.first_wins.value is None else f"{each.position_bias.first_wins.value:.1%}",
            f"{each.coverage.share:.1%}{'' if each.coverage.usable else ' !'}",
        )
        for model, each in sorted(scores.items(), key=lambda item: -item[1].score)
    ]
    columns = ("model", "score", "95 %, by question", "as upstream, by battle", "first shown wins", "unscored")
    title = f"Arena-Hard, against the baseline{f': {category}' if category else ''}"
    terminal.stdout.print(terminal.table(title, columns, rows))
    for model, each in scores.items():
        if each.coverage.unscored:
            terminal.stdout.print(f"- {model}: {each.coverage.sentence()}", markup=False, highlight=False)


def _styles(
    answers: Path, baseline: Path, models: Sequence[str], questions: Sequence[Question]
) -> tuple[dict[str, dict[str, Style]], dict[str, Style]]:
    """The style of every model's answers and of the baseline's, as published with them or counted."""
    from rlhi_eval_harness.arena_hard.files import read_answers
    from rlhi_eval_harness.arena_hard.style import Style, tiktoken_counter

    def styles(path: Path) -> dict[str, Style]:
        found = read_answers(path, questions)
        unknown = [each for each in found.values() if each.style is None]
        count = tiktoken_counter() if unknown else len
        return {uid: each.style or Style.of(each.text, count) for uid, each in found.items()}

    return {model: styles(answers / f"{model}.jsonl") for model in models}, styles(baseline)


def _show_controlled(
    judgments: Mapping[str, Sequence[Judgment]],
    styles: tuple[Mapping[str, Mapping[str, Style]], Mapping[str, Style]],
    version: Release,
) -> None:
    from rlhi_eval_harness.arena_hard.style_control import StyleOptions, style_controlled

    equal = style_controlled(judgments, *styles, StyleOptions(version=version.value))
    pool = style_controlled(judgments, *styles, StyleOptions(version=version.value, reference="pool", over="battles"))
    rows = [
        (model, *(f"{s.score:.2f} ({s.low:.1f} to {s.high:.1f})" for s in (equal.scores[model], pool.scores[model])))
        for model in equal.scores
    ]
    columns = ("model", "at the baseline's style", "as upstream: at the pool's mean style")
    terminal.stdout.print(terminal.table(f"Style controlled, intervals of {equal.level:.0%}", columns, rows))
    worth = ", ".join(f"{name} {value:+.2f}" for name, value in equal.coefficients.items())
    terminal.stdout.print(f"- log-odds of one standard deviation more: {worth}", markup=False, highlight=False)
    if equal.left_out:
        terminal.stdout.print(f"- not controlled for, as it never differs: {', '.join(equal.left_out)}", markup=False)
