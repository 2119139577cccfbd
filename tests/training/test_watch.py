"""The alarm when nothing is learnt, each sign for itself, and what the bar shows."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rlhi_training.watch import Watch


def logs(**more) -> dict[str, float]:
    values = {"loss": 0.69, "grad_norm": 1.0, "margins": 0.0, "chosen": 0.0, "rejected": 0.0, "accuracies": 0.0}
    values.update(more)
    return {k if k in {"loss", "grad_norm", "num_tokens"} else f"rewards/{k}": v for k, v in values.items()}


def watched(steps: list[dict[str, float]], *, max_steps: int = 100, preference: bool = True, end: bool = False):
    warnings: list[str] = []
    notes: list[str] = []
    watch = Watch(lambda _, note: notes.append(note), warnings, preference=preference)
    control = SimpleNamespace(should_training_stop=False)
    for step, entry in enumerate(steps, start=1):
        state = SimpleNamespace(global_step=step, max_steps=max_steps)
        watch.on_log(None, state, control, logs=entry)
        watch.on_step_end(None, state, control)
    if end:
        watch.on_train_end(None, state, control)
    return warnings, notes, control


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (logs(), "neither has moved: raise train.learning_rate"),
        (logs(chosen=-0.4, rejected=-0.4), "both have moved to -0.4: their rewards are equal"),
        (logs(grad_norm=0.0), "the gradient is zero"),
    ],
)
def test_a_sign_is_said_once(entry: dict[str, float], said: str) -> None:
    warnings, _, control = watched([entry] * 30)
    assert len(warnings) == 1
    assert said in warnings[0]
    assert not control.should_training_stop


@pytest.mark.parametrize("entry", [logs(loss=float("nan")), logs(grad_norm=float("inf"))])
def test_numbers_that_are_not_finite_end_the_run(entry: dict[str, float]) -> None:
    warnings, _, control = watched([logs(margins=0.5), entry])
    assert "not a finite number" in warnings[0]
    assert control.should_training_stop


def test_the_alarm_is_early_but_not_hasty() -> None:
    assert watched([logs()] * 19)[0] == []
    assert "after 20 steps" in watched([logs()] * 20)[0][0]
    assert "after 10 steps" in watched([logs()] * 10, max_steps=10)[0][0]


def test_a_short_run_is_judged_at_its_end() -> None:
    assert "after 3 steps" in watched([logs()] * 3, max_steps=3, end=True)[0][0]
    assert watched([logs()], max_steps=1, end=True)[0] == []


def test_what_learns_or_does_not_compare_is_left_alone() -> None:
    assert watched([logs(), *[logs(margins=0.2)] * 29], end=True)[0] == []
    assert watched([logs()] * 30, preference=False, end=True)[0] == []


def test_the_bar_shows_trls_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.0])
    monkeypatch.setattr("rlhi_training.watch.time", SimpleNamespace(monotonic=lambda: next(clock)))
    _, notes, _ = watched([logs(num_tokens=100.0), logs(margins=0.5, accuracies=0.75, num_tokens=4100.0)])
    assert notes == ["loss 0.690, margin +0.00, accuracy 0%", "loss 0.690, margin +0.50, accuracy 75%, 2,000 tokens/s"]
