"""The set of names in shards: it answers as a dict does, over many merges, and searches columns as they lie."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_training.scale import digest_set
from rlhi_training.scale.digest_set import DigestSet


@given(
    st.lists(
        st.tuples(st.text(st.characters(codec=None), max_size=3), st.integers(0, 2**64 - 1)),
        max_size=60,
    ),
    st.integers(1, 9),
)
def test_it_answers_as_a_dict_does(given_names, new):
    known: dict[str, int] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digest_set, "_NEW", new)
        names = DigestSet()
        for name, value in given_names:
            assert names.first(name, value) == known.get(name)
            known.setdefault(name, value)
        assert [names.first(name, 0) for name in known] == list(known.values())


def test_no_column_has_to_be_copied_to_be_searched(monkeypatch):
    """numpy's search copies what does not lie together: with 500,000 names that took a millisecond at each of them."""
    monkeypatch.setattr(digest_set, "_NEW", 10)
    names = DigestSet()
    for number in range(1_000):
        assert names.first(str(number), number) is None
    assert sum(len(run.high) for run in names._runs) == 1_000
    assert len(names._runs) < 10
    assert all(column.flags.c_contiguous for run in names._runs for column in run)


def test_digests_that_begin_alike_are_told_apart():
    """The first half of a digest of 128 bits may be another name's too."""
    import numpy as np

    run = digest_set._Run(*(np.array(column, dtype=np.uint64) for column in ([5, 5, 7], [1, 2, 3], [10, 20, 30])))
    assert run.find(np.uint64(5), np.uint64(2)) == 20
    assert run.find(np.uint64(5), np.uint64(3)) is None
    assert run.find(np.uint64(8), np.uint64(3)) is None
