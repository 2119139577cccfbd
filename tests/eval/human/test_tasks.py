"""Who judges what, in which order, on which side: everything that a study promises of its design."""

from collections import Counter
from datetime import UTC, datetime

import pytest

from rlhi_eval_harness.human.records import HumanVerdict, Study, StudyItem
from rlhi_eval_harness.human.tasks import Others, judged_by, next_task

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def study(n=12, **more):
    items = tuple(StudyItem(item_id=f"i{i:02d}", user=f"u{i % 4}", shown="x") for i in range(n))
    return Study(
        name="s", subject="x", versus="y", dimensions={"overall": "Overall"}, items=items, eligible=n,
        **{"check_every": 0, **more},
    )  # fmt: skip


def verdict(rater, task, n, side="left", skipped=None):
    return HumanVerdict(
        verdict_id=f"{rater}{n}", rater=rater, item_id=task.item_id, shown="x", left=task.left, check=task.check,
        answers={} if skipped else {"overall": side}, skipped=skipped, given_at=NOW,
    )  # fmt: skip


def judge(plan, rater, count, verdicts, others=()):
    """`rater` judges `count` pairs."""
    for n in range(count):
        task = next_task(plan, rater, verdicts, Others(others))
        if task is None:
            break
        verdicts.append(verdict(rater, task, len(verdicts) + n))
    return verdicts


@pytest.mark.parametrize(("overlap", "raters"), [(1, 1), (1, 3), (2, 2), (3, 5)])
def test_every_pair_is_judged_by_as_many_raters_as_planned_and_no_more(overlap, raters):
    plan, verdicts = study(overlap=overlap), []
    names = [f"r{i}" for i in range(raters)]
    for _ in range(len(plan.items) * overlap):
        for name in names:
            judge(plan, name, 1, verdicts)
    assert set(judged_by(plan, verdicts).values()) == {overlap}
    assert len(verdicts) == overlap * len(plan.items)
    assert all(next_task(plan, name, verdicts) is None for name in names)
    assert len({(each.rater, each.item_id) for each in verdicts}) == len(verdicts)


def test_raters_overlap_early_so_that_a_study_that_stops_can_tell_agreement():
    plan, verdicts = study(40, overlap=2), []
    for _ in range(6):
        for name in ("ann", "ben"):
            judge(plan, name, 1, verdicts)
    assert Counter(judged_by(plan, verdicts).values()) == {0: 34, 2: 6}


def test_two_who_look_at_once_do_not_both_finish_the_same_pair():
    plan, verdicts = study(overlap=2), []
    judge(plan, "ann", 1, verdicts)
    begun = verdicts[0].item_id
    assert next_task(plan, "ben", verdicts).item_id == begun
    assert next_task(plan, "cyn", verdicts, Others([begun])).item_id != begun


def test_somebody_who_left_their_page_open_blocks_nothing():
    plan, verdicts = study(3, overlap=1), []
    judge(plan, "ann", 3, verdicts, others=["i00", "i01", "i02"])
    assert set(judged_by(plan, verdicts).values()) == {1}


def test_what_is_judged_beyond_the_plan_is_spread_evenly():
    plan, verdicts = study(6, overlap=1), []
    judge(plan, "ann", 6, verdicts)
    for name in ("ben", "cyn"):
        assert next_task(plan, name, verdicts) is None
        for _ in range(3):
            task = next_task(plan, name, verdicts, beyond=True)
            verdicts.append(verdict(name, task, len(verdicts)))
    assert set(judged_by(plan, verdicts).values()) == {2}


def test_order_and_sides_are_each_raters_own_and_come_from_the_seed():
    plan = study(60, overlap=2)
    runs = {name: [(v.item_id, v.left) for v in judge(plan, name, 60, [])] for name in ("ann", "ben")}
    assert runs["ann"] == [(v.item_id, v.left) for v in judge(plan, "ann", 60, [])]
    assert [item for item, _ in runs["ann"]] != [item for item, _ in runs["ben"]]
    sides = {name: dict(run) for name, run in runs.items()}
    assert 10 < sum(sides["ann"][item] != sides["ben"][item] for item in sides["ann"]) < 50
    for name in sides:
        assert 18 < Counter(sides[name].values())["x"] < 42
    other = [(v.item_id, v.left) for v in judge(study(60, overlap=2, seed=1), "ann", 60, [])]
    assert other != runs["ann"]


def test_a_skipped_pair_is_not_shown_again_and_still_needs_a_verdict():
    plan, verdicts = study(2, overlap=1), []
    first = next_task(plan, "ann", verdicts)
    verdicts.append(verdict("ann", first, 0, skipped="language"))
    assert judged_by(plan, verdicts)[first.item_id] == 0
    assert next_task(plan, "ann", verdicts).item_id != first.item_id
    judge(plan, "ann", 5, verdicts)
    assert next_task(plan, "ann", verdicts) is None
    assert next_task(plan, "ben", verdicts).item_id == first.item_id


def test_attention_checks_come_by_turns_on_pairs_that_the_rater_has_judged():
    plan, verdicts = study(20, overlap=1, check_every=3), []
    judge(plan, "ann", 40, verdicts)
    assert [each.check for each in verdicts[:9]] == [None, None, None, "mirrored", None, None, None, "identical", None]
    real = {each.item_id: each for each in verdicts if each.check is None}
    assert len(real) == 20
    mirrored = [each for each in verdicts if each.check == "mirrored"]
    assert len(mirrored) == 3
    assert len({each.item_id for each in mirrored}) == 3
    for each in mirrored:
        assert each.left != real[each.item_id].left
        assert verdicts.index(each) > verdicts.index(real[each.item_id])
    assert sum(each.check == "identical" for each in verdicts) == 3
