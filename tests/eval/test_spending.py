"""`--max-cost`: what is spent counts over all starts, what is done is kept, and what has no price is said."""

import json

import pytest
from typer.testing import CliRunner

from rlhi_eval_harness import cli
from rlhi_eval_harness.spending import budget_for, equipped, spent_usd
from rlhi_plugin.chat import Capabilities, ChatReply, Price
from rlhi_plugin.errors import BudgetReachedError, ConfigError

RUN = CliRunner()
PRICE = Price(prompt_token=0.0, completion_token=0.001)


class Priced:
    """A served model whose every answer costs a cent."""

    def __init__(self, price=PRICE):
        self.model = "priced"
        self.capabilities = Capabilities(price=price)
        self.asked = 0

    async def complete(self, request):
        self.asked += 1
        return (ChatReply(text="Yes.", prompt_tokens=5, completion_tokens=10, cost_usd=0.01),)


@pytest.fixture
def served(monkeypatch):
    client = Priced()
    monkeypatch.setattr("rlhi_eval_harness.models.open_served", lambda spec: client)
    monkeypatch.setattr("rlhi_adapters.opening.open_client", lambda name: client)
    return client


def _words(out, *more):
    return ["run", "--suite", "harm", "--subject", "a:endpoint=openai/x", "--out", str(out), *more,
            "--set", "resamples=100", "--set", "max_new_tokens=10"]  # fmt: skip


def test_a_run_stops_before_it_costs_more_and_goes_on_with_more(served, tmp_path):
    out = tmp_path / "out"
    stopped = RUN.invoke(cli.app, _words(out, "--max-cost", "0.105"))
    assert isinstance(stopped.exception, BudgetReachedError)
    assert stopped.exception.exit_code == 3
    assert "run the same command with a higher --max-cost" in str(stopped.exception)
    assert served.asked == 10
    assert spent_usd(out) == pytest.approx(0.1)
    again = RUN.invoke(cli.app, _words(out, "--max-cost", "0.155"))
    assert isinstance(again.exception, BudgetReachedError)
    assert served.asked == 15, "what the first start has spent counts"
    done = RUN.invoke(cli.app, _words(out), catch_exceptions=False)
    assert done.exit_code == 0
    report = json.loads((out / "report.json").read_text())
    assert report["config"]["answering"]["a"]["cost_usd"] == pytest.approx(0.01 * served.asked)


def test_judges_draw_on_the_same_budget(served, tmp_path):
    out = tmp_path / "out"
    RUN.invoke(cli.app, _words(out), catch_exceptions=False)
    answered = served.asked
    spent = spent_usd(out)
    # A judge may write 400 tokens: so much is set aside for each call, and given back when it took fewer.
    limit = spent + 0.4 + 0.035
    stopped = RUN.invoke(cli.app, ["score", str(out), "--judge", "openai/x", "--max-cost", str(limit)])
    assert isinstance(stopped.exception, BudgetReachedError)
    assert served.asked - answered == 4
    assert spent_usd(out) == pytest.approx(spent + 0.04)


def test_an_unknown_price_is_refused_or_said(tmp_path, capsys):
    budget = budget_for(tmp_path, 1.0)
    with pytest.raises(ConfigError, match="price of priced is not known, so --max-cost cannot be kept"):
        equipped(Priced(None), budget)
    equipped(Priced(None), budget, own_server=True)
    assert "--max-cost does not count it" in capsys.readouterr().err
    assert budget_for(tmp_path, None) is None
    with pytest.raises(ConfigError, match="buys nothing"):
        budget_for(tmp_path, 0.0)
