"""Prefix trees: every token sees exactly its own row's past, wherever it is laid out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_training.tree.prefix_tree import Layout, plant

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=8)
COST = st.sampled_from([0, 1, 10, 1000, 10**9])


@given(rows=ROWS, cost=COST, sparse=st.booleans())
def test_a_rows_path_spells_the_row(rows: list[list[int]], cost: int, sparse: bool) -> None:
    forest = plant(rows, Layout(linear_cost=cost, sparse=sparse))
    tokens, depth = forest.tokens.ravel(), forest.depth.ravel()
    for row, path in zip(rows, forest.rows, strict=True):
        assert tokens[path].tolist() == row
        assert depth[path].tolist() == list(range(len(row)))
        assert forest.parent[path[1:]].tolist() == path[:-1].tolist()
        assert forest.parent[path[0]] == path[0]


@given(rows=ROWS, cost=COST, sparse=st.booleans())
def test_the_mask_lets_a_token_see_exactly_its_own_rows_prefix(rows: list[list[int]], cost: int, sparse: bool) -> None:
    forest = plant(rows, Layout(linear_cost=cost, sparse=sparse))
    width = forest.tokens.shape[1]
    mask = forest.mask()
    for path in forest.rows:
        for place in range(len(path)):
            line, i = divmod(int(path[place]), width)
            seen = np.flatnonzero(mask[line, i]) + line * width
            assert seen.tolist() == path[: place + 1].tolist()


@given(rows=ROWS, cost=COST, sparse=st.booleans())
def test_nothing_is_computed_that_no_row_needs(rows: list[list[int]], cost: int, sparse: bool) -> None:
    forest = plant(rows, Layout(linear_cost=cost, sparse=sparse))
    used = np.unique(np.concatenate(forest.rows))
    assert len(used) == forest.nodes <= sum(map(len, rows))
    padding = np.setdiff1d(np.arange(forest.tokens.size), used)
    width = forest.tokens.shape[1]
    # Padding sees itself, so that softmax has something to normalise, and nothing sees padding.
    for place in padding.tolist():
        line, i = divmod(place, width)
        assert np.flatnonzero(forest.mask()[line, i]).tolist() == [i]
        assert np.flatnonzero(forest.mask()[line, :, i]).tolist() == [i]


@given(rows=ROWS)
def test_when_attention_is_free_every_common_prefix_is_computed_once(rows: list[list[int]]) -> None:
    prefixes = {tuple(row[: n + 1]) for row in rows for n in range(len(row))}
    assert plant(rows, Layout(linear_cost=10**9)).nodes == len(prefixes)


def test_only_rows_that_may_share_do() -> None:
    rows = [[1] * 20 + [2], [1] * 20 + [3], [1] * 20 + [4], [1] * 20 + [5]]
    forest = plant(rows, together=[[0, 2], [1, 3]])
    assert forest.nodes == 2 * 22
    assert set(forest.rows[0]) & set(forest.rows[2])
    assert not set(forest.rows[0]) & set(forest.rows[1])
    assert [forest.tokens.ravel()[path].tolist() for path in forest.rows] == rows


@pytest.mark.parametrize("block", [1, 4, 128])
def test_lines_come_in_whole_blocks(block: int) -> None:
    forest = plant([[1, 2, 3, 4, 5], [6]], Layout(block=block))
    assert forest.tokens.shape[1] % block == 0
    assert forest.nodes == 6


def test_a_conversation_is_one_tree() -> None:
    """persona, u1 -> {rewrite 1 | original 1, u2 -> {rewrite 2 | original 2}}"""
    persona, first, second = [1] * 20, [2] * 5, [3] * 5
    original = [4] * 10
    rows = [
        persona + first + [5] * 10,
        persona + first + original,
        persona + first + original + second + [6] * 10,
        persona + first + original + second + [7] * 10,
    ]
    forest = plant(rows)
    assert forest.tokens.shape == (1, forest.nodes)
    assert forest.nodes == 20 + 5 + 10 + 10 + 5 + 10 + 10


def test_a_short_common_beginning_is_no_reason_for_one_long_tree() -> None:
    rows = [[1, 2, 3, 10 + i] + [20 + i] * 400 for i in range(6)]
    forest = plant(rows)
    assert forest.tokens.shape == (6, 404)


def test_short_trees_share_a_line() -> None:
    forest = plant([[1] * 100, [2] * 40, [3] * 50, [4] * 10])
    assert forest.tokens.shape == (2, 100)
    assert forest.nodes == 200


@given(rows=ROWS)
def test_where_attention_is_sparse_nothing_is_padded(rows: list[list[int]]) -> None:
    forest = plant(rows, Layout(sparse=True))
    assert forest.tokens.shape == (1, forest.nodes)


def test_where_attention_is_sparse_a_first_turn_is_shared_with_the_turns_after_it() -> None:
    """A dense mask would let the long branch see every token of the short one, and throw most of it away."""
    first = [1] * 200
    rows = [first + [2] * 250, first + [3] * 1600]
    assert plant(rows, Layout(sparse=True)).tokens.shape == (1, 200 + 250 + 1600)
    assert plant(rows).tokens.shape == (2, 1800)


def test_where_attention_is_sparse_a_greeting_is_not_shared() -> None:
    rows = [[1] * 9 + [10 + i] * 90 for i in range(3)]
    assert plant(rows, Layout(sparse=True)).nodes == 3 * 99


@pytest.mark.parametrize("rows", [[], [[]], [[1], []]])
def test_empty_rows_are_refused(rows: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="tokens in each"):
        plant(rows)
