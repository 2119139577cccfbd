"""What a person sees on a terminal, and what a file gets when the same command is piped."""

import io

import pytest
from rich.console import Console

from rlhi_plugin import terminal


@pytest.fixture
def screen(monkeypatch, request):
    shown = io.StringIO()
    monkeypatch.setattr(terminal, "stderr", Console(file=shown, force_terminal=request.param, width=100))
    return shown


@pytest.mark.parametrize("screen", [True], indirect=True)
def test_on_a_terminal_a_wait_may_happen_inside_a_bar(screen):
    with terminal.progress("answers", 3) as advance, terminal.waiting("Loading a model"):
        advance(2)
    assert "answers" in screen.getvalue()
    assert "2/3" in screen.getvalue()
    assert "Loading a model" in screen.getvalue()


@pytest.mark.parametrize("screen", [False], indirect=True)
def test_piped_there_is_one_line_at_each_end(screen):
    with terminal.progress("answers", 3) as advance, terminal.waiting("Loading a model"):
        advance(2)
    assert screen.getvalue() == "answers: 3 to do\nanswers: 2 of 3 done\n"
