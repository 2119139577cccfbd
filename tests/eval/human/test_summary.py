"""Verdicts whose answers are known by hand, and what the report then says of people, of the judge, and of both."""

import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from rlhi_eval_harness import cli
from rlhi_eval_harness.human.desk import Desk
from rlhi_eval_harness.human.planning import Wishes, open_study, pairs_of
from rlhi_eval_harness.human.records import HumanVerdict
from rlhi_eval_harness.human.verdict_file import VerdictFile
from rlhi_eval_harness.records import EvalReport, EvalSample
from rlhi_eval_harness.run_folder import read_records, write_records

SUBJECT, VERSUS = "quokka+persona", "zebra"
RUN = CliRunner()
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def side(left, value):
    """Which side a verdict names, given who stands left, for 1 (ours won), 0 (lost), 0.5."""
    if value == 0.5:
        return "tie"
    return "left" if (value == 1) == (left == SUBJECT) else "right"


def say(folder, kind, stored, verdicts, **wishes):
    """Put verdicts on disk: (rater, item, value by dimension or a value for all, ...)."""
    study = open_study(folder, "main", kind, stored, Wishes(**wishes))
    shown = {item.item_id: item.shown for item in study.items}
    file = VerdictFile(folder.human / "main/verdicts.jsonl")
    for n, (rater, item, value, *more) in enumerate(verdicts):
        left = SUBJECT if n % 2 else VERSUS
        values = value if isinstance(value, dict) else dict.fromkeys(study.dimensions, value)
        told = {
            "verdict_id": f"v{len(file.lines)}", "rater": rater, "item_id": item, "shown": shown[item], "left": left,
            "answers": {name: side(left, each) for name, each in values.items()}, "seconds": 10.0 + n, "given_at": NOW,
        }  # fmt: skip
        file.append(HumanVerdict.model_validate({**told, **(more[0] if more else {})}))
    file.close()
    return study


def score(folder):
    found = RUN.invoke(cli.app, ["score", str(folder.path)], catch_exceptions=False)
    assert found.exit_code == 0
    return EvalReport.model_validate_json(folder.report_json.read_text())


def test_people_are_counted_as_by_hand(make_folder, read):
    folder = make_folder(users=4, each=1)
    say(
        folder,
        *read(folder),
        [
            ("ann", "user00/0", 1), ("ben", "user00/0", 1),
            ("ann", "user01/0", 1), ("ben", "user01/0", 0),
            ("ann", "user02/0", 0.5), ("ben", "user02/0", 0.5),
            ("ann", "user03/0", 0, {"answers": {}, "skipped": "language"}),
        ],
    )  # fmt: skip
    report = score(folder)
    (result,) = report.human
    assert (result.subject, result.versus, result.judge) == (SUBJECT, VERSUS, None)
    assert (result.verdicts, result.judged, result.complete, result.items) == (6, 3, 3, 4)
    assert result.skipped == {"language": 1}
    overall = result.dimensions[-1]
    assert overall.label == "Overall preference"
    # Items: 1, 0.5 and 0.5; one skipped by the only one who saw it.
    assert (overall.people.value, overall.people.n, overall.people.unscored) == (pytest.approx(2 / 3), 3, 1)
    assert (overall.over_raters.value, overall.over_raters.clusters) == (pytest.approx(4 / 6), 2)
    assert overall.agreement.value == pytest.approx(2 / 3)
    # Coincidences: 4 on the diagonal of 6; expected 1 - (3*2 + 1*0 + 2*1) / (6*5).
    assert overall.alpha.value == pytest.approx(1 - (2 / 6) / (1 - 8 / 30))
    # Our answers are the short ones.
    assert overall.longer_wins.value == pytest.approx(2 / 6)
    ann, _ = result.raters
    assert (ann.rater, ann.verdicts, ann.skipped) == ("ann", 3, 1)
    text = folder.report_markdown.read_text()
    assert f"## People: `{SUBJECT}` against `{VERSUS}`" in text
    assert "Skipped: Not in a language that I read well 1." in text
    (sentence,) = (each for each in report.findings if each.startswith("People, overall"))
    assert "67 %" in sentence
    assert sentence.endswith("Not to be used: 25 % unscored, which is more than 5%.")
    html = folder.report_html.read_text()
    assert "Krippendorff&#39;s alpha" in html


def test_sides_are_people_s_own_bias(make_folder, read):
    folder = make_folder(users=4, each=2)
    kind, stored = read(folder)
    study = open_study(folder, "main", kind, stored, Wishes(check_every=0))
    file = VerdictFile(folder.human / "main/verdicts.jsonl")
    desk = Desk(study, pairs_of(stored, study.subject, study.versus)[0], file)
    for _ in study.items:
        desk.judge("left-hander", desk.view("left-hander").token, dict.fromkeys(study.dimensions, "left"))
    file.close()
    (result,) = score(folder).human
    assert result.dimensions[0].left_wins.value == 1.0
    assert 0 < result.dimensions[0].people.value < 1


def test_attention_checks_are_counted_and_enter_nothing_else(make_folder, read):
    folder = make_folder(users=4, each=1)
    mirrored, identical = {"check": "mirrored"}, {"check": "identical"}
    say(
        folder,
        *read(folder),
        [
            ("ann", "user00/0", 1), ("ann", "user00/0", 1, mirrored), ("ann", "user01/0", 1),
            ("ann", "user01/0", 0.5, identical), ("ben", "user00/0", 1), ("ben", "user00/0", 0, mirrored),
            ("ben", "user01/0", 1), ("ben", "user01/0", 0, identical),
        ],
    )  # fmt: skip
    report = score(folder)
    (result,) = report.human
    assert result.verdicts == 4
    assert result.dimensions[0].people.value == 1.0
    ann, ben = result.raters
    assert (ann.mirrored_same, ann.mirrored, ann.identical_tied, ann.identical) == (1, 1, 1, 1)
    assert (ben.mirrored_same, ben.mirrored, ben.identical_tied, ben.identical) == (0, 1, 0, 1)
    assert "ben passed 0 of 2 attention checks: read the study with and without them." in report.findings
    assert "Attention checks: 2 of 4 passed" in folder.report_markdown.read_text()


def test_people_stand_beside_the_judge_on_the_same_pairs(make_folder, read, judge_says):
    folder = make_folder(users=4, each=2)
    kind, stored = read(folder)
    # The judge likes ours everywhere; people only where the judge ...
    judge_says(folder, kind, stored, lambda item, dimension: 0.5 if item.endswith("/1") else 1)
    people = {"user00/0": 1, "user01/0": 0, "user02/0": 1, "user03/1": 0.5}
    say(folder, kind, stored, [("ann", item, value) for item, value in people.items()])
    (result,) = score(folder).human
    beside = result.dimensions[-1].with_judge
    assert result.judge == "judge"
    assert beside.judge.value == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert beside.difference.value == pytest.approx(-1 / 4)
    assert beside.agreement.value == pytest.approx(3 / 4)
    # Judge: three wins, a tie; people: two wins, a loss, a tie. Observed 3/4, by chance (3*2 + 1*1) / 16.
    assert beside.kappa.value == pytest.approx((3 / 4 - 7 / 16) / (1 - 7 / 16))
    assert beside.corrected.win_rate is None
    assert beside.corrected.why_not == "people and judge share 4 pairs of 4 users; it takes 30 of 10"
    assert "the judge is not corrected, because people and judge share 4 pairs" in folder.report_markdown.read_text()


def test_a_judge_who_flatters_is_corrected_by_people(make_folder, read, judge_says):
    folder = make_folder(users=20, each=6)
    kind, stored = read(folder)
    user, number = (lambda item: int(item[4:6])), (lambda item: int(item[-1]))
    # People prefer ours of half of the users. The judge agrees, and likes ours also in a third of the other cases.
    people = lambda item: float(user(item) % 2)  # noqa: E731 - two small tables
    judge_says(folder, kind, stored, lambda item, _: 1 if people(item) or number(item) % 3 == 0 else 0)
    study = open_study(folder, "main", kind, stored, Wishes(items=60, seed=1))
    say(folder, kind, stored, [("ann", item.item_id, people(item.item_id)) for item in study.items])
    report = score(folder)
    (result,) = report.human
    corrected = result.dimensions[-1].with_judge.corrected
    judge = next(each for each in report.estimates if each.metric == "overall" and each.group == "all")
    assert judge.value == pytest.approx(2 / 3)
    assert corrected.win_rate.low < 0.5 < corrected.win_rate.high < judge.value + 0.1
    assert abs(corrected.win_rate.value - 0.5) < 0.06
    assert (corrected.labelled, corrected.unlabelled) == (60, 60)
    assert "judge corrected by people (prediction-powered inference, PPI++)" in folder.report_markdown.read_text()
    assert "prediction-powered inference" in folder.report_html.read_text()


def test_verdicts_on_answers_that_have_changed_do_not_count_and_are_named(make_folder, read):
    folder = make_folder(users=3, each=1)
    say(folder, *read(folder), [("ann", f"user0{n}/0", 1) for n in range(3)])
    outputs = [
        each.model_copy(update={"output": "new"}) if each.sample_id == f"user00/0/{SUBJECT}" else each
        for each in read_records(folder.outputs, EvalSample)
    ]
    write_records(folder.outputs, outputs)
    (result,) = score(folder).human
    assert (result.verdicts, result.stale) == (2, 1)
    assert "because the answers have changed since: 1." in folder.report_markdown.read_text()


def test_a_study_without_verdicts_leaves_the_report_as_it_was(make_folder, read):
    folder = make_folder(users=3, each=1)
    score(folder)
    before = folder.report_json.read_bytes()
    open_study(folder, "main", *read(folder), Wishes())
    assert score(folder).human == ()
    assert folder.report_json.read_bytes() == before
    assert json.loads(before)["schema_version"] == 4


def test_a_torn_last_verdict_does_not_stop_the_report(make_folder, read):
    folder = make_folder(users=3, each=1)
    say(folder, *read(folder), [("ann", "user00/0", 1)])
    with (folder.human / "main/verdicts.jsonl").open("a") as file:
        file.write('{"verdict_id":"torn')
    assert score(folder).human[0].verdicts == 1
