"""Two reports compared: what is a regression, what is noise, and what is refused."""

import json
import random

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from typer.testing import CliRunner

from rlhi_eval_harness import cli
from rlhi_eval_harness.compare import item_by_item, texts
from rlhi_eval_harness.compare.differences import compare
from rlhi_eval_harness.compare.options import Options
from rlhi_eval_harness.compare.records import ComparisonReport
from rlhi_eval_harness.compare.sides import Side, open_side
from rlhi_eval_harness.records import REPORT_SCHEMA_VERSION, Metric, Score
from rlhi_plugin.errors import ArtefactError, ConfigError

RUN = CliRunner()


def coin(share: float, seed: int):
    """A share of ones, the same for equal seeds."""
    return lambda user, item: float(random.Random(f"{seed}/{user}/{item}").random() < share)


def subject(gain, leak=lambda user, item: 0.0):
    return {"gain": gain, "leak": leak}


def _change(found, metric="gain", group="all", subject="base"):
    (only,) = [each for each in found.changes if (each.metric, each.group, each.subject) == (metric, group, subject)]
    return only


@pytest.fixture
def better_and_worse(make_report):
    return make_report("a", {"base": subject(coin(0.8, 1))}), make_report("b", {"base": subject(coin(0.2, 2))})


def test_a_clear_loss_is_a_regression_and_a_clear_gain_is_none(better_and_worse):
    good, bad = map(open_side, better_and_worse)
    worse, better = compare(good, bad), compare(bad, good)
    lost, won = _change(worse), _change(better)
    assert lost.verdict == "regression"
    assert (lost.change, lost.low, lost.high) == pytest.approx((-won.change, -won.high, -won.low), abs=0.03)
    assert lost.change == pytest.approx(lost.after - lost.before)
    assert lost.high < 0
    assert lost.p_value < lost.adjusted <= 0.05
    assert won.verdict == "improvement"
    assert [each.metric for each in worse.regressions] == ["gain"]
    assert better.regressions == ()
    assert _change(worse, "words").verdict == "no better or worse"
    assert _change(worse, "words").adjusted is None


def test_where_less_is_better_more_is_the_regression(make_report):
    before = make_report("a", {"base": subject(coin(0.5, 1))})
    after = make_report("b", {"base": subject(coin(0.5, 1), leak=lambda user, item: float(item < 3))})
    found = compare(open_side(before), open_side(after))
    assert _change(found, "leak").verdict == "regression"
    assert _change(found, "gain").verdict == "no difference shown"


def test_p_values_are_corrected_for_everything_that_is_tested(better_and_worse):
    good, bad = map(open_side, better_and_worse)
    all_, one = compare(good, bad), compare(good, bad, Options(metrics=("gain",)))
    assert all_.comparisons == 4
    assert one.comparisons == 1
    assert _change(one).adjusted == pytest.approx(_change(one).p_value)
    assert _change(all_).adjusted == pytest.approx(4 * _change(all_).p_value)
    assert _change(all_).detectable > _change(one).detectable > 0


def test_noise_is_no_regression_and_the_smallest_visible_change_is_told(make_report):
    false_alarms = 0
    for run in range(5):
        one, other = (make_report(f"{run}{side}", {"base": subject(coin(0.5, 10 * run + side))}) for side in (0, 1))
        found = compare(open_side(one), open_side(other), Options(metrics=("gain",)))
        false_alarms += bool(found.regressions)
        assert 0.2 < _change(found).detectable < 0.6
    assert false_alarms <= 1


def test_answers_of_one_user_are_one_piece_of_evidence(make_report):
    """Twelve users of a hundred equal answers show no more than twelve users of one."""

    def lost(name, items):
        before = make_report(f"{name}a", {"base": subject(lambda user, item: 1.0)}, items=items)
        after = make_report(f"{name}b", {"base": subject(lambda user, item: float(user % 3 > 0))}, items=items)
        return _change(compare(open_side(before), open_side(after), Options(metrics=("gain",))))

    few, many = lost("few", 1), lost("many", 50)
    assert few.change == pytest.approx(many.change)
    assert few.p_value == pytest.approx(many.p_value)
    assert (few.low, few.high) == pytest.approx((many.low, many.high), abs=0.02)


def test_a_margin_is_how_much_worse_is_still_no_regression(make_report):
    before = make_report("a", {"base": subject(lambda user, item: 0.8)})
    after = make_report("b", {"base": subject(lambda user, item: 0.75 + 0.001 * user)})
    sides = open_side(before), open_side(after)

    def verdict(*margins):
        return _change(compare(*sides, Options(metrics=("gain", "leak"), margins=margins))).verdict

    assert verdict() == verdict("0.02") == verdict("0.1", "gain=0.02") == "regression"
    assert verdict("0.1") == verdict("gain=0.1") == "no difference shown"
    for wrong in ("much", "-1", "nan", "inf", "joy=0.1", "gain="):
        with pytest.raises(ConfigError, match="write a number from 0"):
            verdict(wrong)


def test_groups_are_compared_on_demand(make_report):
    """A loss in follow-up turns alone."""
    before = make_report("a", {"base": subject(lambda user, item: 1.0)})
    after = make_report("b", {"base": subject(lambda user, item: float(item % 2 == 0))})
    found = compare(open_side(before), open_side(after), Options(metrics=("gain",), by_group=True))
    assert _change(found, group="initial").verdict == "no difference shown"
    assert _change(found, group="follow-up").verdict == "regression"
    assert _change(found, group="follow-up").n == 24


def test_what_is_scored_too_rarely_fails_and_never_counts_as_a_zero(make_report):
    before = make_report("a", {"base": subject(lambda user, item: 1.0)})
    holes = make_report("b", {"base": subject(lambda user, item: "judge_prose" if item == 0 else 1.0)})
    found = compare(open_side(before), open_side(holes))
    assert _change(found).verdict == "less scored"
    assert (_change(found).change, _change(found).unscored_after, _change(found).n) == (0.0, 0.25, 36)
    assert [each.metric for each in found.regressions] == ["gain"]
    again = compare(open_side(holes), open_side(holes))
    assert _change(again).verdict == "not to be used"
    assert any("not to be used" in note for note in again.notes)
    nothing = make_report("c", {"base": subject(lambda user, item: "no_output")})
    assert _change(compare(open_side(before), open_side(nothing))).change is None


def test_samples_without_any_answer_are_still_items(make_report, answered):
    before = make_report("a", {"base": subject(coin(0.5, 1))})
    late = make_report("b", {"base": subject(coin(0.5, 1))}, answer=lambda sample: None)
    found = compare(open_side(before), open_side(late))
    assert _change(found).n == 48
    assert _change(found).clusters == 12
    assert _change(found, "words").verdict == "less scored"


def test_too_few_users_to_show_anything_are_told_so(make_report):
    before = make_report("a", {"base": subject(lambda user, item: 1.0)}, users=4)
    after = make_report("b", {"base": subject(lambda user, item: 0.0)}, users=4)
    found = compare(open_side(before), open_side(after))
    assert _change(found).verdict == "too few users"
    assert any("cannot fail" in note for note in found.notes)


def test_subjects_may_have_other_names(make_report):
    before = make_report("a", {"base": subject(lambda user, item: 1.0), "adapter": subject(lambda user, item: 1.0)})
    after = make_report("b", {"base": subject(lambda user, item: 1.0), "mine:adapter": subject(lambda u, i: 0.0)})
    # What `parse_subjects` makes of it is the name before the colon; here names are given as they are.
    with pytest.raises(ConfigError, match=r"subjects: .*lacks adapter"):
        compare(open_side(before), open_side(after))
    found = compare(open_side(before), open_side(after), Options(subjects=("adapter=mine:adapter",)))
    assert _change(found, subject="adapter").verdict == "regression"
    assert _change(found, subject="adapter").subject_after == "mine:adapter"
    assert {each.subject for each in found.changes} == {"adapter"}
    with pytest.raises(ConfigError, match="no subject nobody"):
        compare(open_side(before), open_side(after), Options(subjects=("nobody",)))


def test_one_report_can_compare_its_own_subjects(make_report):
    both = {"base": subject(lambda user, item: 1.0), "adapter": subject(lambda user, item: float(item > 0))}
    side = open_side(make_report("a", both))
    found = compare(side, side, Options(subjects=("base=adapter",), metrics=("gain",)))
    assert _change(found).change == -0.25


@pytest.mark.parametrize(
    ("change", "aspect"),
    [
        ({"seed": 5}, r"suite: seed is 0 against 5"),
        ({"models": {"base": "tiny", "base_digest": "other"}}, "models: base_digest is 00000000 against other"),
        ({"models": {"base": "tiny"}}, "models: base_digest is 00000000 against nothing"),
        ({"judging": [{"judge": "gpt", "prompts": ["a/1"]}]}, "judges: judge is nothing against gpt"),
        ({"users": 11}, "items: 4 items of base are in .* only"),
        (
            {"change": lambda each: each.model_copy(update={"prompt": each.prompt[:1]})},
            "items: 48 items ask something else",
        ),
    ],
    ids=["suite", "weights", "no weights", "judge", "fewer items", "other questions"],
)
def test_what_measures_something_else_is_refused_by_name_unless_allowed(make_report, change, aspect):
    given = {"base": subject(coin(0.5, 1))}
    before, after = open_side(make_report("a", given)), open_side(make_report("b", given, **change))
    with pytest.raises(ConfigError, match=aspect) as refusal:
        compare(before, after)
    kind = aspect.partition(":")[0]
    assert f"--allow {kind}" in str(refusal.value)
    found = compare(before, after, Options(allowed=(kind,)))
    assert any(note.startswith(f"{kind} differ") for note in found.notes)
    with pytest.raises(ConfigError, match="choose among"):
        compare(before, after, Options(allowed=("everything",)))


def test_the_judges_prompt_counts_too_and_the_adapter_under_test_does_not(make_report):
    given = {"base": subject(coin(0.5, 1))}
    models = {"base": "tiny", "adapter": "runs/1", "weights_digest": "1", "sft:adapter=x:weights_digest": "2"}
    more = {"models": {k: v for k, v in models.items() if not k.startswith("sft")}}
    judged = [{"judge": "gpt", "prompts": ["compare/1"]}]
    one = make_report("a", given, judging=judged, **more)
    other = make_report("b", given, judging=judged, models={**more["models"], "weights_digest": "3", "adapter": "2"})
    assert compare(open_side(one), open_side(other)).judge == "gpt"
    third = make_report("c", given, judging=[{"judge": "gpt", "prompts": ["compare/2"]}], **more)
    with pytest.raises(ConfigError, match=r"judges: prompts is \['compare/1'\] against \['compare/2'\]"):
        compare(open_side(one), open_side(third))


def test_a_judges_name_that_stood_for_another_model_is_refused(make_report):
    sides = []
    for name, models in (("a", {"gpt-4o-2024-08-06": 9}), ("b", {"gpt-4o-2024-11-20": 9})):
        folder = make_report(name, {"base": subject(coin(0.5, 1))}, judging=[{"judge": "openai/gpt-4o", "prompts": []}])
        body = json.loads((folder / "report.json").read_text())
        pin = {"kind": "alias", "why": "w"}
        body["judges"] = [{"judge": "openai/gpt-4o", "pin": pin, "answered_by": models}]
        (folder / "report.json").write_text(json.dumps(body))
        sides.append(open_side(folder))
    with pytest.raises(ConfigError, match="the judge's name stands for gpt-4o-2024-08-06 against gpt-4o-2024-11-20"):
        compare(*sides)
    assert compare(sides[0], sides[0]).comparisons


def test_another_persona_is_told_and_not_refused(make_report):
    given = {"base": subject(coin(0.5, 1))}

    def other(sample):
        system = sample.prompt[0].model_copy(update={"content": "another persona"})
        return sample.model_copy(update={"prompt": (system, *sample.prompt[1:])})

    found = compare(open_side(make_report("a", given)), open_side(make_report("b", given, change=other)))
    assert any(note.startswith("48 compared answers had another system prompt") for note in found.notes)


def test_damaged_and_absent_reports_are_refused(make_report, tmp_path):
    folder = make_report("a", {"base": subject(coin(0.5, 1))})
    assert open_side(folder / "report.json").subjects == ("base",)
    text = (folder / "report.json").read_text()
    for content, message in (
        (text[:500], "is no report of this version"),
        (text.replace('"sample_id": "user-0/0/base",\n   "metric"', '"sample_id": "x",\n   "metric"'), "no subject"),
    ):
        (tmp_path / "broken.json").write_text(content)
        with pytest.raises(ArtefactError, match=message):
            open_side(tmp_path / "broken.json")
    (tmp_path / "broken.json").write_bytes(b"\x80\x81")
    with pytest.raises(ConfigError, match="is no text"):
        open_side(tmp_path / "broken.json")
    with pytest.raises(ConfigError, match="Give the folder of an evaluation"):
        open_side(tmp_path / "absent")
    # The wrong file, or one of another version, is the user's to change.
    for content, message in (
        ("{}", "is no report of this version"),
        (text.replace(f'"schema_version": {REPORT_SCHEMA_VERSION}', '"schema_version": 1'), "has schema 1"),
    ):
        (tmp_path / "other.json").write_text(content)
        with pytest.raises(ConfigError, match=message):
            open_side(tmp_path / "other.json")


def _run(*words: object):
    return RUN.invoke(cli.app, ["compare", *map(str, words)], catch_exceptions=False, env={"COLUMNS": "200"})


def test_the_command_fails_only_when_asked_and_writes_what_ci_needs(better_and_worse, tmp_path):
    good, bad = better_and_worse
    shown = _run(good, bad)
    assert shown.exit_code == 0
    assert "1 regression; the first is gain of base." in shown.stdout
    files = tmp_path / "new/found.json", tmp_path / "comment.md"
    failed = _run(good, bad, "--fail-on-regression", "--json", files[0], "--markdown", files[1])
    assert failed.exit_code == 1
    found = ComparisonReport.model_validate(json.loads(files[0].read_text()))
    assert found.schema_version == 1
    assert [each.verdict for each in found.regressions] == ["regression"]
    comment = files[1].read_text()
    assert comment.startswith("### ❌ Evaluation `given`: 1 regression")
    rows = [line for line in comment.splitlines() if line.startswith("|")]
    widths = [line.count("|") for line in rows]
    assert set(widths) == {9, 11}, "one table of changes, one item by item"
    assert widths == sorted(widths)
    assert rows[2].startswith("| base | Gain |")
    assert _run(bad, good, "--fail-on-regression", "--markdown", files[1]).exit_code == 0
    assert (
        files[1].read_text().startswith("### ✅ Evaluation `given`: No regression beyond noise in 4 comparisons; 1 imp")
    )
    assert _run(good, bad, "--fail-on-regression", "--margin", "0.9").exit_code == 0


def test_mistakes_of_the_command_are_the_users(better_and_worse, tmp_path):
    good, bad = better_and_worse
    (tmp_path / "file").write_text("")
    for words, message in (
        ((good, tmp_path / "absent"), "cannot read"),
        ((good, bad, "--metric", "joy"), "both reports have gain, leak"),
        ((good, bad, "--level", "0"), "between 0 and 1"),
        ((good, bad, "--json", tmp_path / "file/x.json"), "cannot write"),
    ):
        with pytest.raises(ConfigError, match=message):
            _run(*words)


def _cells(before, after, users):
    cells = np.zeros((2, 2), dtype=int)
    for user in range(users):
        cells[1 - int(after(user, 0)), 1 - int(before(user, 0))] += 1
    return cells


@pytest.mark.parametrize("users", [24, 120])
def test_yes_or_no_with_one_item_a_user_is_mcnemars_and_equals_the_reports_own(make_report, read, users):
    before, after = coin(0.8, 1), coin(0.4, 2)
    sides = [
        open_side(make_report(name, {"base": subject(gain)}, users=users, items=1))
        for name, gain in (("a", before), ("b", after))
    ]
    change = _change(compare(*sides, Options(metrics=("gain",))))
    cells = _cells(before, after, users)
    discordant = cells[0, 1] + cells[1, 0]
    assert (discordant < 25) == (users == 24)
    known = mcnemar(cells, exact=bool(discordant < 25), correction=True).pvalue
    assert (change.test, change.p_value, change.adjusted) == ("McNemar", pytest.approx(known), pytest.approx(known))
    assert [change.binary[name] for name in ("both", "only_first", "only_second", "neither")] == cells.ravel().tolist()
    assert (change.verdict == "regression") == (known <= 0.05)
    # The same two as subjects of one report.
    given = {"base": subject(before), "base+persona": subject(after)}
    (row,) = [
        row
        for row in read(make_report("c", given, users=users, items=1)).config["tests"]["rows"]
        if row["metric"] == "gain"
    ]
    assert (row["test"], row["p_value"], row["binary"]) == (change.test, change.p_value, change.binary)


def test_a_margin_and_several_items_of_one_user_leave_the_decision_to_sign_flips(make_report, better_and_worse):
    good, bad = map(open_side, better_and_worse)
    several = _change(compare(good, bad))
    assert several.test == "sign flips"
    assert (several.binary["items"], several.binary["clusters"], several.binary["most"]) == (48, 12, 4)
    assert several.binary["over_users"]["p_value"] == several.p_value != several.binary["p_value"]
    assert several.binary["over_users"]["value"] == several.change
    sides = [
        open_side(make_report(name, {"base": subject(coin(share, seed))}, users=30, items=1))
        for name, share, seed in (("c", 0.9, 1), ("d", 0.2, 2))
    ]
    plain, allowed = (_change(compare(*sides, Options(metrics=("gain",), margins=each))) for each in ((), ("0.1",)))
    assert (plain.test, allowed.test) == ("McNemar", "sign flips")
    assert plain.binary == allowed.binary
    assert plain.p_value < allowed.p_value < 0.05


def test_shares_and_what_is_scored_too_rarely_are_no_yes_or_no(make_report):
    half = open_side(make_report("a", {"base": subject(lambda user, item: 0.5)}))
    holes = open_side(make_report("b", {"base": subject(lambda user, item: "judge_prose" if item == 0 else 1.0)}))
    assert (_change(compare(half, half)).test, _change(compare(half, half)).binary) == ("sign flips", None)
    assert (_change(compare(holes, holes)).test, _change(compare(holes, holes)).binary) == (None, None)
    assert item_by_item.grid(compare(half, half, Options(metrics=("gain",)))).rows == ()


def test_the_table_says_which_report_is_which(better_and_worse):
    found = compare(*map(open_side, better_and_worse))
    table = item_by_item.grid(found)
    assert table.columns[3:7] == ("Both", "Only after", "Only before", "Neither")
    cells = dict(table.rows)["Gain: base"]
    binary = _change(found).binary
    assert [each.value for each in cells[3:5]] == [str(binary["only_first"]), str(binary["only_second"])]
    assert binary["only_first"] < binary["only_second"], "the second report is the worse one"
    said = texts.markdown(found)
    assert "#### Yes or no, item by item" in said
    assert "takes items as independent" in said
    assert "p-values are of sign flips of whole users, corrected" in said


def _with_parts(side, keep):
    """The report with its gain made of two parts: gain is their mean."""
    parts = [Metric(name=f"kept.{name}", label=name, meaning="m", role="detail") for name in ("short", "bullets")]
    scores = [
        Score(sample_id=each.sample_id, metric=part.name, value=keep(each.sample_id, part.label))
        for each in side.report.samples
        for part in parts
    ]
    report = side.report.model_copy(
        update={"metrics": (*side.report.metrics, *parts), "scores": (*side.report.scores, *scores)}
    )
    return Side(side.path, report)


def test_a_mean_of_yes_or_no_parts_is_paired_part_by_part(make_report):
    sides = [open_side(make_report(name, {"base": subject(lambda user, item: 0.5)})) for name in ("a", "b")]
    before = _with_parts(sides[0], lambda _, part: float(part == "short"))
    after = _with_parts(sides[1], lambda sample, part: float(part == "bullets" or sample.startswith("user-0/")))
    change = _change(compare(before, after, Options(metrics=("gain",))))
    assert change.test == "sign flips"
    found = change.binary
    assert (found["unit"], found["items"], found["clusters"], found["most"]) == ("single preferences", 96, 12, 8)
    assert [found[name] for name in ("both", "only_first", "only_second", "neither")] == [4, 48, 44, 0]
