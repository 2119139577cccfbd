"""AlpacaEval and Arena-Hard as suites: answered by any subject, judged, scored again, resumed, and never smaller."""

import json
import math
import sys
from types import ModuleType

import pytest
from arena_hard_files import UIDS, write_arena_hard

from rlhi_eval_harness.alpaca import leaderboard
from rlhi_eval_harness.alpaca.annotator import Annotator
from rlhi_eval_harness.alpaca.kind import AlpacaEval, AlpacaEvalOptions
from rlhi_eval_harness.alpaca.leaderboard import NONE
from rlhi_eval_harness.alpaca.length_control import fit
from rlhi_eval_harness.alpaca.win_rates import win_rate
from rlhi_eval_harness.arena_hard import suite_tables
from rlhi_eval_harness.arena_hard.kind import ArenaHard, ArenaHardOptions
from rlhi_eval_harness.arena_hard.scores import arena_score
from rlhi_eval_harness.evaluate import answer_suite, evaluate, score_again
from rlhi_eval_harness.models import open_assistants
from rlhi_eval_harness.subjects import parse_subjects
from rlhi_eval_harness.suites import load_suite
from rlhi_plugin.calls.openai_client import OpenAIChatClient
from rlhi_plugin.chat import ScriptedClient
from rlhi_plugin.errors import ConfigError, RecordError
from rlhi_plugin.fake_provider import Answer, FakeProvider, HTTPFault, rate_limited
from rlhi_plugin.records import Evidence, Persona, PersonaStatement

N = 24


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")


@pytest.fixture
def alpaca_folder(tmp_path):
    """Files in AlpacaEval's form: a set, difficulties, and a model's outputs."""
    data = tmp_path / "alpaca"
    data.mkdir()
    rows = [
        {"instruction": f"Explain thing {i}.", "dataset": f"part {i % 2}", "output_gpt4_1106_preview": f"base text {i}"}
        for i in range(N)
    ]
    (data / "eval_set_805.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (data / "instruction_difficulty.csv").write_text(
        "index,instruction_difficulty\n" + "".join(f"{i},{i / N}\n" for i in range(N))
    )
    for name, word in (("good", "brilliant"), ("bad", "dull")):
        texts = [{"instruction": row["instruction"], "output": f"{word} " * (1 + i % 5)} for i, row in enumerate(rows)]
        (data / f"{name}.json").write_text(json.dumps(texts))
    return data


def _alpaca(data, *subjects, **options):
    values = {"name": "alpaca_eval", "summary": "s", "data": str(data), "resamples": 100, "subjects": subjects}
    return AlpacaEval(AlpacaEvalOptions.model_validate({**values, "partial": True, **options}))


def _run(kind, out, **kwargs):
    models = open_assistants(parse_subjects(kind.suite.subjects))
    return evaluate(kind, models, out, **kwargs)


def likes_brilliance(request):
    """Says which of the two outputs is better by the word it holds, sure by nine to one."""
    text = request.last_user_text
    place = max(text.find(word) for word in ("brilliant", "dull"))
    ours_first = place < text.index("base text")
    wins = "brilliant" in text
    said = "m" if ours_first == wins else "M"
    other = "M" if said == "m" else "m"
    return Answer(said, top_logprobs=((said, math.log(0.9)), (other, math.log(0.1))), finish_reason="length")


def _judge(provider, model="gpt-4-1106-preview"):
    return OpenAIChatClient(model, base_url=provider.base_url)


def test_alpaca_eval_is_answered_judged_and_scored(alpaca_folder, tmp_path):
    kind = _alpaca(alpaca_folder, f"good:outputs={alpaca_folder}/good.json", f"bad:outputs={alpaca_folder}/bad.json")
    out = tmp_path / "out"
    with FakeProvider(likes_brilliance) as provider:
        report = _run(kind, out, judges=[_judge(provider)])
        bodies = [request.body for request in provider.requests]
    assert len(bodies) == 2 * N
    assert {(b["model"], b["max_tokens"], b["top_logprobs"], b["temperature"]) for b in bodies} == {
        ("gpt-4-1106-preview", 1, 5, 1)
    }
    rates = {each.subject: each for each in report.estimates if (each.metric, each.group) == ("win_rate", "all")}
    assert rates["good"].value == pytest.approx(0.9)
    assert rates["bad"].value == pytest.approx(0.1)
    assert (rates["good"].n, rates["good"].clusters) == (N, N)
    (table,) = report.config["tables"]
    row = dict(zip(table["columns"], next(row for row in table["rows"] if row[0] == "good"), strict=True))
    assert row["Win rate"] == "90.00"
    assert "do not compare these numbers" in table["note"], "24 instructions are not the published set"
    judging = report.config["judging"][0]
    assert judging["answered"] == 2 * N
    assert 0 < judging["first_position_wins"] < 1, "the package draws which output stands first"
    assert judging["median_seconds"] > 0
    assert report.config["clusters"] == "instructions"
    html = (out / "report.html").read_text()
    assert "Length-controlled" in html
    assert "## AlpacaEval 2.0" in (out / "report.md").read_text()


def test_its_numbers_are_the_packages_own_on_its_own_files(alpaca_folder, tmp_path):
    """What the folder holds for alpaca_eval gives the same rates through the functions that are proved elsewhere."""
    from rlhi_eval_harness.alpaca.files import read_annotations, read_difficulties, read_instructions

    kind = _alpaca(alpaca_folder, f"good:outputs={alpaca_folder}/good.json")
    with FakeProvider(_unsure) as provider:
        report = _run(kind, tmp_path / "out", judges=[_judge(provider)])
    folder = tmp_path / "out/alpaca_eval/good"
    outputs = json.loads((folder / "model_outputs.json").read_text())
    assert outputs[0] == {
        "instruction": "Explain thing 0.", "dataset": "part 0", "output": "brilliant ", "generator": "good",
    }  # fmt: skip
    found = read_annotations(folder / "annotations.json", read_instructions(alpaca_folder / "eval_set_805.jsonl"))
    (whole,) = [e for e in report.estimates if (e.metric, e.group) == ("win_rate", "all")]
    assert win_rate(found).win_rate == pytest.approx(100 * whole.value)
    controlled = fit(found, read_difficulties(alpaca_folder / "instruction_difficulty.csv"))
    (table,) = report.config["tables"]
    assert table["rows"][0][3:5] == [f"{controlled.win_rate:.2f}", "refit without the gamed baselines"]
    assert "needs df_gamed.csv" in table["note"]


def _unsure(request):
    text = request.last_user_text
    share = 0.5 + 0.08 * text.count("brilliant")
    first = "m" if text.index("brilliant") < text.index("base text") else "M"
    other = "M" if first == "m" else "m"
    return Answer(first, top_logprobs=((first, math.log(share)), (other, math.log(1 - share))), finish_reason="length")


def test_length_control_says_what_it_was_computed_without(alpaca_folder, tmp_path):
    (alpaca_folder / "instruction_difficulty.csv").unlink()
    kind = _alpaca(alpaca_folder, f"good:outputs={alpaca_folder}/good.json", limit=12)
    with FakeProvider(likes_brilliance) as provider:
        report = _run(kind, tmp_path / "out", judges=[_judge(provider, "some-judge")])
    (table,) = report.config["tables"]
    assert table["rows"][0][3:5] == [NONE, "not computed"]
    assert "instruction_difficulty.csv is not in the data folder" in table["note"]
    assert "do not compare" in table["note"]
    assert "Only the first 12 items of AlpacaEval 2.0 were asked" in report.findings[0]


def test_prose_refusals_and_failed_calls_are_unscored_with_their_reason_and_failed_ones_asked_again(
    alpaca_folder, tmp_path
):
    def moody(request):
        text = request.last_user_text
        if "thing 3." in text:
            return Answer("I", top_logprobs=(("I", -0.1), ("Both", -2.0)), finish_reason="length")
        if "thing 5." in text:
            return Answer("", refusal="I will not judge this.")
        if "thing 7." in text:
            return HTTPFault(400, "this prompt is too long")
        return likes_brilliance(request)

    kind = _alpaca(alpaca_folder, f"good:outputs={alpaca_folder}/good.json")
    with FakeProvider(moody) as provider:
        report = _run(kind, tmp_path / "out", judges=[_judge(provider)])
    reasons = {s.sample_id: s.unscored for s in report.scores if s.metric == "win_rate" and s.unscored}
    assert reasons == {
        "instruction-003/0/good": "judge_prose",
        "instruction-005/0/good": "judge_refused",
        "instruction-007/0/good": "judge_call_failed",
    }
    (whole,) = [e for e in report.estimates if (e.metric, e.group) == ("win_rate", "all")]
    assert (whole.n, whole.unscored) == (N - 3, 3)
    assert report.config["tables"][0]["rows"][0][-1] == "12.5 % !"
    assert report.config["judging"][0]["unscored"] == {"judge_prose": 1, "judge_refused": 1, "judge_call_failed": 1}
    with FakeProvider(likes_brilliance) as provider:
        again = score_again(tmp_path / "out", judges=[_judge(provider)])
        assert len(provider.requests) == 1, "only the failed call is made again"
    assert sum(s.unscored is not None for s in again.scores if s.metric == "win_rate") == 2


def test_an_answer_equal_to_the_baselines_ties_unasked_and_an_empty_one_is_judged(alpaca_folder, tmp_path):
    texts = json.loads((alpaca_folder / "good.json").read_text())
    texts[0]["output"], texts[1]["output"] = "base text 0", ""
    (alpaca_folder / "good.json").write_text(json.dumps(texts))
    kind = _alpaca(alpaca_folder, f"good:outputs={alpaca_folder}/good.json", limit=2)
    judge = Answer("M", top_logprobs=(("M", -0.01), ("m", -5.0)), finish_reason="length")
    with FakeProvider(lambda _: judge) as provider:
        report = _run(kind, tmp_path / "out", judges=[_judge(provider)])
        assert len(provider.requests) == 1
    values = [score.value for score in report.scores if score.metric == "win_rate"]
    assert values[0] == 0.5
    assert values[1] is not None


def test_only_the_published_set_and_judge_may_stand_beside_the_leaderboard():
    assert Annotator().comparable("openai/gpt-4-1106-preview")
    assert not Annotator().comparable("openai/gpt-4o")
    assert not Annotator("weighted_alpaca_eval_gpt-4o-mini-2024-07-18").comparable("gpt-4o-mini-2024-07-18")
    assert "the leaderboard's." in leaderboard.table({}, {}, None, comparable=True)["note"]


def test_annotators_that_a_chat_client_cannot_be_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"wants .*rlhi-eval alpaca-eval annotate"):
        Annotator("alpaca_eval_gpt4_turbo_fn")
    with pytest.raises(ConfigError, match="is no annotator"):
        Annotator("nobody")


def test_texts_with_the_packages_own_markers_are_unscored_and_stop_nobody():
    asked = Annotator().asked([("say", "one", "two"), ("say", "one", "<|im_start|>")])
    assert asked[0] is not None
    assert len(asked) == 2


def test_a_judge_without_log_probabilities_is_refused(alpaca_folder, tmp_path):
    kind = _alpaca(alpaca_folder, f"good:outputs={alpaca_folder}/good.json")
    with pytest.raises(ConfigError, match="gives no log-probabilities"):
        _run(kind, tmp_path / "out", judges=[ScriptedClient(["m"])])


def test_absent_data_is_named_with_where_it_is_published(alpaca_folder, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"lacks eval_set_805\.jsonl or alpaca_eval_gpt4_baseline\.json.*--data"):
        _run(_alpaca(tmp_path / "nowhere", "base"), tmp_path / "out")
    assert not (tmp_path / "out/plan.jsonl").exists()
    hub = ModuleType("huggingface_hub")
    asked = []

    def download(repository, path, *, repo_type):
        asked.append((repository, path, repo_type))
        if path.endswith("question.jsonl"):
            raise OSError("no route")
        return str(alpaca_folder / "eval_set_805.jsonl")

    hub.hf_hub_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    kind = AlpacaEval(AlpacaEvalOptions.model_validate({"name": "a", "summary": "s"}))
    assert len(kind.items) == N
    assert asked == [("tatsu-lab/alpaca_eval", "alpaca_eval_gpt4_baseline.json", "dataset")]
    with pytest.raises(ConfigError, match=r"cannot be fetched from the hub \(OSError\).*--data"):
        _ = ArenaHard(ArenaHardOptions.model_validate({"name": "a", "summary": "s"})).items


def test_outputs_that_do_not_fit_are_refused(alpaca_folder, tmp_path):
    good = json.loads((alpaca_folder / "good.json").read_text())
    for change, message in (
        (good[1:], r"1 missing \(instruction-000/0\)"),
        ([*good, good[0]], r"1 doubled \(instruction-000/0\)"),
        ([*good, {"instruction": "What?", "output": "x"}], r"1 not asked for \(What\?\)"),
    ):
        (alpaca_folder / "x.json").write_text(json.dumps(change))
        with pytest.raises(ConfigError, match=message):
            _run(_alpaca(alpaca_folder, f"outputs={alpaca_folder}/x.json"), tmp_path / "out")
    (alpaca_folder / "x.json").write_text(json.dumps([{"instruction": "Explain thing 0."}]))
    with pytest.raises(RecordError, match="with item_id and output"):
        _run(_alpaca(alpaca_folder, f"outputs={alpaca_folder}/x.json"), tmp_path / "out")
    (alpaca_folder / "x.json").write_text("[{")
    with pytest.raises(ConfigError, match="is no JSON list"):
        _run(_alpaca(alpaca_folder, f"outputs={alpaca_folder}/x.json"), tmp_path / "out")


def test_a_part_of_the_benchmark_is_refused_unless_it_is_asked_for_and_then_named(
    alpaca_folder, arena_folder, tmp_path
):
    with pytest.raises(ConfigError, match=r"not hold all of AlpacaEval 2\.0: 24 of 805 items.*--set partial=true"):
        _run(_alpaca(alpaca_folder, "base", partial=False), tmp_path / "out")
    assert not (tmp_path / "out").exists(), "so that the command can be given again with partial"
    with pytest.raises(ConfigError, match=r"not hold all of Arena-Hard: 12 of 750 items"):
        _arena(arena_folder, "base", partial=False).plan(None, None)
    kind = _arena(arena_folder, f"mine:outputs={arena_folder}/mine.jsonl")
    report = _run(kind, tmp_path / "arena-run", judges=[ScriptedClient(verdicts, model="judge")])
    assert "Not all of Arena-Hard was there: 12 of 750 items are there." in report.findings[0]


def test_personas_are_dealt_out_and_asked_for_where_they_are_missing(alpaca_folder, tmp_path):
    with pytest.raises(ConfigError, match=r"knows no users.*--set personas=FILE"):
        _run(_alpaca(alpaca_folder, "base+persona"), tmp_path / "out")
    personas = [
        Persona(
            user_id=f"u_{name}",
            statements=(
                PersonaStatement(
                    text=f"wants {name}",
                    evidence=(Evidence(conversation_id="c", message_id="m", quote=f"wants {name}"),),
                ),
            ),
            builder="test",
        )
        for name in ("tea", "coffee")
    ]
    path = tmp_path / "personas.jsonl"
    path.write_text("".join(persona.to_json() + "\n" for persona in personas))
    kind = _alpaca(alpaca_folder, "base+persona", "base+shuffled-persona", "base", personas=str(path), limit=2)
    plan = kind.plan(None, type("F", (), {"path": tmp_path}))
    systems = {each.sample_id: [m.content for m in each.prompt if m.role == "system"] for each in plan}
    assert "wants tea" in systems["instruction-000/0/base+persona"][0]
    assert "wants coffee" in systems["instruction-000/0/base+shuffled-persona"][0]
    assert systems["instruction-000/0/base"] == []


@pytest.fixture
def arena_folder(tmp_path):
    """Arena-Hard's files, and outputs of ours beside the baselines'."""
    data = tmp_path / "arena"
    write_arena_hard(data)
    mine = [
        {"uid": uid, "messages": [{"content": {"answer": "brilliant " * (1 + i % 3) + "**bold**" * (i % 2)}}]}
        for i, uid in enumerate(UIDS)
    ]
    (data / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mine))
    return data


def _arena(data, *subjects, **options):
    values = {"name": "arena_hard_v2", "summary": "s", "data": str(data), "resamples": 100, "partial": True}
    return ArenaHard(ArenaHardOptions.model_validate({**values, "subjects": subjects, **options}))


def verdicts(request):
    """Clearly for our text in hard prompts; a tie, then a loss, in creative ones."""
    text = request.messages[-1].content
    ours_first = text.index("brilliant") < text.index("base text")
    if "Question 9" in text:
        return "No verdict from me."
    if any(f"Question {i}?" in text for i in (8, 10, 11)):
        return "Hm. [[A=B]]" if ours_first else "[[A>B]]"
    return "So: [[A>>B]]" if ours_first else "So: [[B>>A]]"


def test_arena_hard_is_judged_in_both_orders_with_its_own_scores(arena_folder, tmp_path):
    kind = _arena(arena_folder, f"mine:outputs={arena_folder}/mine.jsonl")
    judge = ScriptedClient(verdicts, model="judge")
    report = _run(kind, tmp_path / "out", judges=[judge])
    assert len(judge.requests) == 24
    assert {request.max_tokens for request in judge.requests} == {16_000}
    values = {e.group: e for e in report.estimates if e.metric == "win_rate"}
    assert values["hard_prompt"].value == 1.0
    assert (values["creative_writing"].value, values["creative_writing"].unscored) == (0.25, 1)
    hard, creative = report.config["tables"]
    assert hard["title"] == "Arena-Hard v2.0, hard_prompt"
    assert hard["rows"][0][:3] == ["mine", "100.0", "69.2 to 100.0"] or hard["rows"][0][1] == "100.0"
    assert "against gemini-2.0-flash-001" in creative["note"]
    assert "The judge's prompts are not the published ones." in hard["note"]
    assert creative["rows"][0][-1] == "25.0 % !"
    assert report.config["judging"][0]["unscored"] == {"judge_prose": 2}
    again = ScriptedClient(verdicts, model="judge")
    assert score_again(tmp_path / "out", judges=[again]).estimates == report.estimates
    assert again.requests == []


def test_its_files_give_the_same_scores_through_the_functions_that_are_proved(arena_folder, tmp_path):
    from rlhi_eval_harness.arena_hard.files import read_answers, read_judgments, read_questions

    kind = _arena(arena_folder, f"mine:outputs={arena_folder}/mine.jsonl")
    report = _run(kind, tmp_path / "out", judges=[ScriptedClient(verdicts, model="judge")])
    questions = read_questions(arena_folder / "question.jsonl")
    judged = read_judgments(tmp_path / "out/arena_hard/model_judgment/mine.jsonl", questions)
    for category, table in zip(("hard_prompt", "creative_writing"), report.config["tables"], strict=True):
        found = arena_score([each for each in judged if each.category == category], "v2.0")
        assert table["rows"][0][1] == f"{found.score:.1f}"
        assert table["rows"][0][2] == f"{found.low:.1f} to {found.high:.1f}"
    answers = read_answers(tmp_path / "out/arena_hard/model_answer/mine.jsonl", questions)
    assert answers["q00"].text == "brilliant "


def test_style_is_controlled_and_says_how_length_was_counted(arena_folder, tmp_path, monkeypatch):
    def mixed(request):
        text = request.messages[-1].content
        number = int(text.partition("Question ")[2].partition("?")[0])
        ours_first = text.index("brilliant") < text.index("base text")
        if not ours_first:
            # So that no bootstrap sample of so few questions holds wins only.
            return "[[A=B]]"
        return "[[A>B]]" if number % 3 > 0 else "[[B>A]]"

    kind = _arena(arena_folder, f"mine:outputs={arena_folder}/mine.jsonl", categories=["hard_prompt"])
    monkeypatch.setattr(suite_tables, "tiktoken_counter", lambda: len)
    (table,) = _run(kind, tmp_path / "a", judges=[ScriptedClient(mixed, model="judge")]).config["tables"]
    assert "tokens of gpt-4o" in table["note"]
    assert table["rows"][0][4] != NONE

    def absent():
        raise ConfigError("the token encoding cannot be had. Set TIKTOKEN_CACHE_DIR.")

    monkeypatch.setattr(suite_tables, "tiktoken_counter", absent)
    table = score_again(tmp_path / "a").config["tables"][0]
    assert "in words on both sides" in table["note"]


def test_prompts_of_ones_own_folder_and_other_baselines(arena_folder, tmp_path):
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "hard_prompt.md").write_text("Mine.")
    (folder / "user.md").write_text("{QUESTION}|{ANSWER_A}|{ANSWER_B}")
    options = {"prompts": str(folder), "categories": ["hard_prompt"]}
    source = f"mine:outputs={arena_folder}/mine.jsonl"
    kind = _arena(arena_folder, source, baselines={"hard_prompt": "gemini-2.0-flash-001"}, **options)
    assert kind.identity["judge_prompts_digest"] != _arena(arena_folder, source).identity["judge_prompts_digest"]
    assert len(kind.items) == 8
    (arena_folder / "model_answer/gemini-2.0-flash-001.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"lacks model_answer/gemini.*baseline's answers for creative_writing"):
        _ = _arena(arena_folder, source).items
    with pytest.raises(ConfigError, match="no category poetry"):
        _ = _arena(arena_folder, source, categories=["poetry"]).items


def test_a_rate_limited_judge_is_waited_for(arena_folder, tmp_path):
    from rlhi_eval_harness.spending import equipped

    seen = []

    def busy(request):
        seen.append(request)
        return rate_limited() if len(seen) <= 2 else Answer("[[A=B]]")

    kind = _arena(arena_folder, f"mine:outputs={arena_folder}/mine.jsonl", limit=2)
    with FakeProvider(busy) as provider:
        report = _run(kind, tmp_path / "out", judges=[equipped(_judge(provider, "some-judge"))])
    assert [s.value for s in report.scores if s.metric == "win_rate"] == [0.5, 0.5]


def test_the_suites_ship_and_a_folder_is_not_mixed_up(arena_folder, tmp_path):
    assert load_suite("arena_hard_v01").version == "v0.1"
    assert load_suite("arena_hard_v2", overrides=["limit=3"]).limit == 3
    assert load_suite("alpaca_eval").annotator == "weighted_alpaca_eval_gpt4_turbo"
    source = f"mine:outputs={arena_folder}/mine.jsonl"
    models = open_assistants(parse_subjects([source]))
    answer_suite(_arena(arena_folder, source), models, tmp_path / "out")
    text = (arena_folder / "question.jsonl").read_text()
    (arena_folder / "question.jsonl").write_text(text.replace("Question 3?", "Question three?"))
    with pytest.raises(ConfigError, match="differs in models"):
        answer_suite(_arena(arena_folder, source), models, tmp_path / "out")
    report = score_again(tmp_path / "out")
    assert "Nothing was judged yet" in report.findings[0]
