"""`rlhi-eval` from its options to its exit codes, with a random model of two layers and a random adapter."""

import json
import shutil
import warnings

import pytest
from typer.testing import CliRunner

from rlhi_adapters.base_models import resolve_base
from rlhi_adapters.registry import AdapterRegistry, describe_adapter
from rlhi_eval_harness import cli
from rlhi_eval_harness.adapter_folders import AdapterFolder, read_adapter_folder, read_registered_adapter
from rlhi_eval_harness.models import open_assistants
from rlhi_eval_harness.records import EvalReport
from rlhi_eval_harness.subjects import parse_subjects
from rlhi_eval_harness.suites import simulated_users
from rlhi_plugin.errors import ArtefactError, ConfigError
from rlhi_plugin.persona import FRAME_DIGEST

RUN = CliRunner()
SETTINGS = [
    *("--set", "users=2", "--set", "requests=1", "--set", "max_new_tokens=6", "--set", "resamples=100"),
    *("--set", "habits.requests_per_thread=1", "--set", "habits.patience=1"),
]


@pytest.fixture(scope="module")
def adapter(tiny_model_dir, tmp_path_factory):
    """A LoRA adapter of the tiny model whose weights are not zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    with warnings.catch_warnings():
        # peft asks transformers for an attribute under its old name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        tuned = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    folder = tmp_path_factory.mktemp("run") / "adapter"
    tuned.save_pretrained(folder)
    return folder


@pytest.fixture
def no_embeddings(monkeypatch, labeller):
    """The suite names the embedded labeller, which takes seconds to load; its own tests load it."""
    asked = []
    monkeypatch.setattr(simulated_users, "load_labeller", lambda name: asked.append(name) or labeller)
    return asked


def test_an_adapter_is_evaluated_from_the_command_line(adapter, no_embeddings, tmp_path):
    out = tmp_path / "report"
    command = ["run", "--suite", "tiny", "--adapter", str(adapter), "--out", str(out), *SETTINGS]
    first = RUN.invoke(cli.app, command, catch_exceptions=False)
    assert first.exit_code == 0
    assert no_embeddings == ["embedded"]
    assert "The adapter" in first.stdout
    assert f"report: {out / 'report.html'}" in first.stdout.replace("\n", "")
    report = EvalReport.model_validate_json((out / "report.json").read_text())
    assert len(report.samples) == 2 * 1 * 5
    models = report.config["models"]
    assert models["adapter"] == str(adapter)
    assert len(models["weights_digest"]) == len(models["base_digest"]) == 64
    answers = {sample.sample_id: sample.output for sample in report.samples}
    pairs = [(answers[id_], answers[id_.replace("/base", "/adapter")]) for id_ in answers if id_.endswith("/base")]
    assert any(base != adapted for base, adapted in pairs)
    again = RUN.invoke(cli.app, command, catch_exceptions=False)
    assert again.exit_code == 0
    repeated = EvalReport.model_validate_json((out / "report.json").read_text())
    assert repeated.samples == report.samples
    scored = RUN.invoke(cli.app, ["score", str(out)], catch_exceptions=False)
    assert scored.exit_code == 0
    assert report.findings[0].split(":")[0] in scored.stdout


def test_suites_are_listed_with_their_options():
    listed = RUN.invoke(cli.app, ["suites"], catch_exceptions=False).stdout
    assert all(name in listed for name in ("smoke", "smoke_small", "tiny"))
    options = RUN.invoke(cli.app, ["suites", "--options"], catch_exceptions=False, env={"COLUMNS": "200"}).stdout
    assert all(name in options for name in ("max_new_tokens", "temperature", "wordings"))


def test_no_adapter_folder_is_the_users_mistake(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no adapter folder.*rlhi-train"):
        read_adapter_folder(tmp_path / "absent")


def test_a_folder_that_is_no_adapter_is_refused(adapter, tmp_path):
    with pytest.raises(ConfigError, match=r"no adapter_config\.json and no adapter_model\.safetensors"):
        read_adapter_folder(tmp_path)
    shutil.copy(adapter / "adapter_config.json", tmp_path)
    with pytest.raises(ConfigError, match=r"it has no adapter_model\.safetensors"):
        read_adapter_folder(tmp_path)


def test_an_adapter_of_another_base_is_refused(adapter):
    with pytest.raises(ConfigError, match="not to smollm2-135m-instruct"):
        read_adapter_folder(adapter, base="smollm2-135m-instruct")


def test_adapters_and_controls_are_subjects_of_one_run(adapter, tmp_path):
    out, second = tmp_path / "out", shutil.copytree(adapter, tmp_path / "second")
    words = [
        "run",
        "--suite",
        "harm",
        "--out",
        str(out),
        "--subject",
        "base",
        "--subject",
        f"adapter={adapter}+persona",
    ]
    words += ["--subject", f"sft:adapter={second}", "--subject", "base+shuffled-persona"]
    done = RUN.invoke(cli.app, [*words, "--set", "max_new_tokens=3", "--set", "resamples=100"], catch_exceptions=False)
    assert done.exit_code == 0
    report = EvalReport.model_validate_json((out / "report.json").read_text())
    answers = {sample.sample_id: sample.output for sample in report.samples}
    assert len(answers) == 12 * 7 * 4
    plain = [name for name in answers if name.endswith("/base")]
    # The same weights answer alike under two names, and unlike the base.
    twins = [(answers[name.replace("/base", "/sft")], answers[name]) for name in plain]
    assert sum(adapted != base for adapted, base in twins) > len(plain) / 2
    assert {name for name in report.config["models"] if name.endswith(":weights_digest")}
    assert {(each.subject, each.versus) for each in report.differences} == {
        ("adapter+persona", "base"), ("sft", "base"), ("base+shuffled-persona", "base"),
    }  # fmt: skip
    assert report.config["judging"] == []
    assert "not_judged" in {score.unscored for score in report.scores if score.metric == "quality_without_history"}


def test_adapters_of_two_bases_are_refused(adapter, tmp_path):
    other = shutil.copytree(adapter, tmp_path / "other")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "smollm2-135m-instruct"})
    )
    subjects = parse_subjects([f"adapter={adapter}", f"sft:adapter={other}"])
    with pytest.raises(ConfigError, match="belong to different bases"):
        open_assistants(subjects)
    with pytest.raises(ConfigError, match="belongs to smollm2-135m-instruct, not to"):
        open_assistants(subjects, base=config["base_model_name_or_path"])


def test_an_adapter_that_names_no_base_needs_the_option(adapter, tmp_path):
    shutil.copytree(adapter, tmp_path / "a")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (tmp_path / "a/adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": None}))
    with pytest.raises(ConfigError, match="--base"):
        read_adapter_folder(tmp_path / "a")
    assert read_adapter_folder(tmp_path / "a", base="mine").base == "mine"
    (tmp_path / "a/adapter_config.json").write_text("[]")
    with pytest.raises(ArtefactError, match="names no base model"):
        read_adapter_folder(tmp_path / "a")


def test_a_registered_adapter_is_checked_against_its_record(adapter, tiny_model_dir, tmp_path):
    base = resolve_base(str(tiny_model_dir))
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    registry = AdapterRegistry(tmp_path / "registry")
    for name, frame in (("mine", FRAME_DIGEST), ("older", "0" * 64)):
        record = describe_adapter(
            folder, name, base=base, persona_prompt_digest=frame, run_manifest=tmp_path / "manifest.json"
        )
        registry.register(record)
    found = read_registered_adapter(registry.root, "mine")
    assert (found.path, found.base, found.base_digest) == (folder, base.name, base.digest)
    with pytest.raises(ArtefactError, match="another persona frame"):
        read_registered_adapter(registry.root, "older")
    with pytest.raises(ConfigError, match="not to other"):
        read_registered_adapter(registry.root, "mine", base="other")
    with pytest.raises(ConfigError, match="no adapter named 'absent'"):
        read_registered_adapter(registry.root, "absent")
    changed = AdapterFolder(folder, str(tiny_model_dir), base_digest="0" * 64)
    with pytest.raises(ConfigError, match="trained on other weights"):
        open_assistants(parse_subjects(["adapter"]), adapter=changed)


def test_mistakes_exit_with_two_and_failures_with_one(tmp_path, monkeypatch, capsys):
    def exit_code(*words: str) -> int:
        monkeypatch.setattr("sys.argv", ["rlhi-eval", *words])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code

    out = ["--out", str(tmp_path / "out")]
    assert exit_code("run", "--adapter", str(tmp_path / "absent"), *out) == 2
    assert exit_code("run", "--adapter", "a", "--suite", "absent", *out) == 2
    assert exit_code("run", "--adapter", "a", "--registry", str(tmp_path / "absent"), *out) == 2
    assert exit_code("run", *out) == 2
    assert exit_code("score", str(tmp_path)) == 2
    assert "rlhi-eval run" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
