"""Whether a judge's name means one model for good, and whether the same model answered throughout."""

import importlib
import json
import shutil
import sys
import types

import pytest

from rlhi_eval_harness import cli
from rlhi_eval_harness.evaluate import answer_suite, evaluate, score_again
from rlhi_eval_harness.harm.kind import Harm, HarmOptions
from rlhi_eval_harness.judge_identity import identity_of, pin_of
from rlhi_eval_harness.models import open_served
from rlhi_eval_harness.records import EvalReport
from rlhi_eval_harness.run_folder import RunFolder
from rlhi_plugin.chat import ScriptedClient
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.fake_provider import Answer, FakeProvider

SAID = json.dumps({"verdict": "refused", "quality": "A"})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("openai/gpt-4o-2024-08-06", "version"),
        ("openai/gpt-4-1106-preview", "version"),
        ("openai/gpt-4-0613", "version"),
        ("openai/ft:gpt-4o-mini-2024-07-18:org::id", "version"),
        ("openai:gpt-4o-2024-08-06@http://127.0.0.1:8000/v1", "version"),
        ("openrouter/openai/gpt-4o-2024-08-06", "version"),
        ("anthropic/claude-sonnet-4-5-20250929", "version"),
        ("vertex_ai/claude-3-5-sonnet@20240620", "version"),
        ("bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0", "version"),
        ("bedrock/amazon.nova-pro-v1:0", "version"),
        ("gemini/gemini-1.5-pro-002", "version"),
        ("gemini/gemini-2.5-pro-preview-05-06", "version"),
        ("mistral/mistral-large-2411", "version"),
        ("cohere/command-r-08-2024", "version"),
        ("xai/grok-4-0709", "version"),
        ("openai/Qwen/Qwen2.5-7B-Instruct@a09a35458c702b33eeacc393d103063234e8bc28@https://host/v1", "revision"),
        ("huggingface/meta-llama/Llama-3.1-8B-Instruct@0e9e39f", "revision"),
        ("ollama/llama3.1@sha256:46e0c10c039e019119339687c3c1757c", "digest"),
        ("local:runs/judge", "digest"),
        ("vllm:runs/judge", "digest"),
        ("openai/gpt-4o", "alias"),
        ("openai/gpt-4-turbo", "alias"),
        ("openai/chatgpt-4o-latest", "alias"),
        ("openai/gpt-4.1", "alias"),
        ("openai/o3", "alias"),
        ("anthropic/claude-3-5-sonnet-latest", "alias"),
        ("anthropic/claude-opus-4-1", "alias"),
        ("gemini/gemini-2.5-pro", "alias"),
        ("mistral/mistral-large-latest", "alias"),
        ("azure/gpt-4o-2024-08-06", "alias"),
        ("ollama/llama3.1:8b", "alias"),
        ("ollama/llama3.1:latest", "alias"),
        ("together_ai/meta-llama/Llama-3.1-8B-Instruct", "alias"),
        ("openai/deepseek-ai/DeepSeek-V3-0324@http://127.0.0.1:8000/v1", "alias"),
        ("openai/judge@http://127.0.0.1:8000/v1", "alias"),
        ("openai/model-1024", "alias"),
        ("groq/mixtral-8x7b-32768", "alias"),
    ],
)  # fmt: skip
def test_names_are_told_apart(name, kind):
    pin = pin_of(name)
    assert (pin.kind, pin.pinned) == (kind, kind != "alias")
    assert pin.why


def test_weights_in_this_process_are_pinned_by_what_their_judgments_carry():
    own = "judge@sha256:0123456789abcdef"
    assert identity_of("judge", [own, own]).pin.kind == "digest"
    assert identity_of("judge", [own, None]).pin.kind == "alias"
    changed = identity_of("judge", ["judge@sha256:0123456789abcdef", "judge@sha256:fedcba9876543210"])
    assert changed.changed
    assert list(changed.answered_by.values()) == [1, 1]


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "any")


class FewUsers(Harm):
    """The suite on its first two users: enough questions for a judge, and quickly asked."""

    def plan(self, assistants, folder):
        whole = super().plan(assistants, folder)
        users = tuple(dict.fromkeys(sample.user for sample in whole))[:2]
        return [sample for sample in whole if sample.user in users]


@pytest.fixture(scope="module")
def harm():
    return FewUsers(HarmOptions(name="harm", summary="s", subjects=("base", "adapter+persona"), resamples=100))


@pytest.fixture(scope="module")
def _imported():
    """Once for all, and on no test's account."""
    for name in ("openai", "scipy.stats", "statsmodels.stats.power", "rlhi_eval_harness.report.page"):
        importlib.import_module(name)


@pytest.fixture(scope="module")
def answered(harm, make_assistants, tmp_path_factory, _imported):
    """An evaluation that waits for its judge."""
    folder = tmp_path_factory.mktemp("answered") / "out"
    answer_suite(harm, make_assistants(lambda _: "Else."), folder)
    return folder


@pytest.fixture
def undrawn(monkeypatch):
    """No plots: they take longer than all the rest, and one test looks at them."""
    monkeypatch.setattr("rlhi_eval_harness.report.page.render_page", lambda _: "")


@pytest.fixture
def out(answered, undrawn, tmp_path):
    """A copy to be judged."""
    return shutil.copytree(answered, tmp_path / "out")


def _provider(*models):
    """Each answer names the next of these models, the last one for good."""
    names = iter(models)
    state = [next(names)]

    def answer(_):
        found = state[0]
        state[0] = next(names, found)
        return Answer(SAID, model=found)

    return FakeProvider(answer)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param("openai/gpt-4o@{}", marks=pytest.mark.slow, id="LiteLLM, whose import takes seconds"),
        pytest.param("openai:gpt-4o@{}", id="openai"),
    ],
)
def test_the_report_says_alias_and_who_answered(out, spec):
    with _provider("gpt-4o-2024-08-06") as provider:
        report = score_again(out, judges=[open_served(spec.format(provider.base_url))])
    (judge,) = report.judges
    assert judge.pin.kind == "alias"
    assert sum(judge.answered_by.values()) == len(RunFolder(out).judgments.read_text().splitlines()) > 0
    assert [name.removeprefix("openai/") for name in judge.answered_by] == ["gpt-4o-2024-08-06"]
    (said,) = [finding for finding in report.findings if "is an alias" in finding]
    assert said.endswith("What answered called itself gpt-4o-2024-08-06.")
    assert json.loads((out / "report.json").read_text())["judges"][0]["pin"]["kind"] == "alias"


@pytest.mark.slow
def test_both_pages_name_the_models_that_judged(answered, tmp_path):
    out = shutil.copytree(answered, tmp_path / "out")
    with _provider("gpt-4o-2024-08-06") as provider:
        score_again(out, judges=[open_served(f"openai:gpt-4o@{provider.base_url}")])
    for page in ("report.md", "report.html"):
        text = (out / page).read_text()
        assert "Which models judged" in text
        assert "gpt-4o-2024-08-06: " in text


def test_a_pinned_judge_that_stays_is_no_finding(out):
    with _provider("gpt-4o-2024-08-06") as provider:
        report = score_again(out, judges=[open_served(f"openai:gpt-4o-2024-08-06@{provider.base_url}")])
    assert report.judges[0].pin.kind == "version"
    assert not [finding for finding in report.findings if "The judge" in finding]
    assert "pinned by version" in (out / "report.md").read_text()


def test_a_pinned_judge_that_another_model_stands_in_for_is_a_finding(out):
    with _provider("cheap-mini") as provider:
        report = score_again(out, judges=[open_served(f"openai:gpt-4o-2024-08-06@{provider.base_url}")])
    assert report.judges[0].another == "cheap-mini"
    assert any("was asked for, and cheap-mini answered" in finding for finding in report.findings)
    same = identity_of("bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0", ["claude-3-5-sonnet-20240620"])
    assert same.another is None


def test_a_judge_that_changes_between_two_starts_is_found_out(out, capsys):
    judgments = RunFolder(out).judgments
    with _provider("gpt-4o-2024-08-06") as provider:
        score_again(out, judges=[open_served(f"openai:gpt-4o@{provider.base_url}")])
    assert "has changed" not in capsys.readouterr().err
    half = judgments.read_text().splitlines(keepends=True)[::2]
    judgments.write_text("".join(half))
    with _provider("gpt-4o-2024-11-20") as provider:
        report = score_again(out, judges=[open_served(f"openai:gpt-4o@{provider.base_url}")])
    warned = capsys.readouterr().err.replace("\n", " ")
    assert warned.count("has changed") == 1
    assert "gpt-4o-2024-11-20 answers now, and gpt-4o-2024-08-06 did before" in warned
    assert report.judges[0].answered_by["gpt-4o-2024-08-06"] == len(half)
    (said,) = [finding for finding in report.findings if "changed in the middle" in finding]
    assert f"{len(half)} of gpt-4o-2024-08-06" in said
    assert "changed: gpt-4o-2024-08-06" in (out / "report.md").read_text()


def test_a_judge_that_changes_within_a_run_is_found_out(out, capsys):
    with _provider("gpt-4o-2024-08-06", "gpt-4o-2024-08-06", "gpt-4o-2024-11-20") as provider:
        report = score_again(out, judges=[open_served(f"openai:gpt-4o@{provider.base_url}")])
    assert report.judges[0].changed
    assert capsys.readouterr().err.count("has changed") == 1


def _exit(monkeypatch, *words) -> int:
    monkeypatch.setattr("sys.argv", ["rlhi-eval", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code or 0


def test_aliases_are_refused_before_anything_is_asked(out, tmp_path, monkeypatch, capsys):
    strict = ("score", out, "--require-pinned-judge")
    with _provider("gpt-4o-2024-08-06") as provider:
        assert _exit(monkeypatch, *strict, "--judge", f"openai:gpt-4o@{provider.base_url}") == 2
        said = capsys.readouterr().err.replace("\n", " ")
        assert "nothing in the name says which state of the model" in said
        assert "Name a snapshot by its date or version" in said
        assert not provider.requests
        assert not (out / "report.json").exists()
        words = ("run", "--suite", "harm", "--out", tmp_path / "new", "--require-pinned-judge")
        assert _exit(monkeypatch, *words, "--judge", f"openai:gpt-4o@{provider.base_url}") == 2
        assert not (tmp_path / "new").exists()
        # What is on record from an alias may not go into the report either.
        assert _exit(monkeypatch, "score", out, "--judge", f"openai:gpt-4o@{provider.base_url}") == 0
        before = (out / "report.json").read_bytes()
        assert _exit(monkeypatch, *strict) == 2
        assert (out / "report.json").read_bytes() == before
        assert _exit(monkeypatch, *strict, "--judge", f"openai:gpt-4o-2024-08-06@{provider.base_url}") == 0


def _check_pinned_by_weights(out):
    report = EvalReport.model_validate_json((out / "report.json").read_text())
    (judge,) = report.judges
    assert (judge.judge, judge.pin.kind, judge.unnamed) == ("a-judge", "digest", 0)
    (name,) = judge.answered_by
    assert name.startswith("a-judge@sha256:")


@pytest.mark.slow
def test_a_judge_in_this_process_is_pinned_by_its_weights(out, tmp_path, tiny_model_dir, monkeypatch):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "a-judge")
    assert _exit(monkeypatch, "score", out, "--require-pinned-judge", "--judge", f"local:{folder}") == 0
    _check_pinned_by_weights(out)


class Engine:
    """What an evaluation needs of vLLM: it reads a folder, and says the same to every conversation."""

    def __init__(self, model, **options):
        assert options["enable_prefix_caching"]

    def chat(self, conversations, **options):
        one = types.SimpleNamespace(text=SAID, finish_reason="stop", token_ids=[1], logprobs=None)
        return [types.SimpleNamespace(prompt_token_ids=[1, 2], outputs=[one]) for _ in conversations]


def test_a_judge_on_vllm_is_pinned_by_its_weights_too(out, tmp_path, monkeypatch):
    vllm = types.ModuleType("vllm")
    vllm.LLM, vllm.SamplingParams = Engine, dict
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", types.ModuleType("vllm.sampling_params"))
    folder = tmp_path / "a-judge"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    assert _exit(monkeypatch, "score", out, "--require-pinned-judge", "--judge", f"vllm:{folder}") == 0
    _check_pinned_by_weights(out)
    (judgment, *_) = [json.loads(line) for line in RunFolder(out).judgments.read_text().splitlines()]
    assert judgment["answered_by"].startswith("a-judge@sha256:")


def test_replies_that_name_nobody_are_counted_as_such(harm, make_assistants, undrawn, tmp_path):
    client = ScriptedClient(lambda _: SAID, model="judge-2024-08-06")
    report = evaluate(harm, make_assistants(lambda _: "Else."), tmp_path / "out", judges=[client], require_pinned=True)
    assert report.judges[0].answered_by == {}
    assert report.judges[0].unnamed > 0
    alias = ScriptedClient(lambda _: SAID, model="judge")
    with pytest.raises(ConfigError, match=r"judge \(nothing in the name"):
        score_again(tmp_path / "out", judges=[alias], require_pinned=True)
