"""The published annotations give the published leaderboard."""

import pytest

from rlhi_eval_harness.alpaca.files import read_annotations, read_instructions, read_outputs
from rlhi_eval_harness.alpaca.proof import prove_alpaca_eval
from rlhi_eval_harness.alpaca.win_rates import win_rate
from rlhi_eval_harness.published_cli import alpaca_claims, published_coefficients

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def proofs(alpaca_data):
    return prove_alpaca_eval(alpaca_data, coefficients=published_coefficients())


def test_every_claim_holds_for_as_many_models_as_are_published(proofs):
    raw, given, refit = alpaca_claims(proofs)
    assert (raw.cases, given.cases, refit.cases) == (19, 16, 18)
    assert all(claim.met for claim in (raw, given, refit))
    assert len(proofs) == 20


def test_the_one_model_without_a_place_on_the_leaderboard(proofs):
    assert [each.model for each in proofs if each.published_win_rate is None] == ["text_davinci_003"]


def test_missing_annotations_are_counted(proofs):
    unscored = {each.model: each.coverage.unscored for each in proofs if each.coverage.unscored}
    assert unscored == {"alpaca-7b_verbose": 3, "phi-2": 2}
    assert all(each.coverage.usable for each in proofs)


def test_full_annotations_and_the_table_say_the_same(alpaca_data, proofs):
    instructions = read_instructions(alpaca_data / "eval_set_805.jsonl")
    by_model = {each.model: each for each in proofs}
    for path in sorted((alpaca_data / "annotations_full").glob("*.json.gz")):
        found = win_rate(read_annotations(path, instructions))
        assert found.win_rate == pytest.approx(by_model[path.name.removesuffix(".json.gz")].win_rate, abs=1e-6)


def test_published_outputs_are_in_the_format_that_is_read(alpaca_data):
    instructions = read_instructions(alpaca_data / "eval_set_805.jsonl")
    for path in sorted((alpaca_data / "model_outputs").glob("*.json")):
        assert len(read_outputs(path, instructions)) == 805
