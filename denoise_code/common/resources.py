"""What a run took: time and memory."""

import time
from contextlib import contextmanager

from denoise_code.common.files import peak_resident_gib


def peak_memory_gib() -> float:
    """Peak of the GPU's allocated memory where there is one, else of the process's resident memory."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return peak_resident_gib()


class Steps:
    """The steps of a run: seconds, seconds of the processor, peak of resident memory until the end of each; printed as they end."""

    def __init__(self):
        self.costs: dict[str, dict[str, float]] = {}

    @contextmanager
    def step(self, name: str):
        started, processor_started = time.perf_counter(), time.process_time()
        yield
        seconds, memory = time.perf_counter() - started, peak_resident_gib()
        self.costs[name] = {
            "seconds": round(seconds, 1),
            "processor_seconds": round(time.process_time() - processor_started, 1),
            "peak_memory_gib": round(memory, 3),
        }
        print(f"{name}: {seconds:.1f} s, peak memory {memory:.2f} GiB", flush=True)
