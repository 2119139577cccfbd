"""The adapter registry: nothing is lost, nothing half-written is read, tampering is seen."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlhi_adapters.base_models import BaseModel
from rlhi_adapters.digests import sha256_file
from rlhi_adapters.records import AdapterRecord, AdapterStage
from rlhi_adapters.registry import AdapterRegistry, default_registry, describe_adapter
from rlhi_plugin.errors import ArtefactError, ConfigError

BASE = BaseModel("tiny", Path("tiny"), "b" * 64)


@dataclass(frozen=True)
class FakeDecision:
    adapter_id: str
    decision: str
    report_digest: str
    reasons: tuple[str, ...] = ("short answers kept more often",)


def make_record(folder: Path, adapter_id: str = "demo-1", **fields) -> AdapterRecord:
    adapter = folder / "adapter"
    adapter.mkdir(parents=True, exist_ok=True)
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    (adapter / "adapter_config.json").write_text("{}", "utf-8")
    return describe_adapter(
        adapter,
        adapter_id,
        base=BASE,
        persona_prompt_digest="f" * 64,
        run_manifest=folder / "manifest.json",
        **fields,
    )


def test_a_registered_adapter_is_found_again(tmp_path: Path) -> None:
    registry = AdapterRegistry(tmp_path / "registry")
    record = make_record(tmp_path, user_ids=("u2", "u1", "u2"))
    registry.register(record)
    registry.register(record)
    assert registry.list() == (record,)
    assert registry.get("demo-1").user_ids == ("u1", "u2")
    assert registry.verify("demo-1").weights_digest == sha256_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert registry.list(stage=AdapterStage.PROMOTED) == ()


def test_a_taken_name_is_refused_and_the_first_record_stays(tmp_path: Path) -> None:
    registry = AdapterRegistry(tmp_path / "registry")
    first, second = make_record(tmp_path / "a"), make_record(tmp_path / "b")
    registry.register(first)
    with pytest.raises(ConfigError, match="Choose another name"):
        registry.register(second)
    assert registry.get("demo-1") == first


@pytest.mark.parametrize("name", ["Demo", "../escape", "", "a b"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be registered"):
        make_record(tmp_path, name)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_changed_file_is_seen(tmp_path: Path, file: str) -> None:
    registry = AdapterRegistry(tmp_path / "registry")
    registry.register(make_record(tmp_path))
    (tmp_path / "adapter" / file).write_bytes(b"weightz")
    with pytest.raises(ArtefactError, match="changed since it was registered"):
        registry.verify("demo-1")


def test_a_missing_file_is_seen(tmp_path: Path) -> None:
    registry = AdapterRegistry(tmp_path / "registry")
    registry.register(make_record(tmp_path))
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(ArtefactError, match="holds no adapter_model"):
        registry.verify("demo-1")


def test_promotion_needs_the_very_report_that_was_decided_on(tmp_path: Path) -> None:
    registry = AdapterRegistry(tmp_path / "registry")
    registry.register(make_record(tmp_path))
    report = tmp_path / "report.json"
    report.write_text("{}", "utf-8")
    digest = sha256_file(report)
    with pytest.raises(ConfigError, match="hold"):
        registry.promote(FakeDecision("demo-1", "hold", digest), report)
    with pytest.raises(ConfigError, match="not the report"):
        registry.promote(FakeDecision("demo-1", "promote", "0" * 64), report)
    assert registry.get("demo-1").stage is AdapterStage.CANDIDATE
    assert registry.promote(FakeDecision("demo-1", "promote", digest), report).stage is AdapterStage.PROMOTED
    assert registry.list(stage=AdapterStage.PROMOTED)[0].adapter_id == "demo-1"


def test_a_retired_adapter_is_never_promoted_and_history_says_why(tmp_path: Path) -> None:
    registry = AdapterRegistry(tmp_path / "registry")
    registry.register(make_record(tmp_path))
    with pytest.raises(ConfigError, match="say why"):
        registry.retire("demo-1", reason=" ")
    registry.retire("demo-1", reason="a user left")
    report = tmp_path / "report.json"
    report.write_text("{}", "utf-8")
    with pytest.raises(ConfigError, match="cannot become promoted"):
        registry.promote(FakeDecision("demo-1", "promote", sha256_file(report)), report)
    events = [json.loads(line) for line in (registry.root / "history.jsonl").read_text("utf-8").splitlines()]
    assert [(event["to"], event["why"]) for event in events] == [
        ("candidate", "registered"),
        ("retired", "a user left"),
    ]


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    registry = AdapterRegistry(tmp_path)
    (tmp_path / "broken.json").write_text('{"adapter_id": "bro', "utf-8")
    with pytest.raises(ArtefactError, match=r"broken\.json"):
        registry.list()


def test_many_threads_register_without_losing_one(tmp_path: Path) -> None:
    registry = AdapterRegistry(tmp_path / "registry")
    records = [make_record(tmp_path, f"demo-{i}") for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(registry.register, records))
    assert {record.adapter_id for record in registry.list()} == {record.adapter_id for record in records}
    assert len((registry.root / "history.jsonl").read_text("utf-8").splitlines()) == 24


_REGISTER = """
import sys
from pathlib import Path
from rlhi_adapters.records import AdapterRecord
from rlhi_adapters.registry import AdapterRegistry
registry = AdapterRegistry(Path(sys.argv[1]))
won = 0
for line in Path(sys.argv[2]).read_text("utf-8").splitlines():
    try:
        registry.register(AdapterRecord.model_validate_json(line))
        won += 1
    except ValueError:
        pass
print(won)
"""


@pytest.mark.slow
def test_two_processes_with_the_same_names_share_them_out(tmp_path: Path) -> None:
    """Each name goes to exactly one of two processes whose records differ."""
    processes = []
    for which in ("a", "b"):
        lines = [make_record(tmp_path / which, f"demo-{i}").to_json() for i in range(10)]
        (tmp_path / f"{which}.jsonl").write_text("\n".join(lines), "utf-8")
        command = [sys.executable, "-c", _REGISTER, str(tmp_path / "registry"), str(tmp_path / f"{which}.jsonl")]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    won = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sum(won) == 10
    assert len(AdapterRegistry(tmp_path / "registry").list()) == 10


def test_the_environment_moves_the_default_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHI_REGISTRY", str(tmp_path))
    assert default_registry() == tmp_path
    assert AdapterRegistry().root == tmp_path
