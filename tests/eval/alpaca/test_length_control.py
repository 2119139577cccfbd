"""The length-controlled fit against alpaca_eval's own, and against what the annotations were made from."""

import numpy as np
import pytest

from rlhi_eval_harness.alpaca.files import Annotation
from rlhi_eval_harness.alpaca.length_control import Coefficients, fit, from_coefficients, read_coefficients
from rlhi_eval_harness.alpaca.package import alpaca_eval_module
from rlhi_eval_harness.alpaca.win_rates import win_rate
from rlhi_plugin.errors import ConfigError


@pytest.fixture(scope="module")
def gamed(tmp_path_factory, annotated):
    """A file like df_gamed.csv: two baselines that say the same at other lengths, judged on the same instructions."""
    import pandas as pd

    path = tmp_path_factory.mktemp("gamed") / "df_gamed.csv"
    frames = []
    for number, model in enumerate(("baseline_concise", "baseline_verbose")):
        rows, _ = annotated(seed=10 + number)
        _, difficulty = annotated(seed=0)
        delta = np.array([each.baseline_length - each.model_length for each in rows], dtype=float)
        frames.append(
            pd.DataFrame(
                {
                    "preference": [each.preference - 1 for each in rows],
                    "index": range(len(rows)),
                    "std_delta_len": delta / delta.std(ddof=1),
                    "instruction_difficulty": [difficulty[i] for i in range(len(rows))],
                    "not_gamed_baseline": False,
                    "model": model,
                }
            )
        )
    pd.concat(frames).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("unscored", [(), (3, 50, 120)])
@pytest.mark.filterwarnings("ignore::FutureWarning")  # alpaca_eval's use of scikit-learn, called here as it is
def test_the_fit_with_the_gamed_baselines_is_alpaca_evals_own(gamed, annotated, unscored, monkeypatch):
    """Their function, with the download replaced by the file, on the same annotations."""
    import pandas as pd
    import sklearn

    rows, _ = annotated()
    rows = [
        Annotation(each.index, None, each.baseline_length, each.model_length, "refused") if i in unscored else each
        for i, each in enumerate(rows)
    ]
    theirs = alpaca_eval_module("metrics.glm_winrate")
    monkeypatch.setattr(theirs, "hf_hub_download", lambda **_: gamed)
    frame = pd.DataFrame(
        {
            "preference": [each.preference for each in rows],
            "output_1": ["x" * each.baseline_length for each in rows],
            "output_2": ["x" * each.model_length for each in rows],
            "generator_1": "baseline",
            "generator_2": "model",
            "annotator": "judge",
        }
    )
    with sklearn.config_context():
        expected = theirs.get_length_controlled_winrate(frame, save_weights_dir=None)
    ours = fit(rows, gamed=gamed)
    assert ours.method == "exact fit"
    assert ours.win_rate == pytest.approx(expected["length_controlled_winrate"], abs=1e-9)
    assert ours.standard_error == pytest.approx(expected["lc_standard_error"], abs=1e-9)
    assert win_rate(rows).win_rate == pytest.approx(expected["win_rate"], abs=1e-12)


def test_the_fit_leaves_scikit_learn_as_it_was(annotated):
    import sklearn

    before = sklearn.get_config()["enable_metadata_routing"]
    fit(*annotated(60))
    assert sklearn.get_config()["enable_metadata_routing"] == before


def test_a_refit_takes_the_length_out_and_says_what_it_is(annotated):
    rows, difficulties = annotated(400)
    longer = [Annotation(r.index, r.preference, r.baseline_length, r.model_length) for r in rows]
    found = fit(longer, difficulties)
    assert found.method == "refit without the gamed baselines"
    # Preferences were made with 1.7 for length (ours minus theirs), 1.0 for difficulty, and noise that shrinks both.
    assert found.coefficients.length == pytest.approx(-1.35, abs=0.35)
    assert found.coefficients.difficulty == pytest.approx(0.8, abs=0.25)


def test_given_coefficients_predict_by_hand():
    rows = [Annotation(i, 1.5, 10, 10) for i in range(3)]
    found = from_coefficients(Coefficients(-1.0, 2.0, 0.5), {0: 0.0, 1: 1.0, 2: -1.0}, rows)
    predicted = 100 / (1 + np.exp([-0.5, -2.5, 1.5]))
    assert found.win_rate == pytest.approx(predicted.mean())
    assert found.standard_error == pytest.approx(predicted.std(ddof=1) / np.sqrt(3))


def test_by_row_gives_later_instructions_a_neighbours_difficulty():
    rows = [Annotation(0, None, 0, 0, "absent"), Annotation(1, 1.5, 10, 10)]
    coefficients, difficulties = Coefficients(0.0, 1.0, 0.0), {0: -5.0, 1: 5.0}
    assert from_coefficients(coefficients, difficulties, rows).win_rate > 99
    assert from_coefficients(coefficients, difficulties, rows, by_row=True).win_rate < 1


def test_what_is_missing_is_named(tmp_path, annotated):
    rows, difficulties = annotated(30)
    with pytest.raises(ConfigError, match=r"instruction_difficulty\.csv"):
        fit(rows)
    del difficulties[7]
    with pytest.raises(ConfigError, match=r"such as 7"):
        fit(rows, difficulties)
    with pytest.raises(ConfigError, match="cannot be fitted"):
        fit(rows[:5], difficulties)
    with pytest.raises(ConfigError, match=r"gamed.*tatsu-lab"):
        fit(rows, gamed=tmp_path / "df_gamed.csv")
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("index,preference\n0,0.5\n")
    with pytest.raises(ConfigError, match="lacks the columns std_delta_len"):
        fit(rows, gamed=wrong)
    with pytest.raises(ConfigError, match=r"baseline_gpt4_1106_preview\.csv"):
        read_coefficients(wrong)
    with pytest.raises(ConfigError, match="Annotate the outputs again"):
        win_rate([Annotation(0, None, 1, 1, "refused")])


def test_a_win_rate_says_what_it_rests_on(annotated):
    rows, _ = annotated(100)
    rows[:7] = [Annotation(i, None, 1, 1, "the judge refused") for i in range(7)]
    found = win_rate(rows)
    assert found.low < found.win_rate < found.high
    assert not found.coverage.usable
    assert found.length_bias.longer_wins.value > 0.5
