"""What a run took: memory."""

from denoise_code.common.files import peak_resident_gib


def peak_memory_gib() -> float:
    """Peak of the GPU's allocated memory where there is one, else of the process's resident memory."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return peak_resident_gib()
