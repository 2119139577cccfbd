"""From a folder to a study: what is shown, what is not and why, and what is refused."""

import json

import pytest
from typer.testing import CliRunner

from rlhi_eval_harness import cli
from rlhi_eval_harness.human.guidance import load_guidance
from rlhi_eval_harness.human.planning import STUDY, Wishes, open_study
from rlhi_eval_harness.records import EvalSample
from rlhi_eval_harness.run_folder import read_records, write_records
from rlhi_plugin.errors import ArtefactError, ConfigError, MissingExtraError

SUBJECT, VERSUS = "quokka+persona", "zebra"
RUN = CliRunner()


def plan(folder, read, name="main", **wishes):
    return open_study(folder, name, *read(folder), Wishes(**wishes))


def change(folder, sample_id, **fields):
    outputs = [
        each.model_copy(update=fields) if each.sample_id == sample_id else each
        for each in read_records(folder.outputs, EvalSample)
    ]
    write_records(folder.outputs, outputs)


def test_the_suites_dimensions_are_asked_the_sum_of_it_last_and_wins_are_against_the_first_subject(make_folder, read):
    study = plan(make_folder(), read, subjects=(VERSUS, SUBJECT))
    assert list(study.dimensions) == ["personalization", "instruction_following", "overall"]
    assert (study.subject, study.versus) == (SUBJECT, VERSUS)
    assert (len(study.items), study.eligible, study.overlap, study.check_every) == (12, 12, 2, 10)
    assert study.guidance == load_guidance().version
    assert load_guidance().question("quality", "Quality") == "Quality: which answer is better?"


def test_what_cannot_be_compared_is_left_out_with_the_reason(make_folder, read):
    folder = make_folder()
    change(folder, f"user00/0/{SUBJECT}", failed="call_failed: gone", output="")
    change(folder, f"user00/1/{SUBJECT}", finish_reason="refused")
    change(folder, f"user00/2/{SUBJECT}", output="the same ")
    change(folder, f"user00/2/{VERSUS}", output="the same")
    study = plan(folder, read)
    assert study.left_out == {"call_failed": 1, "refused": 1, "equal_answers": 1}
    assert (study.eligible, len(study.items)) == (9, 9)


def test_a_sample_of_items_comes_from_the_seed(make_folder, read):
    folder = make_folder()
    found = [
        tuple(item.item_id for item in plan(folder, read, name, items=5, seed=seed).items)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert found[0] == found[1] != found[2]
    assert len(found[0]) == 5
    assert len(plan(folder, read, "d", items=500).items) == 12


def test_it_goes_on_without_options_and_refuses_others(make_folder, read):
    folder = make_folder()
    first = plan(folder, read, items=5, overlap=3, seed=4, dimensions=("overall",))
    assert plan(folder, read) == first
    assert plan(folder, read, items=5, overlap=3, seed=4) == first
    for wish, name in (({"overlap": 2}, "--overlap"), ({"seed": 0}, "--seed"), ({"items": 6}, "--items")):
        with pytest.raises(ConfigError, match=rf"another {name}\. Leave the option out"):
            plan(folder, read, **wish)


def test_answers_that_have_changed_since_are_refused(make_folder, read):
    folder = make_folder()
    plan(folder, read)
    change(folder, f"user00/0/{SUBJECT}", output="another answer")
    with pytest.raises(ArtefactError, match=r"1 of 12 pairs .* such as user00/0\. Put the answers back"):
        plan(folder, read)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"subjects": ("lion",)}, "no subject 'lion' in this evaluation. It has: zebra, quokka"),
        ({"subjects": (VERSUS,)}, "name two subjects of: zebra, quokka"),
        ({"dimensions": ("taste",)}, "no dimension 'taste'. It has: overall, personalization"),
    ],
)
def test_names_that_are_none_are_refused(make_folder, read, wishes, message):
    with pytest.raises(ConfigError, match=message.replace("+", r"\+")):
        plan(make_folder(), read, **wishes)


def test_three_subjects_have_to_be_chosen_from(make_folder, read):
    folder = make_folder(subjects=("zebra:model=a", "quokka:model=b", "adapter=x+persona"), name="three")
    assert (plan(folder, read).subject, plan(folder, read).versus) == ("adapter+persona", "zebra")
    folder = make_folder(subjects=("zebra:model=a", "quokka:model=b", "lynx:model=c"), name="others")
    with pytest.raises(ConfigError, match="For example: --subject quokka --subject zebra"):
        plan(folder, read)


# What the command says of folders that are none.


def run(*words):
    return RUN.invoke(cli.app, ["human", *map(str, words)])


def test_a_wrong_folder_is_refused(tmp_path):
    (tmp_path / "letters").mkdir()
    for path in (tmp_path / "letters", tmp_path / "nowhere"):
        found = run(path)
        assert isinstance(found.exception, ConfigError)
        assert str(found.exception).endswith("holds no evaluation. Make one with: rlhi-eval run")


def test_a_folder_with_one_subject_is_refused(make_folder):
    found = run(make_folder(subjects=("zebra:model=two",)).path)
    assert isinstance(found.exception, ConfigError)
    assert "this evaluation has only zebra" in str(found.exception)


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--check-every", "1"], "0 for no checks"), (["--study", "../out"], "letters, digits")],
)
def test_options_that_cannot_be_are_refused(make_folder, options, message):
    found = run(make_folder().path, *options)
    assert isinstance(found.exception, ConfigError)
    assert message in str(found.exception)


def test_a_damaged_study_is_named(make_folder, read):
    folder = make_folder()
    plan(folder, read)
    path = folder.human / "main" / STUDY
    path.write_text(json.dumps({"name": "main"}))
    found = run(folder.path)
    assert isinstance(found.exception, ArtefactError)
    assert "study.json cannot be read" in str(found.exception)


def test_without_gradio_the_extra_is_named(make_folder, monkeypatch):
    monkeypatch.setattr("rlhi_eval_harness.human.cli.find_spec", lambda name: None)
    found = run(make_folder().path)
    assert isinstance(found.exception, MissingExtraError)
    assert "pip install 'rlhi[human]'" in str(found.exception)


def test_a_folder_that_cannot_be_written_is_the_users_to_mend(make_folder, monkeypatch):
    def denied(*args, **more):
        raise PermissionError(13, "Permission denied", "report/human")

    monkeypatch.setattr("rlhi_eval_harness.human.planning.write_text", denied)
    found = run(make_folder().path)
    assert isinstance(found.exception, ConfigError)
    assert "cannot write report/human" in str(found.exception)
