"""alpaca_eval's judge against a real HTTP server that returns top log-probabilities."""

import json
import math

import pytest

from rlhi_eval_harness.alpaca.annotate import Judge, annotate
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
