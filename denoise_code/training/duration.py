"""How much arithmetic a training is, how long it takes, and what part of the time was spent training."""

import time
from dataclasses import dataclass

CPU_SHARE = 0.5  # of the rate of matrix products that training reaches on a CPU (SmolLM2-135M: 85 of 138 to 173 GFLOP/s)
LONG_SECONDS = 3600  # beyond it a way to shorten a run is named


def steps_per_epoch(n_windows: int, batch_size: int) -> int:
    """Optimiser steps of an epoch; the last one has what is left over."""
    return -(-n_windows // batch_size)


def examples_after(steps: int, n_windows: int, batch_size: int) -> int:
    """Windows that so many optimiser steps have trained on."""
    epochs, further_steps = divmod(steps, steps_per_epoch(n_windows, batch_size))
    return epochs * n_windows + min(further_steps * batch_size, n_windows)


def examples_between(first_step: int, last_step: int, n_windows: int, batch_size: int) -> int:
    """Windows that the optimiser steps after first_step, up to last_step, train on."""
    return examples_after(last_step, n_windows, batch_size) - examples_after(first_step, n_windows, batch_size)


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


def plan_training(model, train_lengths: list[int], eval_lengths: list[int], optimiser, eval_steps, first_step: int) -> Plan:
    """What remains to compute after first_step, from sizes alone.

    train_lengths, eval_lengths: tokens of each window; optimiser: OptimiserOptions; eval_steps: None for every epoch.
    """
    n_windows, batch_size = len(train_lengths), optimiser.batch_size
    epoch = steps_per_epoch(n_windows, batch_size)
    last_step = optimiser.max_steps if optimiser.max_steps > 0 else optimiser.num_epochs * epoch
    n_steps = max(last_step - first_step, 0)
    n_examples = max(examples_between(first_step, last_step, n_windows, batch_size), 0)
    n_evaluations = -(-n_steps // (eval_steps or epoch))
    mean_tokens = sum(train_lengths) / n_windows
    return Plan(n_steps, n_examples * mean_tokens, n_evaluations * sum(eval_lengths), multiplied_parameters(model))


def multiplied_parameters(model) -> int:
    """Parameters of the frozen model that every token is multiplied with: all but embeddings and the head."""
    left_out = ("lora_", "embed", "lm_head", "wte", "wpe")  # parts of their names
    parameters = model.named_parameters()
    return sum(tensor.numel() for name, tensor in parameters if not any(part in name for part in left_out))


class Stopwatch:
    """Splits the seconds of a run into training, evaluating and saving. `clock` is time.perf_counter, or a test's own."""

    def __init__(self, clock=time.perf_counter):
        self.clock = clock
        self.started = self.last = clock()
        self.seconds = {"preparing": 0.0, "training": 0.0, "evaluating": 0.0, "saving": 0.0}

    def charge(self, activity: str) -> None:
        """The time since the last charge was spent on this."""
        now = self.clock()
        self.seconds[activity] += now - self.last
        self.last = now

    def total(self) -> float:
        """Seconds since the run started."""
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

    n_rows, n_inner, n_columns = 1024, 576, 1536  # as in a layer of SmolLM2-135M
    left, right = torch.randn(n_rows, n_inner), torch.randn(n_inner, n_columns)
    left @ right  # the first product is slow
    started = time.perf_counter()
    for _ in range(repeats):
        left @ right
    return repeats * 2 * n_rows * n_inner * n_columns / (time.perf_counter() - started)
