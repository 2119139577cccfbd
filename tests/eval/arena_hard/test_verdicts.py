"""What judges write, and what is made of it."""

import pytest

from rlhi_eval_harness.arena_hard.verdicts import LABELS, games_of, known_label, read_verdict


@pytest.mark.parametrize("version", ["v0.1", "v2.0"])
@pytest.mark.parametrize("label", ["A>>B", "A>B", "A=B", "B>A", "B>>A"])
def test_the_five_verdicts(version, label):
    assert read_verdict(f"Both are fine.\n\nMy final verdict is: [[{label}]].", version) == (label, None)


@pytest.mark.parametrize(
    ("text", "first_version", "second_version"),
    [
        ("[[A>B]] at first, but then [[B>A]]", None, "B>A"),
        ("[[A>B]], I repeat: [[A>B]]", "A>B", "A>B"),
        ("verdict: [B>A]", None, "B>A"),
        ("verdict: [[b>>a]]", None, "B>>A"),
        ("[[A<<B]]", "A<<B", "A<<B"),
    ],
)
def test_the_versions_differ(text, first_version, second_version):
    assert read_verdict(text, "v0.1")[0] == first_version
    assert read_verdict(text, "v2.0")[0] == second_version


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "said nothing"),
        ("I think that A is better than B.", "no verdict"),
        ("I cannot help with that.", "no verdict"),
        ("[[A>>>B]]", "none of the five"),
        ("[[C]]", "no verdict"),
    ],
)
@pytest.mark.parametrize("version", ["v0.1", "v2.0"])
def test_anything_else_is_unscored_with_a_reason(version, text, reason):
    label, why = read_verdict(text, version)
    assert label is None
    assert reason in why


def test_stored_labels_come_with_and_without_brackets():
    assert known_label("[[A=B]]") == known_label("A=B") == ("A=B", None)
    assert known_label(None)[0] is None
    assert known_label(3)[0] is None


def test_the_model_is_b_in_the_first_game_and_a_in_the_second():
    first, second = games_of("q", [("A>>B", None), ("A>B", None)])
    assert (first.model_first, first.win, first.weight) == (False, 0.0, 3)
    assert (second.model_first, second.win, second.weight) == (True, 1.0, 1)


def test_mirrored_labels_mean_the_same():
    for label, mirrored in {"A>>B": "B<<A", "A>B": "B<A", "A=B": "B=A", "B>A": "A<B", "B>>A": "A<<B"}.items():
        assert LABELS[label] == LABELS[mirrored]
