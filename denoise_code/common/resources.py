"""What a run took: memory."""

import resource


def peak_memory_gib() -> float:
    """Peak of the GPU's allocated memory where there is one, else of the process's resident memory."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
