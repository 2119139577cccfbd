"""The `rlhi-adapters` command: see which adapters there are, check their files, take one out of service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlhi_plugin import terminal

app = typer.Typer(
    name="rlhi-adapters",
    help="Registered LoRA adapters.\n\nExample: rlhi-adapters list",
    no_args_is_help=True,
    add_completion=False,
)

Registry = Annotated[
    Path | None,
    typer.Option("--registry", help="Folder of the registry; default RLHI_REGISTRY, else the user's data folder."),
]
AdapterId = Annotated[str, typer.Argument(help="Name of the adapter, as `rlhi-adapters list` shows it.")]


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", help="Log more.")] = False,
) -> None:
    """Registered LoRA adapters."""


@app.command("list")
def list_adapters(
    stage: Annotated[str | None, typer.Option(help="Only candidate, promoted or retired; default: all.")] = None,
    registry: Registry = None,
) -> None:
    """List adapters, oldest first.

    Example: rlhi-adapters list --stage candidate
    """
    from rlhi_adapters.records import AdapterStage
    from rlhi_adapters.registry import AdapterRegistry
    from rlhi_plugin.errors import ConfigError

    if stage is not None and stage not in set(AdapterStage):
        raise ConfigError(f"no stage {stage!r}. Use one of: {', '.join(AdapterStage)}.")
    adapters = AdapterRegistry(registry)
    records = adapters.list(stage=AdapterStage(stage) if stage else None)
    if not records:
        terminal.stdout.print(f"no adapters in {adapters.root}; `rlhi-train run` registers one", markup=False)
        return
    rows = [
        (
            record.adapter_id,
            record.stage,
            record.base_model,
            len(record.user_ids),
            f"{record.created_at:%Y-%m-%d %H:%M}",
        )
        for record in records
    ]
    columns = ("adapter", "stage", "base model", "users", "created (UTC)")
    terminal.stdout.print(terminal.table(f"Adapters in {adapters.root}", columns, rows))


@app.command()
def show(adapter_id: AdapterId, registry: Registry = None) -> None:
    """Print one adapter's record as JSON.

    Example: rlhi-adapters show demo-1
    """
    from rlhi_adapters.registry import AdapterRegistry

    record = AdapterRegistry(registry).get(adapter_id)
    typer.echo(record.model_dump_json(indent=2))


@app.command()
def verify(adapter_id: AdapterId, registry: Registry = None) -> None:
    """Check an adapter's files against the digests it was registered with.

    Example: rlhi-adapters verify demo-1
    """
    from rlhi_adapters.registry import AdapterRegistry

    record = AdapterRegistry(registry).verify(adapter_id)
    typer.echo(f"{record.adapter_id}: weights and configuration are as registered ({record.weights_digest[:12]})")


@app.command()
def retire(
    adapter_id: AdapterId,
    reason: Annotated[str, typer.Option(help="Why; kept in the registry's history.")],
    registry: Registry = None,
) -> None:
    """Take an adapter out of service. Its files stay.

    Example: rlhi-adapters retire demo-1 --reason "a user asked to be forgotten"
    """
    from rlhi_adapters.registry import AdapterRegistry

    record = AdapterRegistry(registry).retire(adapter_id, reason=reason)
    typer.echo(f"{record.adapter_id}: {record.stage}")


def main() -> None:
    """Entry point of the command."""
    terminal.run(app, "rlhi-adapters")
