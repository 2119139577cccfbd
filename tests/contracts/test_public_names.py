"""Names that other people's code depends on: removing one is a breaking change and must be seen as one."""

import importlib
import tomllib
from pathlib import Path

import rlhi_plugin

ROOT = Path(__file__).parents[2]


def test_rlhi_plugin_exports_exactly_these() -> None:
    assert sorted(rlhi_plugin.__all__) == [
        "ArtefactError",
        "ConfigError",
        "Conversation",
        "ConversationStore",
        "FollowUp",
        "FollowUpLabel",
        "Message",
        "MissingExtraError",
        "ModelCallError",
        "Persona",
        "PersonaStatement",
        "PersonaStore",
        "RLHIError",
        "RLHIMiddleware",
        "RLHIToolMiddleware",
        "RecordError",
        "StoreError",
        "UserError",
        "open_store",
    ]
    assert all(hasattr(rlhi_plugin, name) for name in rlhi_plugin.__all__)


def test_every_command_and_entry_point_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(project["scripts"]) == {"rlhi", "rlhi-train", "rlhi-eval", "rlhi-adapters"}
    targets = [*project["scripts"].values(), *project["entry-points"]["rlhi.labellers"].values()]
    for target in targets:
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name)), target
