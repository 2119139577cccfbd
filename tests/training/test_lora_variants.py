"""Each variant of the adapter trains, is saved, loads in plain PEFT, and has the gradients that TRL's trainer has."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from test_trainer import make_pair, some_pairs, tiny_recipe

from rlhi_adapters import four_bit
from rlhi_adapters.base_models import resolve_base
from rlhi_adapters.loading import load_causal_lm, quiet
from rlhi_adapters.registry import AdapterRegistry, describe_adapter
from rlhi_plugin.errors import ArtefactError, ConfigError, MissingExtraError
from rlhi_plugin.persona import FRAME_DIGEST
from rlhi_training.lora import starting_point
from rlhi_training.trainer import train_adapter


def weights_of(result) -> bytes:
    return (result.adapter_dir / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def first(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory):
    """An adapter to continue."""
    return train_adapter(
        some_pairs(), tiny_recipe(tiny_model_dir, epochs=1.0), tmp_path_factory.mktemp("first"), progress=None
    )


@pytest.mark.parametrize(
    ("settings", "recorded"),
    [({"dora": True}, "use_dora"), ({"rslora": True}, "use_rslora"), ({"gradient_checkpointing": True}, None)],
)
def test_variants_train_and_load_in_plain_peft(tiny_model_dir: Path, tmp_path: Path, settings, recorded) -> None:
    from peft import PeftModel

    result = train_adapter(some_pairs(), tiny_recipe(tiny_model_dir, **settings), tmp_path, progress=None)
    assert result.metrics["tokens_shared"] > 0.3
    assert result.log_history[-2]["rewards/margins"] > 0.05
    config = json.loads((result.adapter_dir / "adapter_config.json").read_text("utf-8"))
    if recorded:
        assert config[recorded] is True
    base = load_causal_lm(tiny_model_dir, dtype="float32")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad(), quiet():
        before = base(ids).logits
        assert (PeftModel.from_pretrained(base, str(result.adapter_dir))(ids).logits - before).abs().max() > 1e-2


def test_gradient_checkpointing_gives_the_same_weights_bit_for_bit(tiny_model_dir: Path, tmp_path: Path) -> None:
    plain, saving = (
        train_adapter(
            some_pairs(),
            tiny_recipe(tiny_model_dir, gradient_checkpointing=on, tokens_per_batch=budget),
            tmp_path / str(on),
            progress=None,
        )
        for on, budget in ((False, 300), (True, 300))
    )
    assert weights_of(plain) == weights_of(saving)


def test_gradient_checkpointing_keeps_less_for_the_backward_pass(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlhi_training.tree.forward import SharedForward
    from rlhi_training.tree.trl_trainer import TreeDPOTrainer

    # What is made again without checkpointing is kept in hooks of its own, which hide from those below.
    monkeypatch.setattr(SharedForward, "saving", lambda *_: nullcontext())
    kept = {}
    for on in (False, True):
        held: dict[int, int] = {}

        def note(tensor: torch.Tensor, held=held) -> torch.Tensor:
            held[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        step = TreeDPOTrainer.training_step

        def watched(*args, step=step, note=note):
            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                return step(*args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TreeDPOTrainer, "training_step", watched)
            recipe = tiny_recipe(tiny_model_dir, gradient_checkpointing=on, epochs=1.0)
            train_adapter(some_pairs(), recipe, tmp_path / str(on), progress=None)
        kept[on] = sum(held.values())
    assert kept[True] < 0.7 * kept[False]


def test_four_bits_train_on_trees(tiny_model_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="the extra qlora is not installed")
    result = train_adapter(some_pairs(), tiny_recipe(tiny_model_dir, quantize="nf4"), tmp_path, progress=None)
    assert result.metrics["tokens_shared"] > 0.3
    assert result.log_history[-2]["rewards/margins"] > 0.05
    assert "NF4" in (result.adapter_dir / "README.md").read_text("utf-8")


def test_four_bit_layers_are_four_bits_and_near_the_base(tiny_model_dir: Path) -> None:
    bnb = pytest.importorskip("bitsandbytes", reason="the extra qlora is not installed")
    model = load_causal_lm(tiny_model_dir, dtype="float32", device="cpu", four_bit=True)
    whole = load_causal_lm(tiny_model_dir, dtype="float32", device="cpu")
    linear = [layer for layer in model.modules() if isinstance(layer, bnb.nn.Linear4bit)]
    assert len(linear) == 2 * 7
    assert all(layer.weight.dtype is torch.uint8 for layer in linear)
    assert model.get_output_embeddings().weight.dtype is torch.float32
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        found, expected = (torch.log_softmax(m(ids).logits, -1) for m in (model, whole))
    assert 1e-3 < (found - expected).abs().mean() < 1.0


def test_without_bitsandbytes_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes.functional", None)
    with pytest.raises(MissingExtraError, match="qlora"):
        four_bit.require_four_bit("cpu")


def test_where_four_bits_do_not_work_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    functional = pytest.importorskip("bitsandbytes.functional", reason="the extra qlora is not installed")

    def no_kernel(*_, **__):
        raise NotImplementedError("no kernel for this device")

    monkeypatch.setattr(functional, "quantize_4bit", no_kernel)
    with pytest.raises(ConfigError, match=r"machine's cpu \(NotImplementedError: no kernel.*train.quantize"):
        four_bit.require_four_bit("cpu")


def test_training_in_bfloat16_stays_near_float32(tiny_model_dir: Path, tmp_path: Path, caplog) -> None:
    exact, half = (
        train_adapter(
            some_pairs(),
            recipe.model_copy(update={"model": recipe.model.model_copy(update={"dtype": dtype})}),
            tmp_path / dtype,
            progress=None,
        )
        for recipe in [tiny_recipe(tiny_model_dir, tokens_per_batch=300)]
        for dtype in ("float32", "bfloat16")
    )
    assert "using a dense mask" not in caplog.text
    assert half.metrics["tokens_shared"] == exact.metrics["tokens_shared"]
    for one, other in zip(exact.log_history[:-1], half.log_history[:-1], strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=0.05)


def test_a_continued_adapter_starts_where_it_was_and_leaves_no_copy(
    first, tiny_model_dir: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("RLHI_REGISTRY", str(tmp_path / "registry"))
    recipe = tiny_recipe(tiny_model_dir, continue_from=str(first.adapter_dir), lora_rank=7)
    again = train_adapter(some_pairs(), recipe, tmp_path / "run", progress=None)
    # Its reference is itself, so that the first margins are zero; its likelihoods are those of the trained adapter.
    assert again.log_history[0]["rewards/margins"] == pytest.approx(0.0, abs=1e-5)
    assert again.log_history[-2]["rewards/margins"] > 0.05
    assert sorted(path.name for path in again.adapter_dir.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    config = json.loads((again.adapter_dir / "adapter_config.json").read_text("utf-8"))
    assert config["r"] == 4
    assert config["base_model_name_or_path"] == str(tiny_model_dir)
    assert weights_of(again) != weights_of(first)
    assert "continued from" in (again.adapter_dir / "README.md").read_text("utf-8")
    assert again.parent is None


def test_a_continued_adapter_may_be_held_to_the_base(first, tiny_model_dir: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RLHI_REGISTRY", str(tmp_path / "registry"))
    recipe = tiny_recipe(tiny_model_dir, continue_from=str(first.adapter_dir), reference="base")
    result = train_adapter(some_pairs(), recipe, tmp_path / "run", progress=None)
    assert result.log_history[0]["rewards/margins"] > 1e-3


def test_what_the_start_thinks_is_kept_apart_from_what_the_base_thinks(
    first, tiny_model_dir: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("RLHI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RLHI_REGISTRY", str(tmp_path / "registry"))
    reused = []
    for place, more in enumerate(
        ({}, {"continue_from": str(first.adapter_dir)}, {"continue_from": str(first.adapter_dir), "seed": 3})
    ):
        recipe = tiny_recipe(tiny_model_dir, epochs=1.0, reuse_reference=True, **more)
        result = train_adapter(some_pairs(), recipe, tmp_path / str(place), progress=None)
        reused.append(result.metrics["reference_reused"])
        assert result.log_history[0]["rewards/margins"] == pytest.approx(0.0, abs=1e-5)
    assert reused == [0.0, 0.0, 1.0]


@pytest.fixture
def registered(first, tiny_model_dir: Path, tmp_path: Path) -> AdapterRegistry:
    adapters = AdapterRegistry(tmp_path / "registry")
    folder = tmp_path / "adapter"
    shutil.copytree(first.adapter_dir, folder)
    manifest = tmp_path / "manifest.json"
    manifest.write_text("{}", "utf-8")
    adapters.register(
        describe_adapter(
            folder,
            "mine-1",
            base=resolve_base(str(tiny_model_dir)),
            persona_prompt_digest=FRAME_DIGEST,
            run_manifest=manifest,
        )
    )
    return adapters


def test_an_adapter_is_continued_by_its_name(registered, tiny_model_dir: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tiny_model_dir, epochs=1.0, continue_from="mine-1")
    result = train_adapter(some_pairs(), recipe, tmp_path / "run", progress=None, registry=registered.root)
    assert result.parent == "mine-1"


@pytest.fixture(scope="module")
def other_base(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "other"
    shutil.copytree(tiny_model_dir, folder)
    model = load_causal_lm(folder, dtype="float32")
    model.model.norm.weight.data += 0.5
    with quiet():
        model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("by", ["name", "registered folder", "folder"])
def test_an_adapter_of_another_base_is_refused(registered, other_base: Path, tmp_path: Path, by: str) -> None:
    adapters = registered if by != "folder" else AdapterRegistry(tmp_path / "empty")
    name = "mine-1" if by == "name" else str(tmp_path / "adapter")
    with pytest.raises(ConfigError, match=r"was trained on .*, whose weights are not those of other"):
        starting_point(name, resolve_base(str(other_base)), adapters.root)


def test_the_same_base_in_another_folder_is_the_same_base(first, tiny_model_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model_dir, copy)
    found = starting_point(str(first.adapter_dir), resolve_base(str(copy)), tmp_path / "empty")
    assert found is not None
    assert not found.registered


def test_what_cannot_be_continued_is_an_error_that_says_why(registered, tiny_model_dir: Path, tmp_path: Path) -> None:
    base = resolve_base(str(tiny_model_dir))
    with pytest.raises(ConfigError, match=r"neither a folder nor an adapter in .*there: mine-1"):
        starting_point("yours-1", base, registered.root)
    empty = tmp_path / "nothing"
    empty.mkdir()
    with pytest.raises(ArtefactError, match=r"holds no adapter_model\.safetensors"):
        starting_point(str(empty), base, registered.root)
    folder = tmp_path / "adapter"
    config = folder / "adapter_config.json"
    good = config.read_text("utf-8")
    config.write_text(good.replace('"LORA"', '"IA3"'), "utf-8")
    with pytest.raises(ConfigError, match="IA3"):
        starting_point(str(folder), base, registered.root)
    with pytest.raises(ArtefactError, match="changed since it was registered"):
        starting_point("mine-1", base, registered.root)
    config.write_text("{", "utf-8")
    with pytest.raises(ArtefactError, match="cannot be read"):
        starting_point(str(folder), base, registered.root)


def test_an_adapter_whose_weights_are_damaged_is_an_error(first, tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(first.adapter_dir, folder)
    (folder / "adapter_model.safetensors").write_bytes(b"not safetensors at all")
    recipe = tiny_recipe(tiny_model_dir, continue_from=str(folder))
    with pytest.raises(ArtefactError, match="does not fit the base"):
        train_adapter(
            [make_pair([("user", "hi")], "a", "b")], recipe, tmp_path / "run", progress=None, registry=tmp_path
        )
