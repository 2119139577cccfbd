"""Evaluation prompts in training pairs: found where half of one stands there, in the usual benchmarks' formats."""

from __future__ import annotations

import json
import os
import random
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi_plugin.errors import ConfigError
from rlhi_training.filters.contamination import EvaluationPrompts, read_prompts

PROMPT = (
    "Explain to a child of ten why the sky is blue in the daytime and red in the evening, and why it is black at night."
)


def test_half_of_a_prompt_is_found_and_less_is_not():
    index = EvaluationPrompts([PROMPT, "Name three fish."])
    words = PROMPT.split()
    assert len(index) == 2
    assert index.found_in(f"Hello! {PROMPT.upper()} Thanks.") == PROMPT[:80]
    assert index.found_in("Well then: " + " ".join(words[4:17]) + " and so on and so forth.") == PROMPT[:80]
    assert index.found_in("Well then: " + " ".join(words[4:14]) + " and so on and so forth.") is None
    scattered = " ".join(f"{word} indeed" for word in words)
    assert index.found_in(scattered) is None
    assert index.found_in("name three FISH") == "name three fish"
    assert index.found_in("Please name three fish that live in rivers and lakes of the north.") is None
    assert index.found_in("") is None
    assert EvaluationPrompts([PROMPT], share=1.0).found_in(" ".join(words[1:])) is None
    assert EvaluationPrompts([]).found_in(PROMPT) is None


def test_prompts_in_scripts_without_spaces_are_found_in_longer_texts():
    prompt = "请用三句话解释为什么天空在白天是蓝色的,而在傍晚是红色的。"
    index = EvaluationPrompts([prompt])
    assert index.found_in(f"你好!{prompt}谢谢。") == prompt
    assert index.found_in("请用三句话解释为什么天空在白天是蓝色的") == prompt
    assert index.found_in("请解释为什么天空是蓝色的") is None


@settings(max_examples=60, deadline=None)
@given(
    prompts=st.lists(st.lists(st.sampled_from(string.ascii_lowercase[:6]), min_size=3, max_size=14), max_size=5),
    text=st.lists(st.sampled_from(string.ascii_lowercase[:7]), max_size=30),
    ngram=st.integers(3, 5),
)
def test_the_index_agrees_with_counting(prompts, text, ngram):
    """Against the definition, written out: words of the prompt that are covered by common n-grams."""

    def covered(prompt: list[str]) -> float:
        if len(prompt) < ngram:
            return float(prompt == text)
        grams = {tuple(text[i : i + ngram]) for i in range(len(text) - ngram + 1)}
        marks = [0] * len(prompt)
        for i in range(len(prompt) - ngram + 1):
            if tuple(prompt[i : i + ngram]) in grams:
                marks[i : i + ngram] = [1] * ngram
        return sum(marks) / len(prompt)

    index = EvaluationPrompts([" ".join(p) for p in prompts], ngram=ngram)
    found = index.found_in(" ".join(text))
    best = max(map(covered, prompts), default=0.0)
    assert (found is not None) == (best >= 0.5)
    if found is not None and len(found) < 80:
        assert covered(found.split()) == best


def test_files_of_the_usual_forms_are_read(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "alpaca.json").write_text(json.dumps([{"instruction": "A a", "output": "no"}]))
    (tmp_path / "deep" / "arena.jsonl").write_text('{"turns": [{"content": "B b"}]}\n\n{"prompt": "C c", "uid": "u"}\n')
    (tmp_path / "mt.jsonl").write_text('{"turns": ["D d", "E e"], "note": "a\u2028b"}\n')
    (tmp_path / "own.txt").write_text("F f")
    (tmp_path / "picture.png").write_bytes(b"\x00")
    assert sorted(read_prompts([str(tmp_path)])) == ["A a", "B b", "C c", "D d", "E e", "F f"]
    assert list(read_prompts([str(tmp_path / "own.txt")])) == ["F f"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing", None, "Check it"),
        ("x.json", "{", "cannot read"),
        ("x.jsonl", '{"answer": "no"}\n', "no prompt found"),
    ],
)
def test_unusable_files_are_errors(tmp_path: Path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        list(read_prompts([str(path)]))


@pytest.fixture(scope="module")
def real_prompts() -> list[str]:
    root = Path(os.environ.get("RLHI_TEST_DATA") or Path(__file__).parents[4] / "shared" / "data")
    files = ["alpaca-eval-2/eval_set_805.jsonl", "arena-hard/arena-hard-v0.1/question.jsonl", "mt-bench/question.jsonl"]
    paths = [root / name for name in files]
    if not all(path.is_file() for path in paths):
        pytest.skip(f"evaluation sets are absent from {root}: set RLHI_TEST_DATA to the folder of real data")
    return list(read_prompts([str(path) for path in paths]))


def test_real_evaluation_sets_are_found_whole_and_in_pieces(real_prompts):
    assert len(real_prompts) >= 805 + 500 + 160
    index = EvaluationPrompts(real_prompts)
    order = random.Random(0)
    for prompt in order.sample(real_prompts, 200):
        assert index.found_in(prompt), prompt[:80]
        long = prompt.split()
        if len(long) > 40:
            assert index.found_in(" ".join(long[: int(len(long) * 0.7)])), prompt[:80]
