"""An evaluation with known answers: two subjects, a few users, and a judge whose verdicts we chose."""

from __future__ import annotations

import json

import pytest

from rlhi_eval_harness.judging import Judgment
from rlhi_eval_harness.records import EvalSample, PlannedSample
from rlhi_eval_harness.run_folder import RunFolder, write_records, write_text
from rlhi_eval_harness.subjects import parse_subjects
from rlhi_eval_harness.suites.kind import Stored
from rlhi_eval_harness.suites.suite import parse_suite
from rlhi_eval_harness.usereval.kind import UserEval
from rlhi_plugin.records import ChatMessage

OURS, THEIRS = "quokka:model=one+persona", "zebra:model=two"
SUBJECT, VERSUS = "quokka+persona", "zebra"
"""Names that occur in no text and in no library's code, so that a page that holds one gives itself away."""


def sample(user, number, subject, **more):
    """One planned prompt, with the persona in the system prompt of one of the two subjects."""
    said = (
        ChatMessage(role="user", content="Hello."),
        ChatMessage(role="assistant", content="How can I help?"),
        ChatMessage(role="user", content=f"Question {number} of {user}?"),
    )
    system = (ChatMessage(role="system", content="The user likes it short."),) if subject == SUBJECT else ()
    values = {
        "sample_id": f"{user}/{number}/{subject}",
        "suite": "usereval",
        "subject": subject,
        "user": user,
        "group": "initial",
        "request": said[-1].content,
        "prompt": (*system, *said),
        "max_tokens": 64,
        "temperature": 0.0,
        "seed": 0,
        "facts": {"persona": ["“Shorter, please.”"], "logged_reply": "-", "follow_up": None, "label": None},
    }
    return PlannedSample.model_validate({**values, **more})


def output(planned, text, **more):
    values = {
        "sample_id": planned.sample_id, "suite": planned.suite, "subject": planned.subject, "user": planned.user,
        "group": planned.group, "prompt": planned.prompt, "output": text, "finish_reason": "stop",
    }  # fmt: skip
    return EvalSample.model_validate({**values, **more})


@pytest.fixture
def make_folder(tmp_path):
    """A function that writes an evaluation: `users` with `each` requests, answered by both subjects."""

    def make(users=4, each=3, *, subjects=(THEIRS, OURS), name="report"):
        folder = RunFolder(tmp_path / name)
        folder.path.mkdir()
        suite = {"name": "usereval", "kind": "usereval", "summary": "s", "subjects": list(subjects), "resamples": 100}
        parsed = parse_suite(suite, "test")
        config = {"suite": parsed.model_dump(mode="json"), "models": {}, "persona_frame_digest": "0"}
        write_text(folder.config, json.dumps(config))
        names = [subject.name for subject in parse_subjects(subjects)]
        plan = [
            sample(f"user{user:02d}", number, subject)
            for user in range(users)
            for number in range(each)
            for subject in names
        ]
        write_records(folder.plan, plan)
        write_records(folder.outputs, [output(planned, _text(planned)) for planned in plan])
        return folder

    return make


def _text(planned):
    """The one that is to win is short; the other one is long."""
    if planned.subject == SUBJECT:
        return f"In short: yes, {planned.user}."
    return f"Well, about that there would be much to say, {planned.user}. " * len(planned.subject)


@pytest.fixture
def read():
    """Plan, outputs and kind of a folder."""

    def read(folder):
        from rlhi_eval_harness.evaluate import read_stored
        from rlhi_eval_harness.report.build import read_suite

        stored: Stored = read_stored(folder)
        return UserEval(read_suite(folder)), stored

    return read


@pytest.fixture
def judge_says():
    """Writes a judge's verdicts: a function of item and dimension gives 1 where our subject wins, 0 lost, 0.5 tie."""

    def write(folder, kind, stored, verdict, judge="judge"):
        lines = []
        for question in kind.questions(stored):
            if not question.question_id.endswith(("/first", "/second")):
                continue
            first = question.question_id.endswith("/first")
            item = "/".join(question.question_id.split("/")[:2])
            answers = {}
            for dimension in question.answers:
                value = verdict(item, dimension)
                answers[dimension] = "tie" if value == 0.5 else "A" if (value == 1) == first else "B"
            lines.append(
                Judgment(question_id=question.question_id, judge=judge, version=question.version, answers=answers)
            )
        with folder.judgments.open("a") as file:
            file.writelines(line.to_json() + "\n" for line in lines)

    return write
