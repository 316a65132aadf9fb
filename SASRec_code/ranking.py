"""Ranks of targets among the whole catalogue, and the metrics of ranks."""

import numpy as np
import torch
from torch import Tensor

CUTOFFS = (1, 5, 10, 20, 50)
MIN_ROWS = 16  # of a batch, however large the catalogue: each batch reads all item embeddings once
SCORES_AT_ONCE = 2**21  # rows x items of a batch of scores: 8 MB, about what caches hold


@torch.inference_mode()
def rank_targets(model, histories: Tensor, targets: Tensor) -> np.ndarray:
    """Ranks (N, 2) int64 of targets (N,) among all items after histories (N, L), left-padded.

    The first column counts the items that score higher, the second those that score the same, the target included: the target
    has one of the ranks better .. better + tied - 1, counted from 0.
    """
    model.eval()
    n_items = model.items.num_embeddings - 1
    batch_rows = max(MIN_ROWS, SCORES_AT_ONCE // (n_items + 1))
    ranks = []
    for start in range(0, len(histories), batch_rows):
        batch = slice(start, start + batch_rows)
        scores = model.scores(histories[batch])  # (B, n_items + 1)
        ranks.append(ranks_of(scores, targets[batch, None]))
    return torch.cat(ranks).cpu().numpy()


def ranks_of(scores: Tensor, targets: Tensor) -> Tensor:
    """Ranks (B, 2) int64, as `rank_targets` returns them, by scores (B, n_items + 1) of targets (B, 1)."""
    target_scores = scores.gather(1, targets)  # (B, 1)
    # Bytes add up several times faster than booleans.
    better = (scores > target_scores).view(torch.uint8).sum(1, dtype=torch.int64)  # (B,)
    worse = (scores < target_scores).view(torch.uint8).sum(1, dtype=torch.int64)  # (B,)
    # All that is neither less nor greater counts as equal: a score that is not a number ties with everything, so it ranks at
    # random, it does not win.
    tied = scores.shape[1] - better - worse
    return torch.stack([better, tied], dim=1)


def expected_gain(ranks: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """The gain (...,) to expect of ranks (..., 2) if ties are broken at random: the mean over the ranks that a target may have.

    gains (k,): what the ranks 0 .. k - 1 are worth; later ones are worth nothing.
    """
    better, tied = ranks[..., 0], ranks[..., 1]
    gain_of_rank = np.append(gains, 0.0)  # (k + 1,)
    gain_before_rank = np.append(0.0, np.cumsum(gains))  # (k + 1,) sum over all ranks before this one
    first = np.minimum(better, len(gains))
    after_last = np.minimum(better + tied, len(gains))
    mean_of_tie = (gain_before_rank[after_last] - gain_before_rank[first]) / tied
    # Without a tie the gain itself, not a rounded difference of sums.
    return np.where(tied == 1, gain_of_rank[first], mean_of_tie)


def hits_per_row(ranks: np.ndarray, k: int) -> np.ndarray:
    """HR@k of each row: 1 where rank < k, else 0, with the target's rank counted from 0.

    Of ranks (..., 2) with ties the expectation (...,): the probability that the target is among the first k.
    """
    return expected_gain(ranks, np.ones(k))


def ndcg_per_row(ranks: np.ndarray, k: int = 20) -> np.ndarray:
    """NDCG@k of each row: 1 / log2(rank + 2) where rank < k, else 0; one target a row, so the ideal DCG is 1.

    Of ranks (..., 2) with ties the expectation (...,).
    """
    return expected_gain(ranks, 1 / np.log2(np.arange(k) + 2.0))


def reciprocal_rank_per_row(ranks: np.ndarray) -> np.ndarray:
    """What MRR is the mean of: 1 / (rank + 1), of ranks (..., 2) with ties its expectation (...,)."""
    n_ranks = ranks.sum(-1).max()  # none is worth nothing
    return expected_gain(ranks, 1 / (np.arange(n_ranks) + 1.0))


def metrics(ranks: np.ndarray) -> dict[str, float]:
    """HR@k and NDCG@k for each of CUTOFFS, and MRR: means over the rows of ranks (N, 2), as `rank_targets` returns them."""
    result = {}
    for k in CUTOFFS:
        result[f"HR@{k}"] = float(hits_per_row(ranks, k).mean())
        result[f"NDCG@{k}"] = float(ndcg_per_row(ranks, k).mean())
    result["MRR"] = float(reciprocal_rank_per_row(ranks).mean())
    return result
