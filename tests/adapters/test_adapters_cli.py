"""The `rlhi-adapters` command."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlhi_adapters.base_models import BaseModel
from rlhi_adapters.cli import app
from rlhi_adapters.registry import AdapterRegistry, describe_adapter
from rlhi_plugin.errors import ArtefactError, ConfigError


@pytest.fixture
def registry(tmp_path: Path) -> AdapterRegistry:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    (adapter / "adapter_config.json").write_text("{}", "utf-8")
    registry = AdapterRegistry(tmp_path / "registry")
    base = BaseModel("tiny", tmp_path, "b" * 64)
    registry.register(
        describe_adapter(
            adapter, "demo-1", base=base, persona_prompt_digest="f" * 64, run_manifest=tmp_path / "manifest.json"
        )
    )
    return registry


def run(registry: AdapterRegistry, *arguments: str):
    return CliRunner().invoke(app, [*arguments, "--registry", str(registry.root)])


def test_list_shows_names_stages_and_bases(registry: AdapterRegistry) -> None:
    result = run(registry, "list")
    assert result.exit_code == 0
    assert all(word in result.stdout for word in ("demo-1", "candidate", "tiny"))
    assert "demo-1" not in run(registry, "list", "--stage", "promoted").stdout


def test_an_empty_registry_says_what_fills_it(tmp_path: Path) -> None:
    result = run(AdapterRegistry(tmp_path / "none"), "list")
    assert result.exit_code == 0
    assert "rlhi-train run" in result.stdout


def test_show_prints_the_record_as_json(registry: AdapterRegistry) -> None:
    shown = json.loads(run(registry, "show", "demo-1").stdout)
    assert shown["adapter_id"] == "demo-1"
    assert shown["stage"] == "candidate"


def test_verify_fails_on_changed_weights(registry: AdapterRegistry) -> None:
    assert run(registry, "verify", "demo-1").exit_code == 0
    (Path(registry.get("demo-1").path) / "adapter_model.safetensors").write_bytes(b"other")
    assert isinstance(run(registry, "verify", "demo-1").exception, ArtefactError)


def test_retire_needs_a_reason_and_keeps_it(registry: AdapterRegistry) -> None:
    assert run(registry, "retire", "demo-1").exit_code == 2
    assert run(registry, "retire", "demo-1", "--reason", "old").exit_code == 0
    assert registry.get("demo-1").stage == "retired"


@pytest.mark.parametrize("arguments", [("show", "absent"), ("list", "--stage", "gone")])
def test_a_users_mistake_is_a_config_error(registry: AdapterRegistry, arguments: tuple[str, ...]) -> None:
    assert isinstance(run(registry, *arguments).exception, ConfigError)


@pytest.mark.parametrize("command", ["list", "show", "verify", "retire"])
def test_every_help_has_an_example(command: str) -> None:
    assert "Example: rlhi-adapters" in CliRunner().invoke(app, [command, "--help"]).stdout
