"""UserEval from a log with known users to a judged report, through the commands that users give."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from rlhi_eval_harness import cli
from rlhi_eval_harness.records import EvalReport
from rlhi_eval_harness.usereval import build as build_module
from rlhi_eval_harness.usereval.build import BuildRequest, build
from rlhi_eval_harness.usereval.records import BuildOptions, UserEvalItem, read_manifest
from rlhi_eval_harness.usereval.select import choose
from rlhi_plugin.errors import ArtefactError, ConfigError
from rlhi_plugin.fake_provider import FakeProvider
from rlhi_plugin.logs import write_conversations
from rlhi_plugin.records import Conversation, Message

START = datetime(2026, 1, 1, tzinfo=UTC)
RUN = CliRunner()


def talk(user, day, *texts, name=None, timed=True, **more):
    """A conversation of alternating texts on one day, one minute apart."""
    at = [START + timedelta(days=day, minutes=i) if timed else None for i in range(len(texts))]
    messages = tuple(
        Message(id=f"m{i}", role="user" if i % 2 == 0 else "assistant", content=text, created_at=at[i])
        for i, text in enumerate(texts)
    )
    return Conversation(conversation_id=name or f"{user}-{day}", user_id=user, messages=messages, **more)


def history(user, wish, day):
    return talk(user, day, "How do plants grow?", "They do.", wish, "Better.")


def evaluated(user, day):
    return talk(
        user, day, f"{user} asks {day}?", "logged answer", "No, please make it shorter.", "ok", "Thanks!", "bye"
    )


def whole(user, wish):
    return [history(user, wish, 1), history(user, wish, 2), evaluated(user, 3), evaluated(user, 4)]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    conversations = [
        *whole("ann", "Please keep it shorter."),
        *whole("bob", "Please use bullet points."),
        *whole("cyn", "Please use numbers."),
        history("dan", "Please be brief.", 1),
        talk(None, 1, "who am I?", "nobody", name="anonymous"),
        *[talk("eve", day, "hello", "hi") for day in (1, 2, 3, 4)],
        *[talk("fay", day, "hello", "hi", timed=False) for day in (1, 2, 3, 4)],
    ]
    write_conversations(path, conversations)
    return path


@pytest.fixture(autouse=True)
def _quick_labels(monkeypatch, labeller):
    """The embedded labeller takes seconds to load; its own tests load it."""
    monkeypatch.setattr(build_module, "load_labeller", lambda name, llm=None: labeller)
    monkeypatch.setenv("OPENAI_API_KEY", "any")


@pytest.fixture(scope="module")
def suite(log, tmp_path_factory, labeller):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_module, "load_labeller", lambda name, llm=None: labeller)
        out = tmp_path_factory.mktemp("suite") / "suite"
        return out, build(BuildRequest(log=log, out=out))


def _items(folder):
    return [UserEvalItem.model_validate_json(line) for line in (folder / "items.jsonl").read_text().splitlines()]


def test_users_with_enough_history_are_held_out_and_the_rest_is_counted(suite):
    out, built = suite
    manifest = read_manifest(out / "manifest.json")
    assert set(manifest.users) == {"ann", "bob", "cyn"}
    assert manifest.dropped_users == {
        "anonymous_conversations": 1, "too_few_conversations": 1, "users_without_times": 1, "too_little_known": 1,
    }  # fmt: skip
    assert built.counts["held-out users"] == 3
    assert (built.counts["initial turns"], built.counts["follow-up turns"]) == (6, 12)
    assert built.counts["turns with a real follow-up"] == 12
    assert manifest.users["ann"].history == ("ann-1", "ann-2")


def test_a_manifest_holds_ids_and_no_text(suite):
    text = (suite[0] / "manifest.json").read_text()
    for said in ("plants", "shorter", "logged", "asks", "bullet"):
        assert said not in text


def test_nothing_evaluated_is_known_beforehand(suite):
    out, _ = suite
    personas = (out / "personas.jsonl").read_text()
    for item in _items(out):
        assert item.request not in personas
        assert item.conversation_id in {f"{item.user}-3", f"{item.user}-4"}
        assert all(item.request != message.content for message in item.history)
    first, second, third = _items(out)[:3]
    assert (first.turn, first.group, first.follow_up, first.label) == (
        0, "initial", "No, please make it shorter.", "reattempt_with_feedback",
    )  # fmt: skip
    assert [message.content for message in second.history] == ["ann asks 3?", "logged answer"]
    assert (third.group, third.follow_up, third.logged_reply) == ("follow-up", None, "bye")


def test_a_conversation_that_overlaps_the_evaluated_ones_is_no_history():
    late = talk("ann", 3, *["x", "y"] * 1000, name="endless")
    late = late.model_copy(update={"started_at": START})
    choice = choose([history("ann", "w", 1), late, evaluated("ann", 3), evaluated("ann", 4)], BuildOptions())
    assert not choice.users
    assert choice.dropped == {"too_little_history_before": 1}


def test_the_manifest_gives_the_same_suite_again_or_none(suite, log, tmp_path):
    out, _ = suite
    build(BuildRequest(log=log, out=tmp_path / "again", manifest=out / "manifest.json"))
    for name in ("manifest.json", "items.jsonl", "personas.jsonl", "suite.toml"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()
    lines = log.read_text().splitlines(keepends=True)
    (tmp_path / "part.jsonl").write_text("".join(line for line in lines if "bob-4" not in line))
    with pytest.raises(ConfigError, match=r"lacks 1 of 12 conversations of the manifest, such as bob-4"):
        build(BuildRequest(log=tmp_path / "part.jsonl", out=tmp_path / "b", manifest=out / "manifest.json"))
    (tmp_path / "edited.jsonl").write_text("".join(lines).replace("keep it shorter", "keep it longer"))
    with pytest.raises(ConfigError, match=r"1 of 3 users and .* items differ"):
        build(BuildRequest(log=tmp_path / "edited.jsonl", out=tmp_path / "c", manifest=out / "manifest.json"))


def test_users_that_training_saw_are_not_held_out(suite, log, tmp_path):
    write_conversations(tmp_path / "training.jsonl", [history("bob", "w", 1)])
    build(BuildRequest(log=log, out=tmp_path / "less", exclude=(tmp_path / "training.jsonl",)))
    manifest = read_manifest(tmp_path / "less/manifest.json")
    assert set(manifest.users) == {"ann", "cyn"}
    assert manifest.dropped_users["excluded"] == 1
    with pytest.raises(ConfigError, match="nobody in"):
        build(BuildRequest(log=log, out=tmp_path / "none", exclude=(suite[0] / "manifest.json",)))


def test_wildchat_rows_are_a_log(tmp_path):
    def row(address, day, *texts):
        turns = [
            {"role": "user" if i % 2 == 0 else "assistant", "content": text, "hashed_ip": address, "toxic": day == 9}
            for i, text in enumerate(texts)
        ]
        at = (START + timedelta(days=day)).isoformat()
        return {"conversation_hash": f"{address}{day}", "model": "gpt", "timestamp": at, "conversation": turns}

    wish = ("How do plants grow?", "They do.", "Please keep it shorter.", "Grow.")
    rows = [row("a", day, *wish) for day in (1, 2, 3)] + [row("a", 9, "Something vile", "No.")]
    (tmp_path / "wildchat.jsonl").write_text("\n".join(map(json.dumps, rows)))
    build(BuildRequest(log=tmp_path / "wildchat.jsonl", out=tmp_path / "suite"))
    manifest = read_manifest(tmp_path / "suite/manifest.json")
    assert [(item.conversation_id, item.message_id, item.turn) for item in manifest.items] == [
        ("a3", "a3:0", 0), ("a3", "a3:2", 1),
    ]  # fmt: skip
    assert manifest.dropped_items == {"toxic_conversation": 1}
    assert next(iter(manifest.users)).startswith("u_")


def test_mistakes_are_named(log, tmp_path, suite):
    with pytest.raises(ConfigError, match=r"Options: min_history"):
        build(BuildRequest(log=log, out=tmp_path / "a", settings=("wit=3",)))
    with pytest.raises(ConfigError, match="is not empty"):
        build(BuildRequest(log=log, out=suite[0]))
    with pytest.raises(ConfigError, match="or lower min_history"):
        build(BuildRequest(log=log, out=tmp_path / "a", settings=("min_history=30",)))
    unbuilt = RUN.invoke(
        cli.app, ["answer", "--suite", "usereval", "--subject", "logged", "--out", str(tmp_path / "o")]
    )
    assert isinstance(unbuilt.exception, ConfigError)
    assert "rlhi-eval build-usereval LOG" in str(unbuilt.exception)


def test_an_edited_suite_is_refused(suite, tmp_path):
    import shutil

    shutil.copytree(suite[0], tmp_path / "suite")
    items = tmp_path / "suite/items.jsonl"
    items.write_text("".join(items.read_text().splitlines(keepends=True)[1:]))
    ran = RUN.invoke(cli.app, _run(tmp_path / "suite", tmp_path / "out"))
    assert isinstance(ran.exception, ArtefactError)
    assert "does not hold the manifest's items" in str(ran.exception)


def _run(folder, out, *more):
    return ["run", "--suite", str(folder), "--subject", "logged", "--out", str(out), "--set", "resamples=100", *more]


def judge_who_likes(word):
    """Prefers the answer with `word`; finds that users ask again where it is missing."""

    def script(request):
        shown = json.loads(request.last_user_text)
        if "new_answer" in shown:
            return json.dumps({"asks_again": "no" if word in shown["new_answer"] else "yes"})
        better = "A" if word in shown["answer_A"] else "B" if word in shown["answer_B"] else "tie"
        return json.dumps({"overall": better, "personalization": better, "instruction_following": "tie"})

    return script


def test_a_served_model_beats_the_log_in_the_eyes_of_the_judge(suite, tmp_path):
    folder, out = suite[0], tmp_path / "out"

    def assistant(request):
        return "a better answer" if "persona" in request.system_text or request.system_text else "plain"

    with FakeProvider(assistant) as served, FakeProvider(judge_who_likes("better")) as judging:
        endpoint = f"new:endpoint=openai/m@{served.base_url}+persona"
        judge = f"openai/judge@{judging.base_url}"
        ran = RUN.invoke(cli.app, _run(folder, out, "--subject", endpoint, "--judge", judge), catch_exceptions=False)
        assert ran.exit_code == 0
        assert len(served.requests) == 18
        # 18 pairs hidden and 12 shown, in both orders; 12 replays of two subjects.
        assert len(judging.requests) == 2 * (18 + 12) + 2 * 12
        again = RUN.invoke(cli.app, ["score", str(out), "--judge", judge], catch_exceptions=False)
        assert again.exit_code == 0
        assert len(judging.requests) == 84
    report = EvalReport.model_validate_json((out / "report.json").read_text())
    found = {(e.metric, e.subject, e.group): e for e in report.estimates}
    for metric in ("overall", "personalization", "overall_shown"):
        assert found[metric, "new+persona", "all"].value == 1.0
    assert found["instruction_following", "new+persona", "all"].value == 0.5
    assert (found["overall", "new+persona", "initial"].n, found["overall", "new+persona", "follow-up"].n) == (6, 12)
    assert ("overall", "logged", "all") not in found
    assert found["asks_again", "logged", "all"].value == 1.0
    assert found["asks_again", "new+persona", "all"].value == 0.0
    (asks,) = [row for row in report.config["tests"]["rows"] if row["metric"] == "asks_again" and row["binary"]]
    counts = {name: asks["binary"][name] for name in ("items", "clusters", "most", "only_first", "only_second")}
    assert counts == {"items": 12, "clusters": 3, "most": 4, "only_first": 0, "only_second": 12}
    assert asks["test"] == "sign flips"
    assert asks["binary"]["over_users"]["value"] == -1.0
    assert report.config["turns"] == {"all": 18, "with_real_follow_up": 12, "log_asked_again_with_feedback": 1.0}
    assert report.config["judging"][0]["order_consistency"] == 1.0
    (left_out,) = report.config["tables"]
    assert left_out["rows"] == [
        ["users", "anonymous conversations", "1"], ["users", "too few conversations", "1"],
        ["users", "too little known", "1"], ["users", "users without times", "1"],
    ]  # fmt: skip
    # Three users prove nothing, whatever the judge says.
    assert "Overall preference: not shown to win or lose against the baseline: new+persona 100 %" in " ".join(
        report.findings
    )
    hidden = [json.loads(r.last_user_text) for r in judging.requests]
    assert sum("real_follow_up" in shown for shown in hidden) == 24 + 24
    html = (out / "report.html").read_text()
    assert "Personalization, follow-up shown" in html
    assert "openai/judge" in html


def test_without_a_judge_nothing_is_claimed(suite, tmp_path):
    folder, out = suite[0], tmp_path / "out"
    plan = [*_run(folder, out)[1:], "--subject", f"mine:outputs={tmp_path / 'mine.jsonl'}"]
    assert RUN.invoke(cli.app, ["answer", *plan, "--plan-only"], catch_exceptions=False).exit_code == 0
    ids = {json.loads(line)["sample_id"].rpartition("/")[0] for line in (out / "plan.jsonl").read_text().splitlines()}
    rows = [json.dumps({"item_id": id_, "output": "made elsewhere"}) for id_ in sorted(ids)]
    (tmp_path / "mine.jsonl").write_text("\n".join(rows))
    ran = RUN.invoke(cli.app, ["run", *plan], catch_exceptions=False)
    assert ran.exit_code == 0
    report = EvalReport.model_validate_json((out / "report.json").read_text())
    assert report.findings[0].startswith("Nothing was judged yet")
    wins = [score for score in report.scores if score.metric == "overall"]
    assert {score.unscored for score in wins} == {"not_judged"}
    assert len(wins) == 18
