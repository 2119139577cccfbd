"""Answers that fail, that are made elsewhere, and that a log already holds."""

import json

import pytest

from rlhi_eval_harness.answering import HOPELESS_AFTER, answer, current
from rlhi_eval_harness.records import EvalSample, PlannedSample
from rlhi_eval_harness.run_folder import read_records
from rlhi_eval_harness.scoring import by_sample, no_answer
from rlhi_plugin.chat import ScriptedClient
from rlhi_plugin.errors import ConfigError, ModelCallError, RecordError
from rlhi_plugin.records import ChatMessage


def _plan(count=3, source="base", subject="it", **more):
    return [
        PlannedSample(
            sample_id=f"u{i}/0/{subject}", suite="s", subject=subject, source=source, user=f"u{i}", request=f"q{i}",
            prompt=(ChatMessage(role="user", content=f"q{i}"),), max_tokens=8, temperature=0.0, seed=i, **more,
        )
        for i in range(count)
    ]  # fmt: skip


class Failing(ScriptedClient):
    """Fails where the prompt says so."""

    def __init__(self, *bad: str) -> None:
        super().__init__(lambda request: f"to {request.messages[-1].content}")
        self.bad = set(bad)

    async def complete(self, request):
        if request.messages[-1].content in self.bad:
            raise ModelCallError("the window is too small. Trim the history.")
        return await super().complete(request)


class Models:
    def __init__(self, client):
        self._client = client
        self.identity = {}

    def client(self, source):
        return self._client

    def weigh(self, source, prompts):
        return None


def test_a_call_that_fails_is_on_record_and_tried_again(tmp_path):
    outputs, client = tmp_path / "outputs.jsonl", Failing("q1")
    answer(_plan(), Models(client), outputs)
    found = {each.sample_id: each for each in current(read_records(outputs, EvalSample))}
    assert found["u0/0/it"].output == "to q0"
    assert found["u1/0/it"].failed.startswith("call_failed: the window is too small")
    assert no_answer(found["u1/0/it"]) == "call_failed"
    client.bad.clear()
    assert answer(_plan(), Models(client), outputs) == 2
    assert [each.messages[-1].content for each in client.requests] == ["q0", "q2", "q1"]
    mended = by_sample(_plan(), current(read_records(outputs, EvalSample)))
    assert {each.output for each in mended.values()} == {"to q0", "to q1", "to q2"}


def test_where_no_call_succeeds_the_run_stops(tmp_path):
    plan = _plan(HOPELESS_AFTER + 4)
    client = Failing(*(sample.request for sample in plan))
    with pytest.raises(ModelCallError, match="too small"):
        answer(plan, Models(client), tmp_path / "outputs.jsonl")
    assert len(read_records(tmp_path / "outputs.jsonl", EvalSample)) < HOPELESS_AFTER


def _outside(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return f"outputs={path}"


def test_outputs_made_elsewhere_are_taken_over(tmp_path):
    rows = [{"item_id": f"u{i}/0", "output": f"out {i}", "mine": 1} for i in (2, 0, 1)]
    source = _outside(tmp_path / "o.jsonl", rows)
    answer(_plan(source=source), Models(None), tmp_path / "outputs.jsonl")
    assert [each.output for each in read_records(tmp_path / "outputs.jsonl", EvalSample)] == ["out 0", "out 1", "out 2"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["u0/0", "u1/0"], r"1 missing \(u2/0\)"),
        (["u0/0", "u1/0", "u2/0", "u1/0"], r"1 doubled \(u1/0\)"),
        (["u0/0", "u1/0", "u2/0", "x"], r"1 not asked for \(x\)"),
        ([], r"3 missing \(u0/0, u1/0, u2/0\)"),
    ],
)
def test_outputs_with_missing_doubled_or_stray_ids_are_refused(tmp_path, ids, message):
    source = _outside(tmp_path / "o.jsonl", [{"item_id": id_, "output": "x"} for id_ in ids])
    with pytest.raises(ConfigError, match=message):
        answer(_plan(source=source), Models(None), tmp_path / "outputs.jsonl")


def test_a_damaged_or_absent_outputs_file_is_named(tmp_path):
    (tmp_path / "o.jsonl").write_text('{"item_id": "u0/0", "output": "x"}\n[]\n')
    with pytest.raises(RecordError, match=r"o\.jsonl:2"):
        answer(_plan(source=f"outputs={tmp_path / 'o.jsonl'}"), Models(None), tmp_path / "outputs.jsonl")
    with pytest.raises(ConfigError, match="Check the path"):
        answer(_plan(source="outputs=nowhere.jsonl"), Models(None), tmp_path / "outputs.jsonl")


def test_the_logs_own_answer_is_a_subject(tmp_path):
    plan = [*_plan(1, source="logged", logged="as it was"), *_plan(1, source="logged", subject="other")]
    answer(plan, Models(None), tmp_path / "outputs.jsonl")
    first, second = read_records(tmp_path / "outputs.jsonl", EvalSample)
    assert first.output == "as it was"
    assert no_answer(second) == "not_in_the_log"


def test_options_are_lettered_where_nothing_can_weigh_them(tmp_path):
    client = ScriptedClient(["B"])
    answer(_plan(1, source="endpoint=m", options=("red", "blue")), Models(client), tmp_path / "outputs.jsonl")
    assert client.requests[0].messages[-1].content.startswith("q0\n\nA. red\nB. blue\n\n")
