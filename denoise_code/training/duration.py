"""How much arithmetic a training is, how long it takes, and what part of the time was spent training.

Knows nothing of the data and of the trainer.
"""

import time
from dataclasses import dataclass

CPU_SHARE = 0.5  # of the rate of matrix products that training reaches on a CPU (SmolLM2-135M: 85 of 138 to 173 GFLOP/s)
LONG_SECONDS = 3600  # beyond it a way to shorten a run is named


def examples_after(steps: int, n_windows: int, batch_size: int) -> int:
    """Windows that so many optimiser steps have trained on; the last step of an epoch has what is left over."""
    epochs, steps_of_epoch = divmod(steps, -(-n_windows // batch_size))
    return epochs * n_windows + min(steps_of_epoch * batch_size, n_windows)


@dataclass
class Plan:
    """What a training has to compute."""

    steps: int  # of the optimiser
    train_tokens: float
    eval_tokens: float  # over all evaluations
    parameters: int  # that every token is multiplied with: all but embeddings and the head

    @property
    def operations(self) -> float:
        """2 a parameter and token forward, 2 backward: the frozen model needs gradients of its activations only."""
        return self.parameters * (4 * self.train_tokens + 2 * self.eval_tokens)

    def describe(self) -> str:
        return (
            f"{self.steps:,} optimiser steps, {self.train_tokens:,.0f} tokens to train on and {self.eval_tokens:,.0f} to "
            f"evaluate on, {self.operations:.1e} operations"
        )


class Stopwatch:
    """Splits the seconds of a run into training, evaluating and saving. `clock` is time.perf_counter, or a test's own."""

    def __init__(self, clock=time.perf_counter):
        self.clock = clock
        self.started = self.last = clock()
        self.seconds = {"preparing": 0.0, "training": 0.0, "evaluating": 0.0, "saving": 0.0}

    def charge(self, what: str) -> None:
        """The time since the last charge was spent on this."""
        now = self.clock()
        self.seconds[what] += now - self.last
        self.last = now

    def total(self) -> float:
        return self.clock() - self.started


def readable(seconds: float) -> str:
    """'40 seconds', '12 minutes' or '65.0 hours'."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


def cpu_estimate(plan: Plan, operations_per_second: float) -> str:
    """The line that is printed before a training on a CPU starts."""
    seconds = plan.operations / (CPU_SHARE * operations_per_second)
    line = f"on this CPU about {readable(seconds)} ({operations_per_second / 1e9:.0f} GFLOP/s in matrix products, half of it assumed)"
    if seconds < LONG_SECONDS:
        return line
    return f"{line}; fewer --sample windows, --num_epochs or --max_steps, or a GPU, make it shorter in proportion"


def product_rate(repeats: int = 5) -> float:
    """Operations a second of float32 matrix products on the CPU, with the threads that torch uses; some 0.1 s."""
    import torch

    left, right = torch.randn(1024, 576), torch.randn(576, 1536)
    left @ right  # what is slow once
    started = time.perf_counter()
    for _ in range(repeats):
        left @ right
    return repeats * 2 * 1024 * 576 * 1536 / (time.perf_counter() - started)
