"""Published judgments, bootstrap samples and answers give the published numbers."""

import pytest

from rlhi_eval_harness.arena_hard.files import BASELINES, read_answers, read_questions
from rlhi_eval_harness.arena_hard.proof import prove_bootstrap, prove_scores, prove_style
from rlhi_eval_harness.published_cli import arena_claims


def test_every_claim_holds_for_as_many_cases_as_are_published(arena_data):
    scores = prove_scores(arena_data)
    claims = arena_claims(scores, prove_bootstrap(arena_data), prove_style(arena_data))
    assert [claim.cases for claim in claims] == [11, 11, 56, 750]
    assert [claim.what for claim in claims if not claim.met] == []
    (baseline,) = [each for each in scores if each.is_baseline]
    assert baseline.model == "claude-3.7-sonnet"
    # Judged against itself, it is on a par: the judge's position bias cancels.
    assert baseline.ours.low < 50 < baseline.ours.high
    assert baseline.ours.position_bias.first_wins.low > 0.5


@pytest.mark.parametrize(("version", "questions"), [("arena-hard-v0.1", 500), ("arena-hard-v2.0", 750)])
def test_every_question_is_read_and_answered_by_the_baseline(arena_data, version, questions):
    found = read_questions(arena_data / version / "question.jsonl")
    assert len(found) == questions
    assert {question.category for question in found} <= set(BASELINES)
    baseline = BASELINES[found[0].category]
    assert len(read_answers(arena_data / version / "model_answer" / f"{baseline}.jsonl", found)) == questions
