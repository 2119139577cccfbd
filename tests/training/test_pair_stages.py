"""The stages that propose and keep pairs: rewrite, reward, contrast, filter, pairs; invariant 3 as a property."""

from __future__ import annotations

import asyncio
import string
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhi_plugin.chat import ChatRequest, ScriptedClient
from rlhi_plugin.persona import ExtractivePersonaBuilder, render_persona
from rlhi_plugin.records import ChatMessage, Evidence, FollowUpLabel, Persona, PersonaStatement
from rlhi_training.asked_for import AskedFor
from rlhi_training.filters.caps import cap_users, draw_evenly
from rlhi_training.filters.rewrites import RewriteJudges
from rlhi_training.generation import Sampling
from rlhi_training.prompting import with_persona_message
from rlhi_training.recipe import ContrastSection, FilterSection, IngestSection, RewardSection, RewriteSection
from rlhi_training.records import UNGUIDED, Candidate, LabelledTurn, ProposedPair
from rlhi_training.reward_models import CheckedReward, LLMJudgeReward, RewardModel, Verdict
from rlhi_training.run_directory import check_conservation
from rlhi_training.soundness import flaw
from rlhi_training.stages.audience import Audience, wanted_by_many
from rlhi_training.stages.contrast import CONTRASTS, Material, contrast
from rlhi_training.stages.filter import KEPT, filter_pairs
from rlhi_training.stages.label import FOLLOW_UPS, TURNS, label
from rlhi_training.stages.pairs import PAIRS, render_pairs
from rlhi_training.stages.personas import LATEST, PERSONAS, personas
from rlhi_training.stages.reward import REWARDS, reward
from rlhi_training.stages.rewrite import REWRITES, REWRITTEN, Writers, rewrite

SAMPLING = Sampling(0.7, 64, 0)
LONG = (
    "Basil wants a bright window and moist soil, and it thanks you for picking leaves from the top now and then, for"
    " turning the pot every few days, and for keeping cold air away from it in the winter months."
)
LISTED = "- Give basil a bright window\n- Keep the soil moist but never wet\n- Pick the leaves from the top"
FIGURES = (
    "Give basil 6 hours of light a day, 100 millilitres of water every 2 days and a pot of 15 centimetres at least."
)


def turn(
    follow_up: str | None = "Use bullet points please.", *, name: str = "c", reply: str = LONG, number: int = 0
) -> LabelledTurn:
    return LabelledTurn(
        conversation_id=name,
        user_id="ann",
        turn=number,
        context=(ChatMessage(role="system", content="Be kind."), ChatMessage(role="user", content=f"Basil? {name}")),
        response=reply,
        follow_up=follow_up,
        label=FollowUpLabel.WITH_FEEDBACK if follow_up else None,
        request_id="q",
        response_id="a",
        follow_up_id="f" if follow_up else None,
    )


def persona(*wishes: str, user: str = "ann") -> Persona:
    said = datetime(2026, 1, 1, tzinfo=UTC)
    statements = tuple(
        PersonaStatement(
            text=wish, evidence=(Evidence(conversation_id="old", message_id=f"{user}{i}", quote=wish, said_at=said),)
        )
        for i, wish in enumerate(wishes)
    )
    return Persona(user_id=user, statements=statements, covers_until=said, builder="test")


def proposal(text: str, rejected: str = LONG, *, who: Persona | None = None, name: str = "c", **more) -> ProposedPair:
    def candidate(body: str, origin: str) -> Candidate:
        return Candidate(conversation_id=name, turn=0, text=body, origin=origin, model="m", **more)

    return ProposedPair(
        source="rewrite",
        conversation_id=name,
        turn=0,
        persona=who,
        chosen=candidate(text, "rewrite"),
        rejected=candidate(rejected, "logged"),
        asked=("bullets",),
    )


def _filter(proposed, turns, encoder, section):
    return asyncio.run(filter_pairs(proposed, turns, (encoder, RewriteJudges(), None), section, 0))


async def _rewrite(turns, client, encoder, path: Path, **section):
    recipe = (RewriteSection(**section), SAMPLING)
    reader = (AskedFor(), encoder)
    writers = Writers(rewriter=client, policy=client)
    return await rewrite(turns, {"c": persona("Be brief please.")}, writers, reader, recipe)


async def test_the_rewrite_that_meets_the_feedback_is_proposed(tmp_path, word_encoder):
    client = ScriptedClient(lambda r: LISTED if "mind this" in r.messages[-1].content else "Paragraph again, sorry.")
    result = await _rewrite([turn(), turn(None, name="d")], client, word_encoder, tmp_path / "x")
    check_conservation("rewrite", result)
    (pair,) = result.files[REWRITES]
    assert (pair.chosen.text, pair.rejected.text, pair.asked, pair.margin) == (LISTED, LONG, ("bullets",), 1.0)
    assert pair.persona.user_id == "ann"
    seeing, blind = sorted(client.requests, key=lambda r: LONG not in r.messages[-1].content)
    assert LONG in seeing.messages[-1].content
    assert LONG not in blind.messages[-1].content
    assert all("Use bullet points please." in r.messages[-1].content for r in client.requests)
    assert all(r.messages[0].content == "Be kind." for r in client.requests)


async def test_long_replies_are_not_shown_and_limits_are_drops(tmp_path, word_encoder):
    client = ScriptedClient([LISTED])
    turns = [turn("please " * 60, name="b"), turn(reply="word " * 100), turn(name="d"), turn(name="e")]
    result = await _rewrite(turns, client, word_encoder, tmp_path / "x", max_turns=2, max_prompt_chars=400)
    check_conservation("rewrite", result)
    assert [(d.key, d.reason) for d in result.dropped] == [("e#0", "over_limit"), ("b#0", "too_long")]
    assert sum("word word" in r.messages[-1].content for r in client.requests) == 0
    assert len(client.requests) == 3


async def test_where_nothing_is_checkable_the_rewrite_nearest_to_the_feedback_is_proposed(tmp_path, word_encoder):
    feedback = "Please write about my grandmother and her cat."
    client = ScriptedClient(["Basil is a plant.", "My grandmother and her cat like basil."])
    result = await _rewrite(
        [turn(feedback)], client, word_encoder, tmp_path / "x", samples_blind=0, samples_seeing_reply=2
    )
    assert [p.chosen.text for p in result.files[REWRITES]] == ["My grandmother and her cat like basil."]
    assert result.files[REWRITES][0].asked == ()


async def test_the_same_answer_again_is_no_rewrite(tmp_path, word_encoder):
    result = await _rewrite([turn()], ScriptedClient([LONG]), word_encoder, tmp_path / "x")
    assert [d.reason for d in result.dropped] == ["no_candidate"]


async def _originals_anew(path: Path, encoder, policy: ScriptedClient, turns=None, **section):
    rewriter = ScriptedClient([LISTED], model="rewriter")
    recipe = (RewriteSection(original="policy", samples_blind=0, **section), SAMPLING)
    writers = Writers(rewriter=rewriter, policy=policy)
    people = {"c": persona("Be brief please.")}
    result = await rewrite(turns or [turn()], people, writers, (AskedFor(), encoder), recipe)
    check_conservation("rewrite", result)
    return result, rewriter


async def test_originals_can_be_written_anew_by_the_policy(tmp_path, word_encoder):
    policy = ScriptedClient([FIGURES], model="policy")
    result, rewriter = await _originals_anew(tmp_path / "x", word_encoder, policy)
    (pair,) = result.files[REWRITES]
    assert (pair.rejected.text, pair.rejected.origin, pair.rejected.model) == (FIGURES, "sample", "policy")
    assert (pair.chosen.text, pair.chosen.model) == (LISTED, "rewriter")
    assert policy.requests[0].messages == with_persona_message(turn().context, persona("Be brief please."))
    assert all(FIGURES in r.messages[-1].content and LONG not in r.messages[-1].content for r in rewriter.requests)
    assert [c.text for c in result.files[REWRITTEN]] == [LISTED] * 3
    assert result.notes["originals"] == "policy"
    silent, _ = await _originals_anew(tmp_path / "y", word_encoder, ScriptedClient([" "]))
    assert [d.reason for d in silent.dropped] == ["no_original"]


class _CutShort(ScriptedClient):
    async def complete(self, request: ChatRequest):
        return tuple(r.model_copy(update={"finish_reason": "length"}) for r in await super().complete(request))


async def test_an_original_that_was_cut_off_is_no_rejected_side(tmp_path, word_encoder):
    result, rewriter = await _originals_anew(tmp_path / "x", word_encoder, _CutShort([LONG]))
    assert [d.reason for d in result.dropped] == ["original_unfinished"]
    assert rewriter.requests == []


async def test_rewrites_without_guidance_see_at_most_the_old_reply(tmp_path, word_encoder):
    client = ScriptedClient([FIGURES, LISTED])
    result = await _rewrite([turn()], client, word_encoder, tmp_path / "x", guidance="none")
    (pair,) = result.files[REWRITES]
    assert (pair.chosen.guidance, pair.asked, pair.margin) == (UNGUIDED, (), 0.0)
    assert not [r for r in client.requests if any("bullet points please" in m.content for m in r.messages)]
    assert sorted(LONG in r.messages[-1].content for r in client.requests) == [False, True]


async def _reward(turns, people, client, path: Path, model: RewardModel | None = None):
    reader = AskedFor()
    recipe = (RewardSection(samples=3, max_turns=2), SAMPLING)
    return await reward(turns, people, client, (model or CheckedReward(reader), reader), recipe)


async def test_best_beats_worst_under_the_persona_and_the_persona_is_in_the_prompt(tmp_path):
    client = ScriptedClient([LONG, LISTED, FIGURES])
    who = persona("Use bullet points please.", "Add some numbers.")
    result = await _reward([turn(None)], {"c": who}, client, tmp_path / "x")
    check_conservation("reward", result)
    (pair,) = result.files[REWARDS]
    assert pair.rejected.text == LONG
    assert pair.chosen.text in (LISTED, FIGURES)
    assert pair.margin == pytest.approx(0.5)
    assert client.requests[0].messages[0].content == f"Be kind.\n\n{render_persona(who)}"


async def test_what_the_reward_thinks_of_length_is_in_the_notes(tmp_path):
    client = ScriptedClient([LONG, LISTED, FIGURES])
    result = await _reward([turn(None)], {"c": persona("Use bullet points please.")}, client, tmp_path / "x")
    bias = result.notes["length_bias"]
    assert (bias["requests"], bias["answers"], bias["comparisons"], bias["longer_wins"]) == (1, 3, 2, 0.0)
    assert bias["correlation"] < 0
    assert bias["chosen_is_longer"] == 0.0
    assert result.notes["unscored"] == {}


async def test_scores_that_are_no_numbers_are_counted_and_dropped(tmp_path):
    class Broken(CheckedReward):
        async def score(self, turn, candidates, persona):
            return [Verdict.of(float("nan"))] * len(candidates)

    client = ScriptedClient([LONG, LISTED, FIGURES])
    who = persona("Use bullet points please.")
    result = await _reward([turn(None)], {"c": who}, client, tmp_path / "x", Broken(AskedFor()))
    assert [d.reason for d in result.dropped] == ["not_finite"]
    assert result.notes["unscored"] == {"not_finite": 3}


async def test_every_turn_without_a_reward_pair_says_why(tmp_path):
    people = {
        "none": None,
        "vague": persona("That was rude."),
        "same": persona("Use emojis please."),
        "late": persona("Use bullet points please."),
        "later": persona("Use bullet points please."),
    }
    turns = [turn(None, name=name) for name in people]
    client = ScriptedClient([LONG, LISTED, FIGURES])
    result = await _reward(turns, people, client, tmp_path / "x")
    check_conservation("reward", result)
    reasons = {d.key: d.reason for d in result.dropped}
    assert reasons == {
        "none#0": "no_persona",
        "vague#0": "nothing_checkable",
        "same#0": "no_difference",
        "later#0": "over_limit",
    }


async def test_a_judge_that_answers_nonsense_leaves_answers_unscored(tmp_path):
    judge = LLMJudgeReward(ScriptedClient(['{"score": 8}', "great!", '{"score": 3}', "42", "again"]))
    pool = [proposal(text).chosen for text in (LONG, LISTED, FIGURES)]
    verdicts = await judge.score(turn(None), pool[:1], None)
    assert verdicts == [Verdict(8.0)]
    assert await judge.score(turn(None), pool[1:2], None) == [Verdict(3.0)]
    assert await judge.score(turn(None), pool[2:], persona("Be brief.")) == [Verdict(None, "judge_failed")]
    mute = LLMJudgeReward(ScriptedClient(["no idea"]))
    result = await _reward([turn(None)], {"c": None}, ScriptedClient([LONG, LISTED, FIGURES]), tmp_path / "x", mute)
    assert [d.reason for d in result.dropped] == ["judge_failed"]
    with pytest.raises(ValueError, match="either"):
        Verdict(float("nan"))


def _guided(request: ChatRequest) -> str:
    """A model that does what the instruction at the end of the request says, and nothing else."""
    said = request.messages[-1].content
    figures = "It needs 6 hours of light and 2 cups of water." if "numbers" in said else ""
    if "list of bullet points" in said:
        return f"- {LONG}\n- Pick its leaves from the top. {figures}".strip()
    if "one short sentence" in said:
        return f"Basil likes a bright window, moist soil and gentle hands. {figures}".strip()
    return f"{LONG} {figures}".strip()


async def _contrast(talks, labeller, path, **section):
    labelled = await label(talks, labeller, IngestSection())
    people = await personas(talks, labelled.files[FOLLOW_UPS], ExtractivePersonaBuilder())
    audience = Audience(talks, people.files[PERSONAS], people.files[LATEST])
    recipe = (ContrastSection(**section), SAMPLING)
    client = ScriptedClient(_guided)
    result = await contrast(labelled.files[TURNS], Material(audience, AskedFor()), client, recipe)
    return result, labelled.files[TURNS], audience


async def test_contrast_pairs_turn_with_the_persona(tmp_path, four_users, cue_labeller):
    result, turns, audience = await _contrast(
        four_users, cue_labeller, tmp_path / "x", neutral_share=0.5, max_length_ratio=2.0
    )
    check_conservation("contrast", result)
    pairs = result.files[CONTRASTS]
    with_persona = [p for p in pairs if p.persona]
    assert with_persona
    assert 0 < result.notes["turned"] <= result.notes["pairs"] == len(with_persona)
    chosen = {(p.conversation_id, p.chosen.text) for p in with_persona}
    rejected = {(p.conversation_id, p.rejected.text) for p in with_persona}
    assert chosen & rejected, "no text is chosen under one persona and rejected under another"
    started = {c.conversation_id: c.started_at for c in four_users}
    asked_for = AskedFor()
    for pair in with_persona:
        assert pair.persona.covers_until < started[pair.conversation_id]
        assert set(pair.asked) <= set(asked_for.of_persona(pair.persona))
        assert pair.margin > 0
    neutral = [p for p in pairs if p.persona is None]
    assert neutral
    assert all(p.chosen.guidance is None and p.rejected.guidance for p in neutral)
    reasons = {d.reason for d in result.dropped}
    assert {"no_persona", "not_a_request"} <= reasons
    first_day = {t.key for t in turns if t.conversation_id.endswith("0") and t.turn == 0}
    assert first_day <= {d.key for d in result.dropped if d.reason == "no_persona"}
    assert wanted_by_many(audience, asked_for, 3) == {"numbers"}


async def test_contrast_is_deterministic_and_respects_its_switches(tmp_path, four_users, cue_labeller):
    first, *_ = await _contrast(four_users, cue_labeller, tmp_path / "a", max_length_ratio=2.0)
    second, *_ = await _contrast(four_users, cue_labeller, tmp_path / "b", max_length_ratio=2.0)
    assert first.files == second.files
    off, *_ = await _contrast(four_users, cue_labeller, tmp_path / "c", cross_user=False)
    assert {d.reason for d in off.dropped} == {"cross_user_off"}
    lonely, *_ = await _contrast(four_users, cue_labeller, tmp_path / "d", min_users_per_property=5)
    assert lonely.files[CONTRASTS] == []
    few, *_ = await _contrast(four_users, cue_labeller, tmp_path / "e", max_requests=1, max_length_ratio=2.0)
    assert few.passed <= 1
    more, *_ = await _contrast(four_users, cue_labeller, tmp_path / "f", other_personas="latest", max_length_ratio=2.0)
    assert len(more.files[CONTRASTS]) > len(first.files[CONTRASTS])


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (proposal(LONG + " "), "identical"),
        (proposal("- one\n- two", finish_reason="length"), "chosen_unfinished"),
        (proposal("- a\n- b"), "chosen_too_short"),
        (
            proposal("- give it light and water\n- give it light and water\n- give it light and water"),
            "chosen_repetitive",
        ),
        (proposal("- ==== //// 1234 5678\n- ++++ 9999 0000"), "chosen_not_language"),
        (proposal(FIGURES), "feedback_not_addressed"),
        (proposal(LISTED, LISTED + "\n- Thank it"), "nothing_to_mend"),
        (proposal(LISTED), None),
    ],
)
def test_each_predicate_names_its_reason(pair, reason, word_encoder):
    result = _filter([pair], {"c#0": turn()}, word_encoder, FilterSection())
    check_conservation("filter", result)
    assert [d.reason for d in result.dropped] == ([reason] if reason else [])


def test_uncheckable_feedback_is_measured_by_nearness(word_encoder):
    said = turn("Write about the grandmother and her cat please.")
    near = proposal("The grandmother and her cat grow basil at home.").model_copy(update={"asked": ()})
    far = proposal("Something else entirely is written down here.").model_copy(update={"asked": ()})
    result = _filter([near, far], {"c#0": said}, word_encoder, FilterSection())
    assert result.files[KEPT] == [near]
    assert [d.reason for d in result.dropped] == ["feedback_not_addressed"]


def test_require_persona_drops_pairs_for_everybody(word_encoder):
    section = FilterSection(require_persona=True)
    result = _filter([proposal(LISTED)], {"c#0": turn()}, word_encoder, section)
    assert [d.reason for d in result.dropped] == ["no_persona"]


@given(
    owners=st.lists(st.sampled_from("abcde"), max_size=40),
    share=st.floats(0.05, 1.0),
    limit=st.integers(1, 30),
    seed=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_no_user_exceeds_the_cap_and_the_limit_is_drawn_evenly(owners, share, limit, seed):
    pairs = [proposal(LISTED + str(i), who=persona("x y", user=user)) for i, user in enumerate(owners)]
    names = {pair.key: pair.persona.user_id for pair in pairs}
    capped = cap_users(pairs, names, share, seed)
    cap = -(-share * len(pairs) // 1)
    counts = [sum(names[p.key] == user for p in capped) for user in "abcde"]
    assert max(counts) <= cap
    assert counts == [min(cap, owners.count(user)) for user in "abcde"]
    drawn = draw_evenly(capped, names, limit, seed)
    assert len(drawn) == min(limit, len(capped))
    taken = [sum(names[p.key] == user for p in drawn) for user in "abcde"]
    for user, (got, had) in enumerate(zip(taken, counts, strict=True)):
        assert got == had or got >= max(taken) - 1, user


_ANSWER = st.text(string.ascii_lowercase + " -\n", min_size=1, max_size=60).filter(str.strip)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers=st.lists(st.tuples(_ANSWER, _ANSWER), max_size=6), known=st.booleans())
def test_every_pair_is_a_preference_with_an_unspoilt_prompt(word_encoder, answers, known):
    who = persona("Use bullet points please.") if known else None
    said = turn()
    proposed = [proposal(chosen, rejected, who=who) for chosen, rejected in answers]
    proposed += [proposal(LISTED, who=who)] * 2
    kept = _filter(proposed, {"c#0": said}, word_encoder, FilterSection(max_pairs_per_user_share=1.0))
    check_conservation("filter", kept)
    result = render_pairs(kept.files[KEPT], {"c#0": said})
    check_conservation("pairs", result)
    assert LISTED in [pair.chosen for pair in result.files[PAIRS]]
    for pair in result.files[PAIRS]:
        assert pair.prompt[-1] == said.context[-1]
        assert pair.chosen.split() != pair.rejected.split()
        assert pair.chosen.strip()
        assert pair.rejected.strip()
        assert all(said.follow_up not in m.content for m in pair.prompt if m.role != "system")
        assert (pair.persona_digest is None) == (who is None)
        if who is not None:
            assert pair.prompt[0].content == f"Be kind.\n\n{render_persona(who)}"
            assert pair.provenance.persona_message_ids == ("ann0",)


def test_flaws_know_code_and_scripts_without_spaces():
    assert (
        flaw("```\nx = 1\nx = 1\nx = 1\n```\nThis sets the value of x.", "stop", min_words=5, max_repeated_share=0.2)
        is None
    )
    assert flaw("罗勒喜欢阳光和湿润的土壤。", "stop", min_words=5, max_repeated_share=0.2) is None
    assert flaw("fine but cut off here", "length", min_words=1, max_repeated_share=0.2) == "unfinished"


def test_the_checked_reward_is_a_reward_model():
    assert isinstance(CheckedReward(AskedFor()), RewardModel)
    assert asyncio.run(CheckedReward(AskedFor()).score(turn(), [proposal(LISTED).chosen], None)) == [
        Verdict(None, "no_persona")
    ]
