"""Full-catalogue ranking metrics, tie-aware, in memory that does not grow with rows x items."""

import numpy as np
import torch
from torch import Tensor

CUTOFFS = (1, 5, 10, 20, 50)
LEAST_ROWS = 16  # of a batch, however large the catalogue: each batch reads all item embeddings once
SCORES_AT_ONCE = 2**21  # rows x items of a batch of scores: 8 MB, about what caches hold


@torch.inference_mode()
def rank_targets(model, histories: Tensor, targets: Tensor, exclude_history: bool = False) -> np.ndarray:
    """Rank (N,) of each target from 0 among all items: those that score higher, and half of those that score the same.

    histories (N, L) left-padded, targets (N,). `exclude_history` takes the items of the history out of the ranking,
    the target excepted.
    """
    model.eval()
    n_items = model.items.num_embeddings - 1
    rows = max(LEAST_ROWS, SCORES_AT_ONCE // (n_items + 1))
    ranks = []
    for start in range(0, len(histories), rows):
        history, target = histories[start : start + rows], targets[start : start + rows, None]
        scores = model.scores(history)  # (B, V)
        if exclude_history:
            own = scores.gather(1, target)
            scores.scatter_(1, history, -torch.inf).scatter_(1, target, own)
        ranks.append(ranks_of(scores, target))
    return torch.cat(ranks).cpu().numpy()


def ranks_of(scores: Tensor, target: Tensor) -> Tensor:
    """scores (B, V), target (B, 1) -> (B,) greater + (equal - 1) / 2, the target itself being one of the equal."""
    own = scores.gather(1, target)
    # Bytes add up several times faster than booleans. All that is not less counts as equal or greater: a score that is
    # not a number loses, it does not win.
    greater, less = (part.view(torch.uint8).sum(1, dtype=torch.int32) for part in (scores > own, scores < own))
    return (greater + (scores.shape[1] - less) - 1).double() / 2


def metrics(ranks: np.ndarray) -> dict[str, float]:
    """HR@k, NDCG@k and MRR of ranks (N,) that count from 0."""
    gains = 1 / np.log2(ranks + 2)
    result = {}
    for k in CUTOFFS:
        hit = ranks < k
        result[f"HR@{k}"] = float(hit.mean())
        result[f"NDCG@{k}"] = float((gains * hit).mean())
    return result | {"MRR": float((1 / (ranks + 1)).mean())}


def ndcg_per_row(ranks: np.ndarray, k: int = 20) -> np.ndarray:
    return (ranks < k) / np.log2(ranks + 2)


def bootstrap(users: np.ndarray, runs: dict[str, np.ndarray], draws: int = 2000, seed: int = 0) -> dict[str, np.ndarray]:
    """{run: means (draws,)} of values (S, N) by seed and row: users drawn with all their rows, the same ones for all runs,
    and for each run its seeds."""
    codes = np.unique(users, return_inverse=True)[1]
    counts, rng, result = np.bincount(codes), np.random.default_rng(seed), {}
    drawn = rng.integers(len(counts), size=(draws, len(counts)))
    rows = counts[drawn].sum(1)
    for name, values in runs.items():
        means = np.stack([np.bincount(codes, per_row)[drawn].sum(1) / rows for per_row in values], axis=1)  # (draws, S)
        chosen = rng.integers(len(values), size=means.shape)
        result[name] = np.take_along_axis(means, chosen, 1).mean(1)
    return result


def summarise(per_seed: list[dict]) -> dict[str, dict[str, float]]:
    """{metric: {mean, std}}; std is the sample standard deviation over seeds, 0 for one."""
    table = {name: [run[name] for run in per_seed] for name in per_seed[0]}
    return {
        name: {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0}
        for name, values in table.items()
    }
