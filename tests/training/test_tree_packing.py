"""Passes under a token budget: every pair in one, none too large, trees whole where they fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_training.tree.bins import first_fit_decreasing
from rlhi_training.tree.packing import pair_tokens, plan_packs, plan_padded
from rlhi_training.tree.prefix_tree import Layout, plant, tree_tokens

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=25)
ROWS = st.lists(st.integers(0, 2), min_size=1, max_size=9)
LAYOUTS = st.sampled_from([Layout(), Layout(sparse=True), Layout(sparse=True, block=4)])
PAIRS = st.lists(st.tuples(ROWS, ROWS), min_size=1, max_size=7)


@given(sizes=SIZES, spare=st.integers(0, 60))
def test_bins_hold_every_item_once_and_are_few(sizes, spare) -> None:
    capacity = max(sizes) + spare
    bins = first_fit_decreasing(sizes, capacity)
    assert sorted(item for held in bins for item in held) == list(range(len(sizes)))
    loads = [sum(sizes[item] for item in held) for held in bins]
    assert max(loads) <= capacity
    # The bound that the docstring names, against what no packing can beat.
    fewest = max(-(-sum(sizes) // capacity), sum(2 * size > capacity for size in sizes))
    assert len(bins) <= 11 / 9 * max(fewest, _fewest(sizes, capacity)) + 6 / 9
    assert first_fit_decreasing(sizes, capacity) == bins


def _fewest(sizes, capacity) -> int:
    """A bound of Martello and Toth: items of one class go into bins of their own as far as they must."""
    best = 0
    for small in range(capacity // 2 + 1):
        large = sum(size > capacity - small for size in sizes)
        middle = [size for size in sizes if capacity - small >= size > capacity / 2]
        rest = sum(size for size in sizes if capacity / 2 >= size >= small)
        spare = len(middle) * capacity - sum(middle)
        best = max(best, large + len(middle) + max(0, -(-(rest - spare) // capacity)))
    return best


def test_an_item_larger_than_a_bin_is_refused() -> None:
    with pytest.raises(ValueError, match="an item of 9 fits no bin of 8"):
        first_fit_decreasing([3, 9], 8)


def _rows(pairs):
    return [list(chosen) for chosen, _ in pairs] + [list(rejected) for _, rejected in pairs]


@given(pairs=PAIRS, spare=st.integers(0, 30), pairwise=st.booleans(), layout=LAYOUTS)
def test_passes_hold_every_pair_once_within_the_budget(pairs, spare, pairwise, layout) -> None:
    rows = _rows(pairs)
    budget = max(tree_tokens([chosen, rejected]) for chosen, rejected in pairs) + spare
    packs, _ = plan_packs(rows, budget, layout, pairwise=pairwise)
    assert sorted(pair for pack in packs for pair in pack.pairs) == list(range(len(pairs)))
    for pack in packs:
        part = _rows([pairs[pair] for pair in pack.pairs])
        forest = plant(part, layout, together=pack.together, budget=budget)
        assert forest.nodes == pack.tokens <= budget
        # In blocks, the last one is filled up.
        assert forest.tokens.size < budget + layout.block
        for row, path in zip(part, forest.rows, strict=True):
            assert forest.tokens.ravel()[path].tolist() == row


@given(lengths=SIZES, budget=st.integers(20, 300))
def test_padded_passes_hold_every_pair_once_within_the_budget(lengths, budget) -> None:
    packs = plan_padded(lengths, budget)
    assert sorted(pair for pack in packs for pair in pack.pairs) == list(range(len(lengths)))
    for pack in packs:
        assert pack.tokens == 2 * len(pack.pairs) * max(lengths[pair] for pair in pack.pairs)
        assert pack.tokens <= budget or len(pack.pairs) == 1


def a_conversation(start: int, turns: int):
    context, pairs = [start] * 20, []
    for turn in range(turns):
        context = [*context, *[start + 10 * turn + 1] * 4]
        original = [start + 10 * turn + 2] * 8
        pairs.append(([*context, *[start + 10 * turn + 3] * 6], [*context, *original]))
        context = [*context, *original]
    return pairs


def test_conversations_stay_whole_where_they_fit() -> None:
    """Each has 20 tokens of persona, and 18 a turn."""
    pairs = [*a_conversation(1000, 3), *a_conversation(2000, 2), *a_conversation(3000, 1)]
    packs, cut = plan_packs(_rows(pairs), 94)
    assert cut == 0
    assert sorted((sorted(pack.pairs), pack.tokens) for pack in packs) == [([0, 1, 2], 74), ([3, 4, 5], 94)]


def test_a_conversation_larger_than_the_budget_is_cut_into_runs_of_turns() -> None:
    pairs = a_conversation(1000, 6)
    assert tree_tokens(_rows(pairs)) == 20 + 6 * 18
    packs, cut = plan_packs(_rows(pairs), 100)
    assert cut == 1
    # Turn by turn they would be 38, 50, 62, 74, 86 and 98 tokens.
    assert sorted(sorted(pack.pairs) for pack in packs) == [[0, 1, 2, 3], [4], [5]]
    assert all(pack.tokens <= 100 for pack in packs)


def test_pairwise_trees_are_packed_one_by_one() -> None:
    pairs = a_conversation(1000, 3)
    (pack,), cut = plan_packs(_rows(pairs), 38 + 50 + 62, pairwise=True)
    assert cut == 0
    assert pack.tokens == 38 + 50 + 62
    assert pack.together is not None
    assert sorted(map(len, pack.together)) == [2, 2, 2]


def test_a_pair_alone_counts_its_prompt_once_where_prefixes_are_shared() -> None:
    assert pair_tokens([1] * 50, [2] * 10, [3], shared=True) == 61
    assert pair_tokens([1] * 50, [2] * 10, [3], shared=False) == 120


def test_under_a_budget_lines_are_short_where_that_costs_less() -> None:
    rows = [[1] * 1000, [2] * 990, [3] * 980]
    assert plant(rows, budget=3000).tokens.shape == (3, 1000)
    # Three lines of 1,000 would exceed this one.
    assert plant(rows, budget=2970).tokens.shape == (1, 2970)


def test_under_a_budget_in_blocks_there_are_few_lengths() -> None:
    shapes = {
        plant([[1] * length], Layout(sparse=True, block=128), budget=4096).tokens.shape for length in range(1, 4097, 40)
    }
    assert shapes == {(1, 512 * eighth) for eighth in range(1, 9)}


@pytest.mark.parametrize("budget", [64, 190, 1000, 1025, 8200])
def test_few_lengths_do_not_exceed_the_budget_by_a_block(budget: int) -> None:
    layout = Layout(sparse=True, block=128)
    widths = {plant([[1] * length], layout, budget=budget).tokens.size for length in range(1, budget + 1, 7)}
    assert len(widths) <= 8
    assert budget - 128 < max(widths) < budget + 128
    assert plant([[1] * (budget + 500)], layout, budget=budget).tokens.size < budget + 500 + 128
