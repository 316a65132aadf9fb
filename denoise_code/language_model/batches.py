"""Texts side by side: padded batches, and runs of texts of about equal size."""

import numpy as np


def pad_left(rows: list[list], value):
    """(B, L) tensor of rows aligned at their ends, L the longest."""
    import torch

    width = max(map(len, rows))
    return torch.tensor([[value] * (width - len(row)) + row for row in rows])


def pad_right(rows: list[list], value):
    """(B, L) tensor of rows aligned at their beginnings, L the longest."""
    import torch

    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def pad_texts(rows: list[list[int]], pad_token_id: int) -> dict:
    """A model's inputs (B, L) int64 for texts that are tokens, padded on the left: positions count from a text's first token."""
    mask = pad_left([[1] * len(row) for row in rows], 0)
    return {
        "input_ids": pad_left(rows, pad_token_id),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
    }


def slices(lengths: list[int], most: int) -> list[slice]:
    """Runs of neighbours of about equally many tokens: `most`, and what a last text has beyond that."""
    ends = np.cumsum(lengths)  # (N,) tokens up to and with each text
    n_runs = -(-ends[-1] // most)
    # Run k ends with the text in which k of n_runs equal shares of all tokens are reached; multiplied out, to stay whole.
    last_texts = np.searchsorted(ends * n_runs, ends[-1] * np.arange(1, n_runs))  # (n_runs - 1,)
    bounds = sorted({0, *(last_texts + 1).tolist(), len(lengths)})  # a long text may hold several ends
    return [slice(start, stop) for start, stop in zip(bounds, bounds[1:])]
