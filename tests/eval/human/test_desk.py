"""The desk and the file behind it: nothing that was acknowledged is lost, nothing is counted twice."""

import json
import os

import pytest

from rlhi_eval_harness.human import verdict_file
from rlhi_eval_harness.human.desk import NOTHING_TO_UNDO, STALE, Desk
from rlhi_eval_harness.human.planning import Wishes, open_study, pairs_of
from rlhi_eval_harness.human.verdict_file import VerdictFile, held, read_lines, standing
from rlhi_plugin.errors import ArtefactError, ConfigError

ALL_LEFT = {"personalization": "left", "instruction_following": "left", "overall": "left"}


@pytest.fixture
def opened(make_folder, read, tmp_path):
    """A function that opens a desk on the same folder, as often as wanted."""
    folder = make_folder()
    kind, stored = read(folder)
    files = []

    def desk(**wishes):
        plan = open_study(folder, "main", kind, stored, Wishes(**wishes))
        pairs, _ = pairs_of(stored, plan.subject, plan.versus)
        files.append(VerdictFile(folder.human / "main/verdicts.jsonl"))
        ticks = iter(range(10_000))
        return Desk(plan, pairs, files[-1], clock=lambda: float(next(ticks)))

    desk.path = folder.human / "main/verdicts.jsonl"
    yield desk
    for file in files:
        file.close()


def test_a_verdict_is_synced_to_disk_before_the_next_pair_is_shown(opened, monkeypatch):
    synced = []
    sync = os.fsync
    desk = opened()
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(opened.path.read_text()), sync(fd)))
    before = desk.view("ann")
    after = desk.judge("ann", before.token, ALL_LEFT, "  a note ")
    assert after.token != before.token
    assert after.progress.mine == 1
    (line,) = synced[-1].splitlines()
    told = json.loads(line)
    assert (told["rater"], told["answers"], told["note"]) == ("ann", ALL_LEFT, "a note")
    assert told["seconds"] == 1.0


def test_whoever_comes_back_goes_on_with_the_same_pair(opened):
    desk = opened()
    for _ in range(3):
        shown = desk.judge("ann", desk.view("ann").token, ALL_LEFT)
    again = opened().view("ann")
    assert (again.token, again.left, again.right, again.progress) == (
        shown.token, shown.left, shown.right, shown.progress,
    )  # fmt: skip


def test_a_second_window_cannot_judge_the_same_pair_twice(opened):
    desk = opened()
    token = desk.view("ann").token
    desk.judge("ann", token, ALL_LEFT)
    assert desk.judge("ann", token, ALL_LEFT).message == STALE
    assert desk.skip("ann", token, "other").message == STALE
    assert len(read_lines(opened.path)) == 1


@pytest.mark.parametrize("answers", [{}, {"overall": "left"}, {**ALL_LEFT, "more": "left"}])
def test_an_incomplete_verdict_is_none(opened, answers):
    desk = opened()
    desk.judge("ann", desk.view("ann").token, answers)
    assert read_lines(opened.path) == []


def test_undo_shows_the_same_pair_again_even_after_a_restart_and_keeps_both_lines(opened):
    desk = opened()
    first = desk.view("ann")
    second = desk.judge("ann", first.token, ALL_LEFT)
    back = desk.undo("ann")
    assert (back.left, back.right, back.pair) == (first.left, first.right, first.pair)
    assert back.progress.mine == 0
    desk = opened()
    assert desk.view("ann").pair == first.pair
    forth = desk.judge("ann", desk.view("ann").token, {**ALL_LEFT, "overall": "tie"})
    assert forth.pair == second.pair
    lines = read_lines(opened.path)
    assert len(lines) == 3
    assert [each.answers["overall"] for each in standing(lines)] == ["tie"]
    desk.undo("ann")
    assert desk.undo("ann").message == NOTHING_TO_UNDO
    assert desk.undo("ben").message == NOTHING_TO_UNDO


def test_names_are_one_persons_however_they_are_spelled(opened):
    desk = opened()
    ann = desk.rater("  Ann   Lee ")
    desk.judge(ann, desk.view(ann).token, ALL_LEFT)
    assert (ann, desk.rater("ann lee"), desk.rater(" "), len(desk.rater("x" * 500))) == ("Ann Lee", "Ann Lee", "", 60)


def test_when_everything_is_judged_a_rater_may_go_on(opened):
    desk = opened(overlap=1, items=2, check_every=0)
    for _ in range(2):
        done = desk.judge("ann", desk.view("ann").token, ALL_LEFT)
    assert (done.pair, done.more, done.progress.given, done.progress.needed) == (None, False, 2, 2)
    assert (desk.view("ben").pair, desk.view("ben").more) == (None, True)
    more = desk.go_on("ben")
    assert more.pair is not None
    assert desk.judge("ben", more.token, ALL_LEFT).progress.given == 2


def test_an_identical_pair_shows_one_answer_twice_and_a_mirrored_one_the_other_way_round(opened):
    desk = opened(check_every=2)
    seen = {}
    checks = []
    for _ in range(12):
        view = desk.view("ann")
        place = (view.pair.user, view.pair.request)
        if place in seen:
            checks.append((view.left == view.right, (view.right, view.left) == seen[place]))
        seen.setdefault(place, (view.left, view.right))
        desk.judge("ann", view.token, ALL_LEFT)
    assert checks == [(False, True), (True, False), (False, True), (True, False)]


# What a kill leaves: the half of a line. It was never acknowledged.


def test_a_torn_last_line_is_not_read_and_not_built_upon(opened):
    desk = opened()
    desk.judge("ann", desk.view("ann").token, ALL_LEFT)
    whole = opened.path.read_bytes()
    for torn in (b'{"verdict_id":"torn', b"\x00\x00", b'{"undoes":"x"}'):
        opened.path.write_bytes(whole + torn)
        assert len(read_lines(opened.path)) == 1
        desk = opened()
        assert opened.path.read_bytes() == whole
        assert desk.view("ann").progress.mine == 1


def test_a_damaged_line_in_the_middle_is_named(opened):
    desk = opened()
    for _ in range(2):
        desk.judge("ann", desk.view("ann").token, ALL_LEFT)
    first, second = opened.path.read_text().splitlines(keepends=True)
    opened.path.write_text(first[:-9] + "\n" + second)
    with pytest.raises(ArtefactError, match=r"verdicts.jsonl:1: damaged line"):
        opened()
    opened.path.write_text(first + first)
    with pytest.raises(ArtefactError, match=r"verdicts.jsonl:2: .* is there twice"):
        opened()
    opened.path.write_text('{"undoes":"nothing","rater":"ann","given_at":"2026-01-01T00:00:00Z"}\n')
    with pytest.raises(ArtefactError, match=r"taken back, but not there"):
        opened()


def test_a_full_disk_leaves_the_file_as_it_was_and_the_pair_on_the_page(opened, monkeypatch):
    desk = opened()
    shown = desk.judge("ann", desk.view("ann").token, ALL_LEFT)
    before = opened.path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(verdict_file.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            desk.judge("ann", shown.token, ALL_LEFT)
    assert opened.path.read_bytes() == before
    assert desk.view("ann").token == shown.token
    assert desk.judge("ann", shown.token, ALL_LEFT).progress.mine == 2


def test_a_study_is_held_by_one_process(opened):
    opened()
    with (
        held(opened.path.parent),
        pytest.raises(ConfigError, match="another rlhi-eval human"),
        held(opened.path.parent),
    ):
        pass
    with held(opened.path.parent):
        pass
