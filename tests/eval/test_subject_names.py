"""How subjects are written, and what they are refused for."""

import pytest

from rlhi_eval_harness.models import open_assistants
from rlhi_eval_harness.subjects import Subject, parse_subject, parse_subjects
from rlhi_plugin.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("base", Subject("base", "base", "none")),
        ("base+persona", Subject("base+persona", "base", "own")),
        ("adapter=runs/a+b/adapter+persona", Subject("adapter+persona", "adapter=runs/a+b/adapter", "own")),
        ("adapter+shuffled-persona", Subject("adapter+shuffled-persona", "adapter", "shuffled")),
        ("sft:adapter=x+persona", Subject("sft+persona", "adapter=x", "own")),
        (
            "endpoint=openai/m@http://127.0.0.1:80/v1",
            Subject("endpoint", "endpoint=openai/m@http://127.0.0.1:80/v1", "none"),
        ),
        ("gpt:outputs=a b.jsonl", Subject("gpt", "outputs=a b.jsonl", "none")),
        ("logged", Subject("logged", "logged", "none")),
    ],
)
def test_subjects_are_read(text, subject):
    assert parse_subject(text) == subject


@pytest.mark.parametrize("text", ["", "bas", "base=x", "outputs", "endpoint=", "base+memory", "a b:base", "logged=x"])
def test_what_is_no_subject_is_named(text):
    with pytest.raises(ConfigError, match=r"Write|write"):
        parse_subject(text)


def test_two_of_one_name_or_none_are_refused():
    with pytest.raises(ConfigError, match="two subjects are called adapter"):
        parse_subjects(["adapter=a", "adapter=b"])
    with pytest.raises(ConfigError, match="nobody to evaluate"):
        parse_subjects([])


def test_an_adapter_without_a_path_needs_one():
    with pytest.raises(ConfigError, match="Give --adapter"):
        open_assistants(parse_subjects(["adapter+persona"]))
