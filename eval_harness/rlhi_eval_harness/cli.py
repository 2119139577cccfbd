"""`rlhi-eval`: evaluate subjects, score a stored evaluation again, build a suite from a log, list the suites."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhi_eval_harness.compare.cli import add_to as add_compare
from rlhi_eval_harness.export.cli import add_to as add_export
from rlhi_eval_harness.human.cli import add_to as add_human
from rlhi_eval_harness.pinned_option import Pinned
from rlhi_eval_harness.published_cli import add_to as add_published
from rlhi_plugin import terminal

if TYPE_CHECKING:
    from rlhi_eval_harness.models import OpenModels
    from rlhi_eval_harness.suites.kind import SuiteKind
    from rlhi_plugin.calls.budget import Budget
    from rlhi_plugin.chat import ChatClient

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Compare an adapter with its base on users and requests that training never saw.",
    epilog="Example: rlhi-eval run --suite smoke --adapter runs/1/adapter --out report/",
)

Verbose = Annotated[bool, typer.Option("--verbose", help="Log what happens inside.")]
Adapter = Annotated[
    str | None,
    typer.Option(help="What the subject `adapter` means: a folder, or with --registry an adapter's id. Default: none."),
]
Out = Annotated[Path, typer.Option(help="Folder for the evaluation and its report; a stopped run goes on there.")]
SuiteName = Annotated[
    str,
    typer.Option("--suite", help="A shipped suite (see rlhi-eval suites), a .toml file, or a folder with suite.toml."),
]
Subjects = Annotated[
    list[str] | None,
    typer.Option(
        "--subject",
        help="Who answers: [NAME:]SOURCE[+persona|+shuffled-persona]; SOURCE is base, adapter=PATH, model=NAME, "
        "endpoint=MODEL@URL, outputs=FILE or logged. Repeat it; default: those of the suite.",
    ),
]
Base = Annotated[
    str | None,
    typer.Option(
        help="Base model: a hub id, a folder, or smollm2-135m-instruct; default: the one that the adapter names."
    ),
]
Registry = Annotated[
    Path | None, typer.Option(help="Registry folder in which --adapter is an id. Default: --adapter is a folder.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Override an option of the suite: --set users=8 (see rlhi-eval suites --options). Repeat it."
    ),
]
Data = Annotated[
    Path | None, typer.Option(help="Folder of the benchmark's files, for suites that read any: --set data=FOLDER.")
]
Limit = Annotated[
    int | None, typer.Option(help="Ask so many items only, of suites that can; the report says so: --set limit=N.")
]
Judges = Annotated[
    list[str] | None,
    typer.Option(
        "--judge",
        help="Judge: openai/gpt-4o-2024-08-06 as LiteLLM writes it, openai/NAME@http://HOST/v1, or local:FOLDER or "
        "vllm:FOLDER in this process. Repeat it for more; default: none.",
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option(
        metavar="USD",
        help="Stop before subjects and judges, all starts together, have cost more; exit code 3. What is done is kept.",
    ),
]


@app.command(epilog="Example: rlhi-eval run --suite smoke --adapter runs/1/adapter --out report/")
def run(  # noqa: PLR0917 - typer turns every parameter into an option
    out: Out,
    suite: SuiteName = "smoke",
    subject: Subjects = None,
    adapter: Adapter = None,
    base: Base = None,
    registry: Registry = None,
    judge: Judges = None,
    require_pinned_judge: Pinned = False,
    data: Data = None,
    limit: Limit = None,
    max_cost: MaxCost = None,
    set_: Settings = None,
    verbose: Verbose = False,  # noqa: ARG001 - read by rlhi_plugin.terminal before typer runs
) -> None:
    """Answer, judge, score, and write report.html, report.md and report.json."""
    from rlhi_eval_harness.evaluate import evaluate

    spend = _budget(out, max_cost)
    with _judges(judge, spend, pinned=require_pinned_judge) as judges:
        kind, models = _open(suite, subject, adapter, base, registry, _settings(data, limit, set_), spend)
        try:
            evaluate(kind, models, out, judges=judges, require_pinned=require_pinned_judge)
        finally:
            models.close()
    _show(out)


@app.command(epilog="Example: rlhi-eval answer --suite harm --subject base --subject base+persona --out report/")
def answer(  # noqa: PLR0917 - typer turns every parameter into an option
    out: Out,
    suite: SuiteName = "smoke",
    subject: Subjects = None,
    adapter: Adapter = None,
    base: Base = None,
    registry: Registry = None,
    plan_only: Annotated[bool, typer.Option("--plan-only", help="Only write plan.jsonl, the prompts.")] = False,
    data: Data = None,
    limit: Limit = None,
    max_cost: MaxCost = None,
    set_: Settings = None,
    verbose: Verbose = False,  # noqa: ARG001 - read by rlhi_plugin.terminal before typer runs
) -> None:
    """Only answer: the part that needs the models. Go on with rlhi-eval score."""
    from rlhi_eval_harness.evaluate import answer_suite

    settings = _settings(data, limit, set_)
    kind, models = _open(suite, subject, adapter, base, registry, settings, _budget(out, max_cost))
    try:
        answer_suite(kind, models, out, plan_only=plan_only)
    finally:
        models.close()
    done, after = ("prompts: ", "plan.jsonl") if plan_only else ("answers: ", "outputs.jsonl")
    terminal.stdout.print(f"{done}{out / after}", markup=False, highlight=False)


@app.command(epilog="Example: rlhi-eval score report/ --judge openai/gpt-4o-2024-08-06")
def score(
    folder: Annotated[Path, typer.Argument(help="Folder of an evaluation.")],
    judge: Judges = None,
    require_pinned_judge: Pinned = False,
    max_cost: MaxCost = None,
    verbose: Verbose = False,  # noqa: ARG001 - read by rlhi_plugin.terminal before typer runs
) -> None:
    """Score the stored answers again and rewrite the report; needs no GPU, and a model only where a judge is named."""
    from rlhi_eval_harness.evaluate import score_again

    with _judges(judge, _budget(folder, max_cost), pinned=require_pinned_judge) as judges:
        score_again(folder, judges=judges, require_pinned=require_pinned_judge)
    _show(folder)


@app.command(epilog="Example: rlhi-eval build-usereval logs.jsonl --out suite/")
def build_usereval(  # noqa: PLR0917 - typer turns every parameter into an option
    log: Annotated[
        Path, typer.Argument(help="Conversations: an export of rlhi, WildChat rows, or any log it can read.")
    ],
    out: Annotated[Path, typer.Option(help="New folder for the suite.")],
    manifest: Annotated[
        Path | None, typer.Option(help="Rebuild exactly the suite of this manifest.json from the log.")
    ] = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(
            help="Log, or manifest of a suite, whose users must not be evaluated: the training log. Repeat it."
        ),
    ] = None,
    labeller: Annotated[
        str, typer.Option(help="What labels follow-ups: embedded, fast, llm, or another package's.")
    ] = "embedded",
    llm: Annotated[
        str | None, typer.Option(help="Model for the labeller llm, and for personas where it is given.")
    ] = None,
    set_: Settings = None,
    verbose: Verbose = False,  # noqa: ARG001 - read by rlhi_plugin.terminal before typer runs
) -> None:
    """Build a WildChat UserEval suite from a log: held-out users, personas from before, a frozen manifest of ids."""
    from rlhi_eval_harness.usereval.build import BuildRequest, build

    built = build(
        BuildRequest(
            log=log, out=out, manifest=manifest, exclude=tuple(exclude or ()), labeller=labeller, llm=llm,
            settings=tuple(set_ or ()),
        )
    )  # fmt: skip
    rows = [(name, str(count)) for name, count in built.counts.items()]
    terminal.stdout.print(terminal.table("UserEval from this log", ("what", "number"), rows))
    terminal.stdout.print(f"suite: {out / 'suite.toml'}", markup=False, highlight=False)


@app.command(epilog="Example: rlhi-eval suites --options")
def suites(
    options: Annotated[bool, typer.Option("--options", help="Every option with its default and meaning.")] = False,
) -> None:
    """List the suites that ship, one line each."""
    from rlhi_eval_harness.suites import shipped_suites
    from rlhi_eval_harness.suites.kinds import KINDS, kind_named

    if options:
        for kind in KINDS:
            meanings = [
                (
                    name,
                    json.dumps(field.get_default(call_default_factory=True), default=_plain),
                    field.description or "",
                )
                for name, field in kind_named(kind).options.model_fields.items()
                if name not in {"name", "summary", "kind"}
            ]
            heads = ("option", "default", "meaning")
            terminal.stdout.print(terminal.table(f'Options of a suite of kind = "{kind}"', heads, meanings))
        return
    rows = [(suite.name, suite.summary) for suite in shipped_suites().values()]
    terminal.stdout.print(terminal.table("Suites", ("suite", "what it does"), rows))


def _settings(data: Path | None, limit: int | None, others: list[str] | None) -> list[str]:
    """Options that have a flag of their own, as settings; --set wins."""
    flags = [f"data={json.dumps(str(data))}"] if data is not None else []
    return [*flags, *([f"limit={limit}"] if limit is not None else []), *(others or ())]


def _budget(folder: Path, max_cost: float | None) -> Budget | None:
    from rlhi_eval_harness.spending import budget_for

    return budget_for(folder, max_cost)


@contextmanager
def _judges(names: list[str] | None, budget: Budget | None, *, pinned: bool) -> Iterator[list[ChatClient]]:
    """Judges, ready to be asked; weights in this process are let go of at the end."""
    from rlhi_adapters.opening import open_client
    from rlhi_eval_harness.judge_identity import pin_of, refuse_aliases
    from rlhi_eval_harness.models import has_address
    from rlhi_eval_harness.spending import equipped

    if pinned:
        refuse_aliases((name, pin_of(name)) for name in names or ())
    opened = [(name, open_client(name)) for name in names or ()]
    try:
        yield [equipped(client, budget, own_server=has_address(name)) for name, client in opened]
    finally:
        for _, client in opened:
            if hasattr(client, "close"):
                client.close()


def _open(  # noqa: PLR0917 - the options of run and answer, in their order
    suite: str,
    subject: list[str] | None,
    adapter: str | None,
    base: str | None,
    registry: Path | None,
    set_: list[str] | None,
    budget: Budget | None,
) -> tuple[SuiteKind, OpenModels]:
    """The suite and the models behind its subjects."""
    from rlhi_eval_harness.adapter_folders import read_adapter_folder, read_registered_adapter
    from rlhi_eval_harness.models import open_assistants
    from rlhi_eval_harness.spending import equipped
    from rlhi_eval_harness.subjects import parse_subjects
    from rlhi_eval_harness.suites import load_suite
    from rlhi_eval_harness.suites.kinds import open_kind

    named = [f"subjects={json.dumps(subject)}"] if subject else []
    chosen = load_suite(suite, overrides=[*(set_ or ()), *named])
    folder = None
    if adapter is not None and registry is not None:
        folder = read_registered_adapter(registry, adapter, base=base)
    elif adapter is not None:
        folder = read_adapter_folder(Path(adapter), base=base)
    subjects = parse_subjects(chosen.subjects)

    def wrap(client: ChatClient, own_server: bool) -> ChatClient:
        return equipped(client, budget, own_server=own_server)

    return open_kind(chosen), open_assistants(subjects, base=base, adapter=folder, wrap=wrap)


def _show(folder: Path) -> None:
    """Print the ranking, the findings, and where the report is."""
    from rlhi_eval_harness.records import EvalReport
    from rlhi_eval_harness.report.tables import summary, text_rows

    report = EvalReport.model_validate_json((folder / "report.json").read_text("utf-8"))
    grid = summary(report)
    terminal.stdout.print(terminal.table(f"Suite {report.suite}, best first", grid.columns, text_rows(grid)))
    for finding in report.findings:
        terminal.stdout.print(f"- {finding}", markup=False, highlight=False)
    terminal.stdout.print(f"report: {folder / 'report.html'}", markup=False, highlight=False)


def _plain(value: object) -> object:
    return value.model_dump() if hasattr(value, "model_dump") else str(value)


add_published(app)
add_human(app)
add_compare(app)
add_export(app)


def main() -> None:
    """Entry point of the `rlhi-eval` command."""
    terminal.run(app, "rlhi-eval")
