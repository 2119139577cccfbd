"""Checks with a measure: what holds, what does not, and names that mean nothing."""

from __future__ import annotations

import pytest

from rlhi_plugin.checkable import CODE_LANGUAGES, check, is_check, list_items, rivals, sentence_count
from rlhi_plugin.checks import CHECKS, word_count
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.text_language import TEXT_LANGUAGES, text_language

ENGLISH = "Give it six hours of light a day, and water it when the soil is dry."
GERMAN = "Gib ihr sechs Stunden Licht am Tag und gieße sie, wenn die Erde trocken ist."
TABLE = "Here it is:\n\n| plant | light |\n|---|:---:|\n| basil | much |\n"
LIST = "1. one\n2. two\n- three"


@pytest.mark.parametrize(
    ("name", "holds", "breaks"),
    [
        ("max_words:5", "Give it light and water.", ENGLISH),
        ("min_words:14", ENGLISH, "Give it light."),
        ("max_sentences:2", "Give it light. Water it, too!", "One. Two! Three?"),
        ("items:3", LIST, "- one\n- two"),
        ("table:yes", TABLE, "a | b, or --- a line\n---\n"),
        ("language:german", GERMAN, ENGLISH),
        ("language:english", ENGLISH, GERMAN),
        ("code_in:python", "```python\nx = 1\n```", "```js\nconst x = 1\n```"),
        ("code_in:python", "```\ndef water(plant):\n    return plant\n```", "Use Python for that."),
        ("code_in:c++", "```cpp\nint x;\n```", "```c\nint x;\n```"),
        ("code_in:sql", "```\nSELECT a FROM b;\n```", "```\nselect the plant\n```"),
        ("short", "Water it.", "word " * 31),
    ],
)
def test_a_check_holds_or_does_not(name, holds, breaks):
    assert check(name).name == name
    assert check(name).holds(holds)
    assert not check(name).holds(breaks)
    assert not check(name).holds("")
    assert check(name).instruction.endswith(".")
    assert check(name).description


def test_every_named_check_and_family_is_known():
    assert all(is_check(name) for name in CHECKS)
    assert all(is_check(f"code_in:{name}") for name in CODE_LANGUAGES)
    assert all(is_check(f"language:{name}") for name in TEXT_LANGUAGES)
    for name in ("", "max_words", "max_words:", "max_words:0", "max_words:x", "language:klingon", "shout", "table:no"):
        assert not is_check(name)
        with pytest.raises(ConfigError, match="no check"):
            check(name)


def test_rivals_cannot_both_be_granted():
    assert "language" in rivals("language:french")
    assert {"max_words", "min_words", "detailed"} == rivals("max_words:50")
    assert rivals("greeting") == frozenset()


def test_counting():
    assert sentence_count("Dr. Who? Yes! 3.5 is fine.") == 4
    assert sentence_count("") == 0
    assert list_items(LIST) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("two - words", 3),
        ("na\u00efve caf\u00e9 \u2014 bon", 4),
        ("물을 자주 주세요", 3),
        ("今天天气很好。", 3),
        ("用 Python 写一个函数!", 4),
        ("รดน้ำต้นไม้", 6),
    ],
)
def test_words_are_counted_where_nothing_stands_between_them(text, words):
    assert word_count(text) == words


def test_a_long_answer_in_chinese_is_not_short():
    text = "每天给植物六个小时的光,土干了再浇水。" * 12
    assert not check("short").holds(text)
    assert check("detailed").holds(text)
    assert not check("max_words:50").holds(text)


def test_the_language_of_code_and_crumbs_is_unknown():
    assert text_language(GERMAN) == "german"
    assert text_language("Hola") is None
    assert text_language(f"```\n{GERMAN}\n```") is None
    assert text_language(f"{ENGLISH}\n```\n{GERMAN * 9}\n```") == "english"
