"""The command ``rlhi-train plan``."""

from __future__ import annotations

from typing import Annotated

import typer

from rlhi_plugin import terminal


def plan(
    logs: Annotated[str, typer.Argument(help="Conversation log, as `rlhi-train run` takes it.")],
    recipe: Annotated[
        str, typer.Option("--recipe", help="A recipe that `rlhi-train recipes` lists, or path of a .toml file.")
    ] = "smoke_cpu",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one option of the recipe; repeatable."),
    ] = None,
    *,
    price_of: Annotated[
        list[str] | None,
        typer.Option(
            "--price-of", metavar="MODEL", help="Also say the cost with this model, as LiteLLM writes it; repeatable."
        ),
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option(
            "--held-out", min=0.0, max=1.0, help="Share of users, 0 to 1, to evaluate on; default: that of the recipe."
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Say what a run would take, before anything is spent: pairs, calls, tokens, money, GPU, statistical power.

    Example: rlhi-train plan logs.jsonl --recipe rewrites_lora --set rewrite.llm=openai/gpt-4o-mini
    """
    from rlhi_training.log_source import log_source
    from rlhi_training.plan.rendering import render
    from rlhi_training.plan.report import make_plan
    from rlhi_training.recipe_files import load_recipe

    loaded = load_recipe(recipe, overrides=overrides or [])
    log_source(logs).require()
    made = make_plan(logs, loaded, price_of_others=price_of or [], held_out=held_out)
    if json_:
        print(made.model_dump_json(indent=2))  # noqa: T201 - not wrapped at the terminal's width
        return
    for part in render(made):
        terminal.stdout.print(part, markup=False) if isinstance(part, str) else terminal.stdout.print(part)
