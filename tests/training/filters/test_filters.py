"""Filters one by one: each named reason, and both questions to a rewrite by code, judge and reward model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from types import MappingProxyType

import pytest

from rlhi_plugin.chat import ScriptedClient
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import ChatMessage, FollowUpLabel, Persona
from rlhi_training.filters.caps import cap_users
from rlhi_training.filters.contamination import EvaluationPrompts
from rlhi_training.filters.rewrites import RewriteJudges
from rlhi_training.recipe import FilterSection, Recipe
from rlhi_training.recipe_files import override_recipe
from rlhi_training.records import UNGUIDED, Candidate, LabelledTurn, ProposedPair
from rlhi_training.resources import Resources
from rlhi_training.reward_models import Verdict
from rlhi_training.reward_models.comparing import Comparer
from rlhi_training.run_directory import check_conservation
from rlhi_training.stages.filter import KEPT, filter_pairs

REQUEST = "How do I keep basil alive indoors, and what does it need in winter?"
OLD = "Basil wants a bright window and moist soil, and it likes it when you pick its leaves from the top."
NEW = "Give it six hours of light a day, water when the soil is dry, and keep it away from cold windows."
SPANISH = "La albahaca necesita mucha luz y agua todos los días, y en invierno hay que protegerla del frío."


def turn(follow_up: str = "That was not helpful, what about the cold?", request: str = REQUEST) -> LabelledTurn:
    return LabelledTurn(
        conversation_id="c",
        user_id="ann",
        turn=0,
        context=(ChatMessage(role="user", content=request),),
        response=OLD,
        follow_up=follow_up,
        label=FollowUpLabel.WITH_FEEDBACK,
        request_id="q",
        response_id="a",
        follow_up_id="f",
    )


def pair(
    chosen: str = NEW, rejected: str = OLD, *, source: str = "rewrite", guidance: str = "f", **more
) -> ProposedPair:
    def candidate(text: str, origin: str, hint: str | None = None) -> Candidate:
        return Candidate(conversation_id="c", turn=0, text=text, origin=origin, model="m", guidance=hint)

    return ProposedPair(
        source=source,
        conversation_id="c",
        turn=0,
        chosen=candidate(chosen, "rewrite", guidance),
        rejected=candidate(rejected, "logged"),
        **more,
    )


def reasons(pairs, encoder, judges=None, evaluation=None, said=None, **section) -> list[str | None]:
    """The reason of each pair, None for those that are kept."""
    options = FilterSection(**{"addresses_feedback": "off", "max_pairs_per_user_share": 1.0, **section})
    tools = (encoder, judges or RewriteJudges(), evaluation)
    result = asyncio.run(filter_pairs(pairs, {"c#0": said or turn()}, tools, options, 0))
    check_conservation("filter", result)
    found = {drop.key: drop.reason for drop in result.dropped}
    assert len(result.files[KEPT]) + len(found) == len(pairs)
    return [found.get(p.key) for p in pairs]


def test_margin_length_and_language_filters(word_encoder):
    scored = [pair(source="reward", margin=margin) for margin in (0.2,)] + [
        pair(NEW + " Yes.", source="reward", margin=0.6)
    ]
    assert reasons(scored, word_encoder, min_margin=0.5) == ["small_margin", None]
    assert reasons([pair(margin=0.0)], word_encoder, min_margin=0.5) == [None], "margin 0 was not scored"
    long = pair(f"{NEW} Turn the pot on Monday. Feed it in May. Cut it back in June. Sow anew in July.")
    assert reasons([long], word_encoder, max_length_ratio=1.5) == ["lengths_apart"]
    asked = long.model_copy(update={"asked": ("min_words:20",)})
    assert reasons([asked], word_encoder, max_length_ratio=1.5) == [None]
    chinese = pair("把它放在窗边。", "把它放在窗边,土干了再浇水,每周转一次花盆。")
    assert reasons([chinese], word_encoder, max_length_ratio=1.5, min_chosen_words=1) == ["lengths_apart"]
    foreign = pair(SPANISH)
    assert reasons([foreign], word_encoder) == ["other_language"]
    assert reasons([foreign], word_encoder, match_language=False) == [None]
    assert reasons([foreign.model_copy(update={"asked": ("language:spanish",)})], word_encoder) == [None]
    assert reasons([pair(SPANISH, SPANISH + " Es fácil.")], word_encoder) == [None], "both are"
    assert reasons([pair(NEW, SPANISH)], word_encoder) == [None]


def test_evaluation_prompts_stay_out(word_encoder):
    evaluation = EvaluationPrompts([REQUEST])
    assert reasons([pair()], word_encoder, evaluation=evaluation) == ["contaminated"]
    other = turn(request="What can I cook?")
    assert reasons([pair()], word_encoder, evaluation=evaluation, said=other) == [None]
    assert reasons([pair(f"{NEW} {REQUEST}")], word_encoder, evaluation=evaluation, said=other) == ["contaminated"]
    assert reasons([pair()], word_encoder, evaluation=evaluation, quality=False) == ["contaminated"]


def _judge(prefers: str | None):
    """Always names the answer that holds a word; None: the first."""

    def answer(request) -> str:
        if prefers is None:
            return '{"better": "A"}'
        shown = request.messages[0].content.split('Answer B:\n"""\n')
        first, second = prefers in shown[0], prefers in shown[1]
        return json.dumps({"better": "equal" if first == second else "A" if first else "B"})

    return ScriptedClient(answer)


def test_both_questions_are_put_to_a_judge_in_both_orders(word_encoder):
    client = _judge("six hours")
    judges = RewriteJudges(addresses=Comparer(client, "judge_addresses_feedback"))
    assert reasons([pair()], word_encoder, judges, addresses_feedback="judge") == [None]
    assert len(client.requests) == 2
    assert all("what about the cold?" in request.messages[0].content for request in client.requests)
    for word, reason in (("bright window", "feedback_not_addressed"), ("nowhere", "feedback_not_addressed")):
        judges = RewriteJudges(addresses=Comparer(_judge(word), "judge_addresses_feedback"))
        assert reasons([pair()], word_encoder, judges, addresses_feedback="judge") == [reason]
    for word, reason in (("six hours", None), ("nowhere", None), ("bright window", "worse_in_general")):
        client = _judge(word)
        judges = RewriteJudges(not_worse=Comparer(client, "judge_not_worse"))
        assert reasons([pair()], word_encoder, judges, not_worse="judge") == [reason]
        assert not [r for r in client.requests if "cold?" in r.messages[0].content], "blind to the feedback"


def test_both_judges_read_the_conversation_before_the_request(word_encoder):
    said = turn(request="And in winter?")
    asked = ChatMessage(role="user", content="How do I keep basil alive?")
    said = said.model_copy(update={"context": (asked, ChatMessage(role="assistant", content=OLD), *said.context)})
    client = _judge("six hours")
    judges = RewriteJudges(
        addresses=Comparer(client, "judge_addresses_feedback"), not_worse=Comparer(client, "judge_not_worse")
    )
    options = {"addresses_feedback": "judge", "not_worse": "judge"}
    assert reasons([pair()], word_encoder, judges, said=said, **options) == [None]
    assert len(client.requests) == 4
    for request in client.requests:
        assert "User: How do I keep basil alive?" in request.messages[0].content
        assert "User: And in winter?" in request.messages[0].content


def test_a_judge_that_contradicts_itself_drops_or_counts_as_a_tie(word_encoder):
    judges = RewriteJudges(
        addresses=Comparer(_judge(None), "judge_addresses_feedback"),
        not_worse=Comparer(_judge(None), "judge_not_worse"),
    )
    assert reasons([pair()], word_encoder, judges, not_worse="judge") == ["judge_undecided"]
    assert reasons([pair()], word_encoder, judges, not_worse="judge", undecided="keep") == [None]
    kept_tie = reasons([pair()], word_encoder, judges, addresses_feedback="judge", undecided="keep")
    assert kept_tie == ["feedback_not_addressed"], "a tie does no more of what was asked"
    assert judges.report(judges.seen)["not_worse"]["undecided_share"] == 1.0
    mute = RewriteJudges(not_worse=Comparer(ScriptedClient(["hm"]), "judge_not_worse"))
    assert reasons([pair()], word_encoder, mute, not_worse="judge") == ["judge_failed"]


class _Scores:
    """A reward model that likes a word, more so where the request holds another."""

    name = "words/1"

    def __init__(self, word: str, when: str = "") -> None:
        self._word, self._when = word, when

    def unscorable(self, persona: Persona | None) -> str | None:
        return None

    async def score(self, turn, candidates, persona) -> list[Verdict]:
        heard = self._when in turn.context[-1].content
        return [
            Verdict(None, "too_long") if len(c.text) > 500 else Verdict(float(heard and self._word in c.text))
            for c in candidates
        ]

    seen: Mapping[str, int] = MappingProxyType({})

    def notes(self, seen) -> dict[str, object]:
        return {}


def test_both_questions_are_put_to_a_reward_model(word_encoder):
    likes_new = RewriteJudges(reward_model=_Scores("six hours"))
    likes_old = RewriteJudges(reward_model=_Scores("bright window"))
    for options in ({"addresses_feedback": "reward_model"}, {"not_worse": "reward_model"}):
        assert reasons([pair()], word_encoder, likes_new, **options) == [None]
    assert reasons([pair()], word_encoder, likes_old, addresses_feedback="reward_model") == ["feedback_not_addressed"]
    assert reasons([pair()], word_encoder, likes_old, not_worse="reward_model") == ["worse_in_general"]
    assert reasons([pair()], word_encoder, likes_old, not_worse="reward_model", max_loss=1.0) == [None]
    only_with_feedback = RewriteJudges(reward_model=_Scores("six hours", when="what about the cold?"))
    assert reasons([pair()], word_encoder, only_with_feedback, addresses_feedback="reward_model") == [None]
    assert reasons([pair("A" * 501 + " b c d e")], word_encoder, likes_new, not_worse="reward_model") == ["too_long"]


def test_a_rewrite_without_guidance_has_no_feedback_to_address(word_encoder):
    unguided = pair(guidance=UNGUIDED, asked=())
    assert reasons([unguided], word_encoder, addresses_feedback="code", min_similarity_gain=1.0) == [None]
    assert reasons([pair()], word_encoder, addresses_feedback="code", min_similarity_gain=1.0) == [
        "feedback_not_addressed"
    ]


def test_without_quality_nothing_is_asked(word_encoder):
    flawed = pair("- a\n- b")
    assert reasons([flawed, pair(OLD + " ")], word_encoder, quality=False) == [None, "identical"]
    assert reasons([flawed], word_encoder, not_worse="off") == [None]


def test_a_cap_in_numbers_holds_beside_the_share():
    pairs = [pair(f"{NEW} Number {i}.") for i in range(9)]
    owners = dict.fromkeys((p.key for p in pairs), "ann")
    assert len(cap_users(pairs, owners, 1.0, 0, most=4)) == 4
    assert len(cap_users(pairs, owners, 0.2, 0, most=4)) == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("filter.not_worse=judge", r"--set filter\.llm="),
        ("filter.addresses_feedback=reward_model", r"--set reward\.classifier="),
        ("reward.model=classifier", r"--set reward\.classifier="),
        ("reward.model=judge_pairs", r"--set reward\.llm="),
        ("filter.evaluation_prompts=['/nowhere']", "Check it"),
    ],
)
def test_what_needs_a_model_says_which_option_names_it(override, message):
    recipe = override_recipe(Recipe(name="t", summary="-").model_dump(mode="json"), [override])
    resources = Resources(recipe, policy=ScriptedClient(["x"]))
    with pytest.raises(ConfigError, match=message):
        resources.check_pair_sources()


def test_the_policy_can_judge():
    options = [
        "reward.llm=policy",
        "reward.model=judge_pairs",
        "filter.not_worse=judge",
        "filter.addresses_feedback=judge",
    ]
    recipe = override_recipe(Recipe(name="t", summary="-").model_dump(mode="json"), options)
    resources = Resources(recipe, policy=ScriptedClient(["x"], model="mine"))
    assert resources.reward_model.name.startswith("judge_pairs/mine/judge_pair-")
    assert resources.rewrite_judges.report({}).keys() == {"addresses_feedback", "not_worse"}
