"""What a run took: time and memory."""

import resource
import time
from contextlib import contextmanager


def peak_resident_gib() -> float:
    """Peak of the process's resident memory. Does without PyTorch."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def peak_memory_gib(device=None) -> float:
    """Peak of what PyTorch allocated of a GPU; of another device the process's. device: None is the GPU where there is one."""
    import torch

    on_gpu = torch.cuda.is_available() if device is None else device.type == "cuda"
    return torch.cuda.max_memory_allocated(device) / 2**30 if on_gpu else peak_resident_gib()


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
