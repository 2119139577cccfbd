"""The order of training: shuffled, repeatable, and what shares a past stays together."""

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from rlhi_training.tree.trl_trainer import GroupedOrder

GROUPS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("123")), max_size=30)


@given(groups=GROUPS, seed=st.integers(0, 5), epoch=st.integers(0, 3))
def test_conversations_stay_together_and_requests_within_them(groups, seed, epoch) -> None:
    order = GroupedOrder(groups, seed=seed)
    order.set_epoch(epoch)
    indices = list(order)
    assert sorted(indices) == list(range(len(groups)))
    assert list(order) == indices
    conversations = [key for key, _ in groupby(groups[i][0] for i in indices)]
    assert len(conversations) == len(set(conversations))
    requests = [key for key, _ in groupby(groups[i] for i in indices)]
    assert len(requests) == len(set(requests))


def test_every_epoch_and_seed_has_an_order_of_its_own() -> None:
    groups = [(str(n // 4), str(n // 2)) for n in range(40)]
    orders = set()
    for seed in (0, 1):
        order = GroupedOrder(groups, seed=seed)
        for epoch in range(3):
            order.set_epoch(epoch)
            orders.add(tuple(order))
    assert len(orders) == 6
