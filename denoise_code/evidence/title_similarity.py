"""How alike titles are to the people of a data set: a linear map of the language model's title vectors, learned by contrast.

Under it the items of a window are near each other and far from the other items of the batch. What is said of a user's windows was learned
from the windows of other users: else what was memorised would pass for understanding. Knows nothing of noise.
"""

from dataclasses import dataclass

import numpy as np

from denoise_code.evidence.features import CHUNK_BYTES, PairKind, row_chunks

RANK, TEMPERATURE = 32, 0.1
PASSES, STEPS = 8, 400  # the loss of held-out users grows after 8 passes (Toy, Industrial); the most steps
BATCH, LEARNING_RATE, WEIGHT_DECAY = 64, 1e-3, 0.1


@dataclass(frozen=True)
class TitleMap:
    """x + x A B of title vectors x: down A (D, RANK) and up B (RANK, D), float32."""

    down: np.ndarray
    up: np.ndarray

    def of(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (n_items + 1, D) float16 of length 1, padding zero, of title vectors of any catalogue."""
        import torch

        down, up, table = (torch.from_numpy(array.astype(np.float32)) for array in (self.down, self.up, vectors))
        return torch.cat([projected(part, down, up) for part in table.split(10_000)]).half().numpy()


def learn_title_maps(vectors: np.ndarray, windows: np.ndarray, halving: np.ndarray, seed: int = 0) -> list[TitleMap]:
    """Two maps: the first for the users of half 0, learned without them, the second for those of half 1.

    vectors (n_items + 1, D) of titles, padding zero; windows (N, W) items of train rows, 0 where none;
    halving (N,) int64: the half of their users.
    """
    return [learn_title_map(vectors, windows[halving != half], seed) for half in (0, 1)]


def learn_title_map(vectors: np.ndarray, windows: np.ndarray, seed: int = 0) -> TitleMap:
    """A map learned on windows (N, W) of items, 0 where none; vectors (n_items + 1, D) of titles."""
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
        batch = items[torch.randint(len(items), (BATCH,), generator=rng)]  # (B, W)
        in_batch = batch[batch != 0].unique()  # (U,) items
        place[in_batch] = torch.arange(len(in_batch))
        rows = torch.where(batch != 0, place[batch], -1)
        loss = contrast_loss(projected(table[in_batch], down, up), rows, log_counts[in_batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return TitleMap(down.detach().numpy(), up.detach().numpy())


def projected(x, down, up):
    """x + x A B (…, D), of length 1."""
    import torch

    return torch.nn.functional.normalize(x + x @ down @ up, dim=-1)


def contrast_loss(vectors, windows, log_counts):
    """Mean over the pairs (i, j) of each window of -log exp(s_ij) / (exp(s_ij) + sum over items k of other windows of exp(s_ik)).

    vectors (U, D) of length 1; windows (B, W) rows of vectors, -1 where none; s = cosine / TEMPERATURE - log_counts (U,): InfoNCE
    (van den Oord et al., arXiv 1807.03748), popular items being drawn more often (Bengio and Senecal 2008).
    """
    import torch

    logits = vectors @ vectors.T / TEMPERATURE - log_counts  # (U, U)
    held, own = windows >= 0, windows.clamp(min=0)
    in_window = torch.zeros(len(windows), len(vectors), dtype=torch.bool)
    in_window[held.nonzero()[:, 0], windows[held]] = True  # (B, U)
    logits = torch.nn.functional.embedding(own, logits)  # (B, W, U); indexing would add its gradient in any order of threads
    outside = logits.masked_fill(in_window[:, None], -torch.inf).logsumexp(-1)  # (B, W)
    pairs = logits.gather(2, own[:, None, :].expand(-1, own.shape[1], -1))  # (B, W, W)
    different = held[:, :, None] & held[:, None, :] & (own[:, :, None] != own[:, None, :])
    return torch.nn.functional.softplus(outside[:, :, None] - pairs)[different].sum() / different.sum().clamp(min=1)


class Semantic(PairKind):
    """The largest and the mean cosine of an item's title vector with those of the other items of a window; of these with each other.

    An item that stands in a window twice is as like itself as can be.
    """

    columns = ("largest similarity", "mean similarity", "similarity of the rest")
    with_largest = True

    def __init__(self, vectors: np.ndarray, halving: np.ndarray):
        """vectors (2, n_items + 1, D), padding zero: by the title map for each half; halving (U,) int64: the half of
        each user of the table."""
        self.vectors, self.halving = vectors, halving

    def pair_values(self, users, items, first, second):
        names, cell = np.unique(self.halving[users] * self.vectors.shape[1] + items, return_inverse=True)  # each vector once
        table = self.vectors.reshape(-1, self.vectors.shape[2])[names].astype(np.float32)
        values = np.empty(len(first), dtype=np.float32)
        for part in row_chunks(len(first), 2 * 4 * table.shape[1], CHUNK_BYTES // 16):
            values[part] = np.einsum("pd,pd->p", table[cell[first[part]]], table[cell[second[part]]])
        return values

    def window_values(self, users, items, held):
        values = np.empty((*items.shape, items.shape[1]), dtype=np.float32)
        for part in row_chunks(len(items), 6 * items.shape[1] * self.vectors.shape[2], CHUNK_BYTES // 4):
            own = self.vectors[self.halving[users[part]][:, None], items[part]].astype(np.float32)  # (n, W, D)
            values[part] = own @ own.transpose(0, 2, 1)
        pairs = held[:, :, None] & held[:, None, :] & ~np.eye(items.shape[1], dtype=bool)
        return np.where(pairs, values, -np.inf)
