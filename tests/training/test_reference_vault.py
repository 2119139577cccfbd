"""The vault gives back what it was given for the same tokens under the same base, and breaks nothing."""

import logging
import multiprocessing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_training.reference_vault import ReferenceVault

ROWS = [([1, 2], [3]), ([1], [2, 3]), ([1, 2, 3], []), ([], [1, 2, 3])]


def vault(tmp_path, base="base", numbers="float32"):
    return ReferenceVault(tmp_path / "vault" / "reference.sqlite", base_digest=base, numbers=numbers)


def test_what_was_put_is_there_in_a_later_run(tmp_path) -> None:
    with vault(tmp_path) as first:
        assert first.get(ROWS) == [None] * 4
        first.put(ROWS[:3], [-1.5, -2.25, -1e-9])
    with vault(tmp_path) as later:
        assert later.get([*ROWS, ROWS[0]]) == [-1.5, -2.25, -1e-9, None, -1.5]


def test_another_base_or_number_format_knows_nothing_of_it(tmp_path) -> None:
    with vault(tmp_path) as first:
        first.put(ROWS, [0.0] * 4)
    for other in (vault(tmp_path, base="another"), vault(tmp_path, numbers="bfloat16")):
        with other:
            assert other.get(ROWS) == [None] * 4


@given(rows=st.lists(st.tuples(st.lists(st.integers(0, 3), max_size=4), st.lists(st.integers(0, 3), max_size=4))))
def test_rows_that_differ_have_entries_of_their_own(tmp_path_factory, rows) -> None:
    distinct = {(tuple(p), tuple(a)): float(n) for n, (p, a) in enumerate(rows)}
    with vault(tmp_path_factory.mktemp("v")) as kept:
        kept.put(list(distinct), list(distinct.values()))
        assert kept.get(list(distinct)) == list(distinct.values())


def test_many_rows(tmp_path) -> None:
    rows = [([n], [n + 1]) for n in range(2_000)]
    with vault(tmp_path) as kept:
        kept.put(rows, [float(n) for n in range(2_000)])
        assert kept.get(rows) == [float(n) for n in range(2_000)]


def _write(folder, start) -> None:
    with vault(folder) as kept:
        for n in range(start, start + 50):
            kept.put([([n], [n])], [float(n)])


def test_runs_share_it_at_the_same_time(tmp_path) -> None:
    context = multiprocessing.get_context("spawn")
    runs = [context.Process(target=_write, args=(tmp_path, start)) for start in (0, 50, 100)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
        assert run.exitcode == 0
    with vault(tmp_path) as kept:
        assert kept.get([([n], [n]) for n in range(150)]) == [float(n) for n in range(150)]


@pytest.mark.parametrize("damage", ["not a database", "a folder", "no folder"])
def test_a_vault_that_cannot_be_used_is_as_good_as_empty(tmp_path, caplog, damage) -> None:
    file = tmp_path / "vault" / "reference.sqlite"
    if damage == "no folder":
        (tmp_path / "vault").write_text("a file stands in the way", "utf-8")
    else:
        file.parent.mkdir()
        file.mkdir() if damage == "a folder" else file.write_text("this is no database at all " * 100, "utf-8")
    with caplog.at_level(logging.WARNING), vault(tmp_path) as kept:
        kept.put(ROWS, [0.0] * 4)
        assert kept.get(ROWS) == [None] * 4
    assert "computed anew" in caplog.text


def test_what_breaks_later_is_given_up(tmp_path, caplog) -> None:
    with vault(tmp_path) as kept:
        kept._connection.execute("DROP TABLE reference")
        assert kept.get(ROWS) == [None] * 4
        kept.put(ROWS, [0.0] * 4)
    assert "no such table" in caplog.text
