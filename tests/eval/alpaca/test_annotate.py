"""alpaca_eval's judge against a real HTTP server that returns top log-probabilities."""

import json
import math
from dataclasses import replace

import pytest

from rlhi_eval_harness.alpaca.annotate import Judge, annotate
from rlhi_eval_harness.alpaca.package import alpaca_eval_module
from rlhi_eval_harness.alpaca.win_rates import win_rate
from rlhi_plugin.errors import ConfigError, ModelCallError
from rlhi_plugin.fake_provider import Answer, FakeProvider, HTTPFault, rate_limited

OURS = {i: f"a far better text {i}" for i in range(8)}


def prefers_ours(request, sure: float = 0.9):
    """A judge that finds our text better, wherever it stands, with probability `sure`."""
    text = request.last_user_text
    better = "m" if text.index("a far better text") < text.index("baseline text") else "M"
    worse = "M" if better == "m" else "m"
    logprobs = ((better, math.log(sure)), (worse, math.log(1 - sure)), ("The", -9.0))
    return Answer(better, finish_reason="length", top_logprobs=logprobs)


def test_preferences_are_the_judges_probabilities_in_either_order(small_set, tmp_path):
    with FakeProvider(prefers_ours) as provider:
        found = annotate(small_set, OURS, Judge(base_url=provider.base_url), tmp_path)
    assert [each.preference for each in found.annotations] == pytest.approx([1.9] * 8)
    assert win_rate(found.annotations).win_rate == pytest.approx(90.0)
    assert found.comparable
    assert found.judge_model == "gpt-4-1106-preview"
    bodies = [request.body for request in provider.requests]
    assert {(body["model"], body["max_tokens"], body["top_logprobs"]) for body in bodies} == {
        ("gpt-4-1106-preview", 1, 5)
    }
    # The order is drawn, so that a judge's taste for the first cannot decide.
    first = [
        request.last_user_text.index("a far") < request.last_user_text.index("base") for request in provider.requests
    ]
    assert 0 < sum(first) < 8
    assert json.loads(found.path.read_text("utf-8"))[0]["annotator"] == "weighted_alpaca_eval_gpt4_turbo"


def test_what_is_annotated_is_not_asked_again(small_set, tmp_path):
    with FakeProvider(prefers_ours) as provider:
        judge = Judge(base_url=provider.base_url)
        first = annotate(small_set[:5], OURS, judge, tmp_path)
        second = annotate(small_set, OURS, judge, tmp_path)
        assert len(provider.requests) == 8
    assert second.annotations[:5] == first.annotations
    assert not list(tmp_path.glob("client*")), "no trace of the client is left"


def test_equal_outputs_are_a_draw_without_asking(small_set, tmp_path):
    with FakeProvider(prefers_ours) as provider:
        same = {each.index: each.baseline_output for each in small_set}
        found = annotate(small_set, same, Judge(base_url=provider.base_url), tmp_path)
        assert provider.requests == ()
    assert [each.preference for each in found.annotations] == [1.5] * 8


def test_prose_and_refusals_are_unscored_and_can_be_asked_again(small_set, tmp_path):
    def moody(request):
        text = request.last_user_text
        if "thing 2" in text:
            return Answer("I", finish_reason="length", top_logprobs=(("I", -0.1), ("Both", -2.0)))
        if "thing 5" in text:
            return Answer("", refusal="I will not judge this.")
        return prefers_ours(request)

    with FakeProvider(moody) as provider:
        found = annotate(small_set, OURS, Judge(base_url=provider.base_url), tmp_path)
    unscored = [each.index for each in found.annotations if each.preference is None]
    assert unscored == [2, 5]
    assert found.identity.answered_by == {"gpt-4-1106-preview": 6}, "of what it cannot read alpaca_eval keeps nothing"
    rate = win_rate(found.annotations)
    assert rate.win_rate == pytest.approx(90.0)
    assert "not to be used" in rate.coverage.sentence()
    with FakeProvider(prefers_ours) as provider:
        annotate(small_set, OURS, Judge(base_url=provider.base_url), tmp_path)
        assert provider.requests == ()
        again = annotate(small_set, OURS, Judge(base_url=provider.base_url, retry_unscored=True), tmp_path)
        assert len(provider.requests) == 2
    assert all(each.preference is not None for each in again.annotations)


def test_another_model_and_an_annotator_of_ones_own(small_set, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "prompt.txt").write_text(
        "<|im_start|>user\nBetter for: {instruction}\n(1) {output_1}\n(2) {output_2}\n<|im_end|>", "utf-8"
    )
    (folder / "configs.yaml").write_text(
        "mine:\n  prompt_template: mine/prompt.txt\n  fn_completions: openai_completions\n"
        "  completions_kwargs: {model_name: some-judge, max_tokens: 5, temperature: 0}\n"
        "  completion_parser_kwargs: {outputs_to_match: {1: '1', 2: '2'}}\n  batch_size: 1\n",
        "utf-8",
    )

    def says_a_number(request):
        text = request.last_user_text
        return Answer("1" if text.index("a far better") < text.index("baseline") else "2")

    with FakeProvider(says_a_number) as provider:
        judge = Judge(annotator=str(folder), model="instruct-judge-7b", base_url=provider.base_url)
        found = annotate(small_set, OURS, judge, tmp_path / "out")
        assert {request.body["model"] for request in provider.requests} == {"instruct-judge-7b"}
    assert [each.preference for each in found.annotations] == [2.0] * 8
    assert not found.comparable


def test_a_rate_limit_is_waited_for(small_set, tmp_path):
    answered = []

    def busy(request):
        answered.append(request)
        return rate_limited() if len(answered) <= 2 else prefers_ours(request)

    with FakeProvider(busy) as provider:
        found = annotate(small_set[:3], OURS, Judge(base_url=provider.base_url, concurrency=1), tmp_path)
    assert [each.preference for each in found.annotations] == pytest.approx([1.9] * 3)


def test_a_wrong_key_is_a_failed_call_with_a_remedy(small_set, tmp_path):
    wrong_key = HTTPFault(401, "incorrect API key provided")
    with (
        FakeProvider([], then=lambda _: wrong_key) as provider,
        pytest.raises(ModelCallError, match="Check address, key and model"),
    ):
        annotate(small_set, OURS, Judge(base_url=provider.base_url), tmp_path)
    assert not list(tmp_path.glob("client*"))


def test_mistakes_are_named(small_set, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        Judge()
    with pytest.raises(ConfigError, match="weighted_alpaca_eval_gpt4_turbo"):
        annotate(small_set, OURS, Judge(annotator="no_such", base_url="http://127.0.0.1:9/v1"), tmp_path)
    bare = [type(each)(each.index, each.text, each.dataset, "") for each in small_set]
    with pytest.raises(ConfigError, match="no output of the baseline"):
        annotate(bare, OURS, Judge(base_url="http://127.0.0.1:9/v1"), tmp_path)


def _rows(found):
    return json.loads(found.path.read_text("utf-8"))


def test_every_annotation_carries_the_model_that_answered(small_set, tmp_path):
    """Also after the alias has moved: what is on record keeps its own, and the change is told."""

    def served_by(name):
        return lambda request: replace(prefers_ours(request), model=name)

    outputs = {**OURS, 7: small_set[7].baseline_output}
    with FakeProvider(served_by("gpt-4o-2024-08-06")) as provider:
        judge = Judge(model="gpt-4o", base_url=provider.base_url)
        first = annotate(small_set[:5], outputs, judge, tmp_path)
    assert first.identity.pin.kind == "alias"
    assert first.identity.answered_by == {"gpt-4o-2024-08-06": 5}
    with FakeProvider(served_by("gpt-4o-2024-11-20")) as provider:
        second = annotate(small_set, outputs, replace(judge, base_url=provider.base_url), tmp_path)
        assert len(provider.requests) == 2, "equal outputs are a draw without asking"
    assert second.identity.changed
    assert second.identity.answered_by == {"gpt-4o-2024-08-06": 5, "gpt-4o-2024-11-20": 2}
    assert second.identity.unnamed == 0
    names = {row["instruction"]: row["preference_answered_by"] for row in _rows(second)}
    assert [names[each.text] for each in small_set] == ["gpt-4o-2024-08-06"] * 5 + ["gpt-4o-2024-11-20"] * 2 + [None]
    # The file stays alpaca_eval's: its own functions read it, and its judge's replies are as they came.
    rate = alpaca_eval_module("metrics").get_winrate(_rows(second))["win_rate"]
    assert rate == pytest.approx(win_rate(second.annotations).win_rate)
    assert "served_by" not in json.dumps(_rows(second)[0]["preference_raw_completion"])


def test_annotations_from_before_models_were_on_record_count_as_unnamed(small_set, tmp_path):
    with FakeProvider(prefers_ours) as provider:
        judge = Judge(base_url=provider.base_url)
        annotate(small_set[:3], OURS, judge, tmp_path)
        cache = json.loads((tmp_path / "cache.json").read_text())
        old = [{key: value for key, value in row.items() if key != "preference_answered_by"} for row in cache]
        (tmp_path / "cache.json").write_text(json.dumps(old))
        found = annotate(small_set, OURS, judge, tmp_path)
        assert len(provider.requests) == 8
    assert (found.identity.answered_by, found.identity.unnamed) == ({"gpt-4-1106-preview": 5}, 3)


def test_an_alias_is_refused_before_anything_is_asked_or_written(small_set, tmp_path):
    with FakeProvider(prefers_ours) as provider:
        alias = Judge(model="gpt-4o", base_url=provider.base_url, require_pinned=True)
        with pytest.raises(ConfigError, match=r"--require-pinned-judge: gpt-4o \(nothing in the name"):
            annotate(small_set, OURS, alias, tmp_path / "new")
        assert provider.requests == ()
        assert not (tmp_path / "new").exists()
        found = annotate(small_set, OURS, replace(alias, model=None), tmp_path / "new")
    assert (found.identity.judge, found.identity.pin.kind) == ("gpt-4-1106-preview", "version")
