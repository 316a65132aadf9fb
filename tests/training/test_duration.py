"""denoise_code/training/duration.py: how much there is to compute, and what the seconds were spent on."""

import pytest

from denoise_code.training.duration import Plan, Stopwatch, cpu_estimate, examples_after, readable


def test_examples_after():
    """10 windows in batches of 4 are steps of 4, 4 and 2."""
    assert [examples_after(steps, 10, 4) for steps in range(8)] == [0, 4, 8, 10, 14, 18, 20, 24]
    assert examples_after(600, 2400, 4) == 2400


def test_the_stopwatch_takes_off_evaluating_and_saving():
    moments = iter([0.0, 1.0, 5.0, 25.0, 28.0, 30.0, 31.0])
    watch = Stopwatch(lambda: next(moments))
    for what in ("preparing", "training", "evaluating", "saving", "training"):
        watch.charge(what)
    assert watch.seconds == {"preparing": 1.0, "training": 4.0 + 2.0, "evaluating": 20.0, "saving": 3.0}
    assert watch.total() == 31.0


def test_the_defaults_on_a_cpu_are_said_to_take_days():
    """5,000 windows of 189 tokens, 50 epochs, SmolLM2's 106 M parameters, 170 GFLOP/s in products: 65 hours and evaluation."""
    plan = Plan(steps=2000, train_tokens=5000 * 50 * 189, eval_tokens=0, parameters=106_000_000)
    assert plan.operations == pytest.approx(4 * 106e6 * 47.25e6)
    assert "about 65.5 hours" in cpu_estimate(plan, 170e9) and "--num_epochs" in cpu_estimate(plan, 170e9)
    few = Plan(steps=4, train_tokens=64 * 189, eval_tokens=200 * 189, parameters=106_000_000)
    assert few.operations == pytest.approx(106e6 * (4 * 64 + 2 * 200) * 189)
    assert "make it shorter" not in cpu_estimate(few, 170e9)
    assert [readable(seconds) for seconds in (40, 720, 7200)] == ["40 seconds", "12 minutes", "2.0 hours"]
