"""Ranks of targets among the whole catalogue, and the metrics of ranks."""

import numpy as np
import torch
from torch import Tensor

CUTOFFS = (1, 5, 10, 20, 50)
LEAST_ROWS = 16  # of a batch, however large the catalogue: each batch reads all item embeddings once
SCORES_AT_ONCE = 2**21  # rows x items of a batch of scores: 8 MB, about what caches hold


@torch.inference_mode()
def rank_targets(model, histories: Tensor, targets: Tensor) -> np.ndarray:
    """(N, 2) int64 for each target among all items: how many score higher, how many score the same, itself included.

    So a target has one of the ranks better .. better + tied - 1, counted from 0. histories (N, L) left-padded, targets (N,).
    """
    model.eval()
    n_items = model.items.num_embeddings - 1
    rows = max(LEAST_ROWS, SCORES_AT_ONCE // (n_items + 1))
    ranks = []
    for start in range(0, len(histories), rows):
        scores = model.scores(histories[start : start + rows])  # (B, V)
        ranks.append(ranks_of(scores, targets[start : start + rows, None]))
    return torch.cat(ranks).cpu().numpy()


def ranks_of(scores: Tensor, target: Tensor) -> Tensor:
    """scores (B, V), target (B, 1) -> (B, 2) int64, as `rank_targets` returns them."""
    own = scores.gather(1, target)
    # Bytes add up several times faster than booleans. All that is neither less nor greater counts as equal: a score that is
    # not a number ties with everything, so it ranks at random, it does not win.
    greater, less = (part.view(torch.uint8).sum(1, dtype=torch.int64) for part in (scores > own, scores < own))
    return torch.stack([greater, scores.shape[1] - greater - less], dim=1)


def expected_gain(ranks: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """The gain (...,) to expect of ranks (..., 2) if ties are broken at random: the mean over the ranks that a target may have.

    gains (k,): what the ranks 0 .. k - 1 are worth; later ones are worth nothing.
    """
    better, tied = ranks[..., 0], ranks[..., 1]
    of_rank = np.append(gains, 0.0)  # (k + 1,)
    of_ranks_before = np.append(0.0, np.cumsum(gains))  # (k + 1,)
    first, after = np.minimum(better, len(gains)), np.minimum(better + tied, len(gains))
    of_tie = (of_ranks_before[after] - of_ranks_before[first]) / tied
    return np.where(tied == 1, of_rank[first], of_tie)  # without a tie the gain itself, not a rounded difference of sums


def hits_per_row(ranks: np.ndarray, k: int) -> np.ndarray:
    """HR@k: the probability (...,) that a target of ranks (..., 2) is among the first k."""
    return expected_gain(ranks, np.ones(k))


def ndcg_per_row(ranks: np.ndarray, k: int = 20) -> np.ndarray:
    """NDCG@k of one target: 1 / log2(rank + 2) within the first k, the expectation of it where there are ties; (...,)."""
    return expected_gain(ranks, 1 / np.log2(np.arange(k) + 2.0))


def metrics(ranks: np.ndarray) -> dict[str, float]:
    """HR@k, NDCG@k and MRR, 1 / (rank + 1), of ranks (N, 2) as `rank_targets` returns them."""
    result = {}
    for k in CUTOFFS:
        result[f"HR@{k}"] = float(hits_per_row(ranks, k).mean())
        result[f"NDCG@{k}"] = float(ndcg_per_row(ranks, k).mean())
    reciprocal = 1 / (np.arange(ranks.sum(1).max()) + 1.0)  # every rank that there is
    return result | {"MRR": float(expected_gain(ranks, reciprocal).mean())}
