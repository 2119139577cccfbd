"""Style control against a direct minimisation of upstream's loss, and against judges whose taste we know."""

import numpy as np
import pytest
from scipy.optimize import minimize

from rlhi_eval_harness.arena_hard.scores import arena_score
from rlhi_eval_harness.arena_hard.style import Style
from rlhi_eval_harness.arena_hard.style_control import StyleOptions, style_controlled
from rlhi_plugin.errors import ConfigError

FIVE = ["B>>A", "B>A", "A=B", "A>B", "A>>B"]


@pytest.fixture(scope="module")
def pool(judgment):
    """Two models as good as the baseline, one of them wordy, before a judge that likes words."""
    rng = np.random.default_rng(3)
    uids = [f"q{i}" for i in range(150)]

    def style(factor):
        return {u: Style(*(int(x) for x in rng.integers([50, 0, 0, 0], [400, 8, 12, 9]) * factor)) for u in uids}

    baseline, styles = style(1), {"brief": style(1), "wordy": style(3)}

    def label(ours, theirs, *, model_first):
        length = (ours.tokens - theirs.tokens) / (ours.tokens + theirs.tokens)
        place = int(np.clip(np.round(2 + 2.2 * length + rng.normal(0, 0.9)), 0, 4))
        # As A the model wins with A>>B, as B with B>>A; `place` counts from lost clearly to won clearly.
        return FIVE[place] if model_first else FIVE[4 - place]

    rows = {
        model: [judgment(u, *(label(own[u], baseline[u], model_first=first) for first in (False, True))) for u in uids]
        for model, own in styles.items()
    }
    return rows, styles, baseline


def test_a_judge_that_likes_words_is_seen_through(pool):
    rows, _, _ = pool
    raw = {model: arena_score(each, "v2.0").score for model, each in rows.items()}
    found = style_controlled(*pool, StyleOptions(resamples=60))
    assert raw["wordy"] > 75
    assert raw["brief"] == pytest.approx(50, abs=7)
    assert found.scores["wordy"].low < 50 < found.scores["wordy"].high
    assert found.scores["brief"].score == pytest.approx(50, abs=8)
    assert found.coefficients["tokens"] > 0.5
    assert abs(found.coefficients["headers"]) < found.coefficients["tokens"]


def test_upstreams_reference_is_the_pool(pool):
    rows, styles, baseline = pool
    options = StyleOptions(reference="pool", resamples=2)
    together = style_controlled(rows, styles, baseline, options).scores["wordy"].score
    alone = style_controlled({"wordy": rows["wordy"]}, styles, baseline, options).scores["wordy"].score
    raw = arena_score(rows["wordy"], "v2.0").score
    assert alone > together + 5, "the score depends on who else is in the pool"
    assert alone == pytest.approx(raw, abs=4), "and of a single model, style is not controlled"


@pytest.mark.parametrize("version", ["v0.1", "v2.0"])
def test_the_fit_is_the_minimum_of_upstreams_loss(pool, version):
    rows, styles, baseline = pool
    models = sorted(rows)
    design, wins = [], []
    for i, model in enumerate(models):
        for each in rows[model]:
            a, b = styles[model][each.uid], baseline[each.uid]
            counts = [(a.tokens, b.tokens), (a.headers, b.headers), (a.list_items, b.list_items), (a.bold, b.bold)]
            if version == "v0.1":
                style = [(x - y) / (x + y + 1) for x, y in counts]
            else:
                dense = [(x / a.tokens, y / b.tokens) for x, y in counts[1:]]
                style = [(a.tokens - b.tokens) / (a.tokens + b.tokens), *((x - y) / (x + y + 1) for x, y in dense)]
            for game in each.games:
                for _ in range(game.weight):
                    design.append([float(i == 0), float(i == 1), -1.0, *style])
                    wins.append(game.win)
    x, y = np.array(design), np.array(wins)
    spread = x[:, 3:].std(axis=0, ddof=1 if version == "v2.0" else 0)
    x[:, 3:] = (x[:, 3:] - x[:, 3:].mean(axis=0)) / spread
    unit = np.log(10) if version == "v0.1" else 1.0
    x[:, :3] *= unit

    def loss(c):
        z = x @ c
        likelihood = y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z)
        # v0.1: scikit-learn's default penalty, every battle entered twice.
        return 2 * likelihood.sum() + 0.5 * c @ c if version == "v0.1" else likelihood.sum()

    best = minimize(loss, np.zeros(7), method="BFGS", options={"gtol": 1e-7}).x
    expected = 100 / (1 + np.exp(-unit * (best[:2] - best[2])))
    found = style_controlled(*pool, StyleOptions(version=version, reference="pool", resamples=1))
    assert [found.scores[model].score for model in models] == pytest.approx(expected, abs=0.01)
    assert list(found.coefficients.values()) == pytest.approx(best[3:], abs=1e-3)


def test_controls_can_be_chosen_and_both_ways_of_resampling_give_intervals(pool):
    found = style_controlled(*pool, StyleOptions(controls=("length",), resamples=20, over="battles"))
    assert list(found.coefficients) == ["tokens"]
    assert all(each.low < each.score < each.high for each in found.scores.values())
    assert found.level == 0.9


def test_an_element_that_never_differs_is_left_out_and_named(pool):
    rows, styles, baseline = pool

    def without_headers(each):
        return {uid: Style(s.tokens, 0, s.list_items, s.bold) for uid, s in each.items()}

    plain = {model: without_headers(each) for model, each in styles.items()}
    found = style_controlled(rows, plain, without_headers(baseline), StyleOptions(resamples=2))
    assert found.left_out == ("headers",)
    assert list(found.coefficients) == ["tokens", "list items", "bold"]


def test_what_cannot_be_controlled_is_named(pool, judgment):
    rows, styles, baseline = pool
    with pytest.raises(ConfigError, match="style of wordy's answer to q0 is unknown"):
        style_controlled(rows, {**styles, "wordy": {}}, baseline)
    same = {u: Style(10, 0, 0, 0) for u in baseline}
    with pytest.raises(ConfigError, match="style does not vary"):
        style_controlled({"m": rows["brief"]}, {"m": same}, same)
    with pytest.raises(ConfigError, match="length, markdown"):
        StyleOptions(controls=())


def test_markdown_in_code_is_no_markdown():
    text = "# Title\n\n1. one\n2. two\n- three\n**bold** and __bold__\n```\n# no header\n- no item\n```\n"
    assert Style.of(text, len) == Style(len(text), headers=1, list_items=3, bold=2)


def test_incomplete_metadata_is_refused():
    with pytest.raises(ConfigError, match="token_len"):
        Style.from_metadata({"header_count": {}})
