"""How alike titles are to the people of a data set: a linear map of the language model's title vectors, learned by contrast.

Under it the items of a window are near each other and far from the other items of the batch. What is said of a user's rows
was learned from the windows of other users: else what was memorised would pass for understanding. Knows nothing of noise.
"""

from dataclasses import dataclass

import numpy as np

from denoise_code.data_set.padded_rows import Split, half_of

RANK, TEMPERATURE = 32, 0.1
PASSES, STEPS = 8, 400  # the loss of held-out users grows after 8 passes (Toy, Industrial); the most steps
BATCH, LEARNING_RATE, WEIGHT_DECAY = 64, 1e-3, 0.1


@dataclass(frozen=True)
class Similarity:
    """vectors (2, n_items + 1, D) float16 of length 1, padding zero: the first learned without users of half 0, the second of 1."""

    vectors: np.ndarray

    def of(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Vectors (N, W, D) float32 of items (N, W) in rows of these users (N,)."""
        return self.vectors[half_of(users)[:, None], items].astype(np.float32)


def learn(train: Split, vectors: np.ndarray) -> Similarity:
    """vectors (n_items + 1, D): the language model's."""
    half = half_of(train.users)
    return Similarity(np.stack([learn_projection(vectors, train.items[half != without]) for without in (0, 1)]))


def learn_projection(vectors: np.ndarray, windows: np.ndarray, seed: int = 0) -> np.ndarray:
    """vectors (n_items + 1, D) after x + x A B, A and B of rank RANK, learned on windows (N, W) of items, 0 where none."""
    import torch

    rng = torch.Generator().manual_seed(seed)
    table, items = torch.from_numpy(vectors.astype(np.float32)), torch.from_numpy(windows)
    log_counts = torch.bincount(items[items != 0], minlength=len(table)).clamp(min=1).log()
    width = table.shape[1]
    down = (torch.randn(width, RANK, generator=rng) / width**0.5).requires_grad_()
    up = torch.zeros(RANK, width, requires_grad=True)  # so that nothing is changed at first
    optimiser = torch.optim.AdamW([down, up], LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = min(STEPS, PASSES * -(-len(items) // BATCH))
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, max(steps, 1))
    place = torch.zeros(len(table), dtype=torch.long)
    for _ in range(steps):
        batch = items[torch.randint(len(items), (BATCH,), generator=rng)]
        read = batch[batch != 0].unique()
        place[read] = torch.arange(len(read))
        rows = torch.where(batch != 0, place[batch], -1)
        loss = contrast_loss(project(table[read], down, up), rows, log_counts[read])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        parts = [project(part, down, up) for part in table.split(10_000)]
    return torch.cat(parts).half().numpy()


def project(x, down, up):
    import torch

    return torch.nn.functional.normalize(x + x @ down @ up, dim=-1)


def contrast_loss(vectors, windows, log_counts):
    """Mean over the pairs (i, j) of each window of -log exp(s_ij) / (exp(s_ij) + sum over items k of other windows of exp(s_ik)).

    vectors (U, D) of length 1; windows (B, W) rows of vectors, -1 where none; s = cosine / TEMPERATURE - log_counts (U,):
    InfoNCE (van den Oord et al., arXiv 1807.03748), popular items being drawn more often (Bengio and Senecal 2008).
    """
    import torch

    logits = vectors @ vectors.T / TEMPERATURE - log_counts  # (U, U)
    here, own = windows >= 0, windows.clamp(min=0)
    inside = torch.zeros(len(windows), len(vectors), dtype=torch.bool)
    inside[here.nonzero()[:, 0], windows[here]] = True  # (B, U)
    logits = torch.nn.functional.embedding(own, logits)  # (B, W, U); indexing would add its gradient in any order of threads
    others = logits.masked_fill(inside[:, None], -torch.inf).logsumexp(-1)  # (B, W)
    pairs = logits.gather(2, own[:, None, :].expand(-1, own.shape[1], -1))  # (B, W, W)
    different = here[:, :, None] & here[:, None, :] & (own[:, :, None] != own[:, None, :])
    return torch.nn.functional.softplus(others[:, :, None] - pairs)[different].sum() / different.sum().clamp(min=1)
