"""Which logged answers self-distillation learns from, under which follow-up, and why the others are left out."""

from __future__ import annotations

import pytest

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import Evidence, Persona, PersonaStatement
from rlhi_training.filters.contamination import EvaluationPrompts
from rlhi_training.methods.hindsight import hindsight
from rlhi_training.recipe import FilterSection, ScreensSection
from rlhi_training.train_stage import holders

REQUEST = "Write a long poem about basil for my mother"


def reasons(found) -> dict[str, str]:
    return {drop.key: drop.reason for drop in found.dropped}


@pytest.mark.parametrize(
    ("follow_up", "reason"),
    [
        ("", "follow_up_empty"),
        ("  \n", "follow_up_empty"),
        ("?!...", "follow_up_empty"),
        (REQUEST, "follow_up_repeats"),
        ("write a LONG poem, about basil for my mother!!", "follow_up_repeats"),
        ("a long poem about basil for my mother", "follow_up_repeats"),
        ("long", None),
        ("Write a short poem about basil for my mother", None),
        ("Shorter please.", None),
        ("太长了", None),
    ],
)
def test_a_follow_up_says_something_of_its_own(labelled, tiny_recipe, follow_up, reason) -> None:
    found = hindsight([labelled(follow_up, context=(REQUEST,))], {}, tiny_recipe())
    assert reasons(found).get("c#0") == reason
    assert len(found.turns) == (reason is None)


def test_only_turns_with_feedback_are_looked_at(labelled, tiny_recipe) -> None:
    turns = [
        labelled("Thanks!", label="positive_feedback"),
        labelled("Try again", conversation="d", label="reattempt_without_feedback"),
        labelled(None, conversation="e", label=None),
    ]
    found = hindsight(turns, {}, tiny_recipe())
    assert found.turns == found.dropped == ()


def test_refusals_and_evaluation_prompts_are_left_out(labelled, tiny_recipe) -> None:
    refusal = "I'm sorry, but I cannot help you with that request because it could hurt somebody."
    turns = [
        labelled("Just do it.", response=refusal),
        labelled("Shorter please.", conversation="d", context=(REQUEST,)),
    ]
    found = hindsight(turns, {}, tiny_recipe(), EvaluationPrompts([f"{REQUEST} today"]))
    assert reasons(found) == {"c#0": "against_refusal", "d#0": "contaminated"}
    allowed = tiny_recipe().model_copy(update={"screens": ScreensSection(train_against_refusals=True)})
    assert reasons(hindsight(turns, {}, allowed)) == {}


def test_one_user_and_all_users_are_capped_as_pairs_are(labelled, tiny_recipe) -> None:
    turns = [labelled(f"Shorter, {i}.", conversation=f"a{i}") for i in range(6)]
    turns += [labelled("Longer.", conversation="b", user="bob"), labelled("Longer.", conversation="n", user=None)]
    recipe = tiny_recipe().model_copy(update={"filter": FilterSection(max_pairs_per_user_share=0.25, max_pairs=3)})
    found = hindsight(turns, {}, recipe)
    assert len(found.turns) == 3
    assert sorted(reasons(found).values()) == ["over_limit", *["user_cap"] * 4]
    assert {turn.user_id for turn in found.turns} == {"ann", "bob", None}


def test_the_persona_is_in_both_prompts_and_its_user_is_a_holder(labelled, tiny_recipe) -> None:
    evidence = Evidence(conversation_id="old", message_id="m", quote="numbers please")
    persona = Persona(
        user_id="ann", statements=(PersonaStatement(text="numbers please", evidence=(evidence,)),), builder="test"
    )
    turn = labelled()
    found = hindsight([turn], {"c": persona}, tiny_recipe())
    (item,) = found.turns
    assert [m.role for m in item.prompt] == [m.role for m in item.teacher_prompt] == ["system", "user"]
    assert "numbers please" in item.prompt[0].content
    assert item.prompt[0] == item.teacher_prompt[0]
    assert holders(found.turns, {turn.key: turn}) == ("ann",)


def test_shuffled_follow_ups_are_all_another_turns_own(labelled, tiny_recipe) -> None:
    said = ["Shorter please.", "Use bullets.", "Shorter please!", "In Spanish."]
    turns = [labelled(text, conversation=f"c{i}", user=f"u{i}") for i, text in enumerate(said)]
    recipe = tiny_recipe(follow_ups="shuffled")
    found = hindsight(turns, {}, recipe)
    assert len(found.turns) == 4
    for text, item in zip(said, found.turns, strict=True):
        assert text.rstrip(".!") not in item.teacher_prompt[-1].content
    assert hindsight(turns, {}, recipe) == found
    alone = hindsight([turns[0], turns[2]], {}, recipe)
    assert set(reasons(alone).values()) == {"no_other_follow_up"}
    private = recipe.model_copy(update={"contrast": recipe.contrast.model_copy(update={"cross_user": False})})
    with pytest.raises(ConfigError, match="cross_user"):
        hindsight(turns, {}, private)
