"""PrefEval's multiple choice on files of its form, and on the real ones where they are."""

import json
import os
from pathlib import Path

import pytest

from rlhi_eval_harness.evaluate import evaluate
from rlhi_eval_harness.models import open_assistants
from rlhi_eval_harness.prefeval.data import read_items
from rlhi_eval_harness.prefeval.kind import PrefEval, PrefEvalOptions, letter_of
from rlhi_eval_harness.records import PlannedSample
from rlhi_eval_harness.run_folder import read_records
from rlhi_eval_harness.subjects import parse_subjects
from rlhi_plugin.errors import ArtefactError, ConfigError
from rlhi_plugin.logs import write_conversations
from rlhi_plugin.records import Conversation, Message

TOPICS = ("food", "travel")


@pytest.fixture
def data(tmp_path):
    """Two topics of two items each, and a file manager's copy of one."""
    for topic in TOPICS:
        rows, choices = [], []
        for i in range(2):
            row = {"preference": f"I avoid {topic} {i}.", "question": f"Which {topic}?", "explanation": "x"}
            rows.append({**row, "classification_task_options": [f"right {topic} {i}", "no", "nay", "never at all"]})
            talk = {
                "query": "q", "assistant_options": "1. a 2. b", "user_selection": "the first",
                "assistant_acknowledgment": "fine",
            }  # fmt: skip
            choices.append({**row, "conversation": talk})
        for part, content in (("mcq_options", rows), ("implicit_preference/choice-based", choices)):
            (tmp_path / "data" / part).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / part / f"{topic}.json").write_text(json.dumps(content))
    copy = tmp_path / "data/mcq_options/food copy.json"
    copy.write_text((tmp_path / "data/mcq_options/food.json").read_text())
    return tmp_path / "data"


@pytest.fixture
def log(tmp_path):
    """Three conversations of two exchanges, one of them toxic, one with an overlong answer."""

    def talk(name, toxic=False, answer="short"):
        texts = [("user", f"{name} one"), ("assistant", "a"), ("user", f"{name} two"), ("assistant", answer)]
        messages = tuple(Message(id=str(i), role=role, content=text) for i, (role, text) in enumerate(texts))
        return Conversation(conversation_id=name, messages=messages, toxic=toxic)

    path = tmp_path / "log.jsonl"
    write_conversations(path, [talk("x"), talk("bad", toxic=True), talk("y", answer="long " * 1000), talk("z")])
    return path


def _options(data, log, **more):
    values = {"name": "p", "summary": "s", "data": str(data), "distractors": str(log), "distances": (1, 5)}
    return PrefEvalOptions.model_validate({**values, "partial": True, "resamples": 100, **more})


def test_prompts_hold_the_preference_and_so_many_turns_after_it(data, log, tmp_path):
    options = _options(data, log, subjects=("base", "base+persona", "base+shuffled-persona"))
    plan = PrefEval(options).plan(None, None)
    assert len(plan) == 4 * 2 * 3
    by_id = {sample.sample_id: sample for sample in plan}
    near, far = (by_id[f"food-001/{distance:03d}/base"] for distance in (1, 5))
    assert [message.content for message in near.prompt[:1]] == ["I avoid food 1."]
    assert (len(near.prompt), len(far.prompt)) == (2 + 2 + 1, 2 + 10 + 1)
    assert near.prompt[:4] == far.prompt[:4]
    assert not any("bad" in message.content or "long" in message.content for message in far.prompt)
    assert near.options == far.options == by_id["food-001/001/base+persona"].options
    assert near.options[near.facts["right"]] == "right food 1"
    assert "I avoid food 1." in by_id["food-001/001/base+persona"].prompt[0].content
    assert "I avoid travel" in by_id["food-001/001/base+shuffled-persona"].prompt[0].content
    assert {sample.facts["right"] for sample in plan} != {0}


def test_a_preference_can_be_shown_by_a_choice(data):
    items, digest = read_items(data, "choice")
    assert [message.content for message in items[0].said] == ["q", "1. a 2. b", "the first", "fine"]
    assert digest != read_items(data, "explicit")[1]


def test_a_model_in_this_process_weighs_the_options(data, log, tiny_model_dir, tmp_path):
    subjects = ("base", "base+persona")
    models = open_assistants(parse_subjects(subjects), base=str(tiny_model_dir))
    report = evaluate(PrefEval(_options(data, log, subjects=subjects)), models, tmp_path / "out")
    assert [metric.name for metric in report.metrics] == ["correct", "correct_raw"]
    assert all(len(sample.likelihoods) == 4 for sample in report.samples)
    assert {each.group for each in report.estimates} == {"all", "1 turns", "5 turns"}
    assert report.config["chance"] == 0.25
    for sample in report.samples:
        planned = next(
            p for p in read_records(tmp_path / "out/plan.jsonl", PlannedSample) if p.sample_id == sample.sample_id
        )
        rates = [value / len(option) for value, option in zip(sample.likelihoods, planned.options, strict=True)]
        (score,) = [s.value for s in report.scores if (s.sample_id, s.metric) == (sample.sample_id, "correct")]
        assert score == float(rates.index(max(rates)) == planned.facts["right"])
    assert "5 turns" in (tmp_path / "out/report.md").read_text()


def test_what_is_missing_is_named_with_where_to_get_it(data, log, tmp_path):
    with pytest.raises(ConfigError, match=r"no folder was given.*git clone.*--set data=FOLDER"):
        PrefEval(PrefEvalOptions(name="p", summary="s")).plan(None, None)
    with pytest.raises(ConfigError, match="mcq_options holds none"):
        PrefEval(_options(tmp_path / "nowhere", log)).plan(None, None)
    with pytest.raises(ConfigError, match=r"no log was given.*--set distractors=LOG"):
        PrefEval(_options(data, None, distractors=None)).plan(None, None)
    with pytest.raises(ConfigError, match="holds 5 exchanges, and 30 are asked for"):
        PrefEval(_options(data, log, distances=(30,))).plan(None, None)
    with pytest.raises(ConfigError, match="has 4 items, and 5 are asked for"):
        PrefEval(_options(data, log, items=5)).plan(None, None)


def test_an_option_without_a_word_is_refused(data, log):
    file = data / "mcq_options/food.json"
    file.write_text(file.read_text().replace('"nay"', '""'))
    with pytest.raises(ArtefactError, match=r"food\.json: item 0 has another form"):
        PrefEval(_options(data, log)).plan(None, None)


def test_topics_that_are_missing_are_refused_or_named(data, log, tiny_model_dir, tmp_path):
    with pytest.raises(ConfigError, match=r"not hold all of PrefEval: 4 of 1000 items are there\. Get them with"):
        PrefEval(_options(data, log, partial=False)).plan(None, None)
    models = open_assistants(parse_subjects(("base",)), base=str(tiny_model_dir))
    kind = PrefEval(_options(data, log, subjects=("base",), distances=(0, 1), items=2))
    findings = evaluate(kind, models, tmp_path / "out").findings
    assert "Not all of PrefEval was there: 4 of 1000 items are there." in findings[1]
    assert findings[2].startswith("Only 2 items of PrefEval were asked")


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ("B", 1), ("(b)", 1), ("C. nay", 2), ("The answer is D.", 3), ("I would go for the blue one", 0),
        ("A book would do", "no_letter"), ("", "empty_answer"), ("It depends.", "no_letter"), ("G", "no_such_letter"),
    ],
)  # fmt: skip
def test_letters_are_read_with_care(answer, place):
    assert letter_of(answer, ["blue one", "no way", "not ever", "red one"]) == place


def test_the_published_files_are_read():
    root = Path(os.environ.get("RLHI_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data") / "prefeval"
    if not root.is_dir():
        pytest.skip(f"{root} is absent: set RLHI_TEST_DATA to the folder of real data")
    for form, messages in (("explicit", 2), ("choice", 4)):
        items, _ = read_items(root, form)
        assert len(items) == len({item.item_id for item in items}) == 1000
        assert {len(item.options) for item in items} == {4}
        assert {len(item.said) for item in items} == {messages}
