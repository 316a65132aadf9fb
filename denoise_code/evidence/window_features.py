"""What each kind of evidence sees of an item in its window, as numbers.

`llm` sees the language model's noise_prob, `collaborative` how often the items of a window occur together elsewhere and how rare
each is, `semantic` how alike their titles are (similarity.py). Nothing here reads valid or test targets, the mask of injected
noise, or clean titles.
"""

import numpy as np

from denoise_code.data_set.padded_rows import Split
from denoise_code.evidence.counts import Counts
from denoise_code.evidence.similarity import Similarity

FEATURES = {
    "llm": ("noise_prob",),
    "collaborative": ("co-occurrence", "co-occurrence of the rest", "rarity"),
    "semantic": ("largest similarity", "mean similarity", "similarity of the rest"),
}
ROWS_AT_ONCE, VECTORS_AT_ONCE = 50_000, 5_000


def collaborative_features(split: Split, counts: Counts) -> np.ndarray:
    """(N, W, 3): how much more often than by chance an item occurs with the others, these with each other; its rarity.

    The first is the mean over the window's other items of log((together + 1) / (expected + 1)), expected being what
    independent items of these counts would give, the second the same over pairs of these others: a stranger is one where the
    rest belongs together. The third is -log(count + 1). Counts are of other users only, so neither the window itself nor its
    neighbours speak for it. An item never seen in train has 0 in the first: no evidence but its rarity.
    """
    result = np.full((*split.items.shape, 3), np.nan, dtype=np.float32)
    for start in range(0, len(split.items), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        items, scored = split.items[rows], split.editable[rows]
        single, together = counts.of_others(split.users[rows], items)
        expected = counts.expected(single[:, :, None], single[:, None, :])
        lift = np.log1p(together) - np.log1p(expected)
        values = np.stack([*mean_with_others_and_among_others(lift, scored), -np.log1p(single)], axis=2)
        result[rows] = np.where(scored[:, :, None], values, np.nan)
    return result


def mean_with_others_and_among_others(values: np.ndarray, scored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of symmetric values (N, W, W) of each scored item with the others, and of these others with each other; (N, W)."""
    others = pairs_of(scored)
    values, count = np.where(others, values, 0), scored.sum(1, keepdims=True)
    own = values.sum(2)
    rest = own.sum(1, keepdims=True) - 2 * own  # each pair of the others twice
    return own / np.maximum(count - 1, 1), rest / np.maximum((count - 1) * (count - 2), 1)


def pairs_of(scored: np.ndarray) -> np.ndarray:
    """(N, W, W) where two different places of a row are scored."""
    return scored[:, :, None] & scored[:, None, :] & ~np.eye(scored.shape[1], dtype=bool)


def llm_features(split: Split) -> np.ndarray:
    """(N, W, 1): the log-odds of noise_prob. Not also relative to its window: that is worth most where just one item is planted."""
    prob = np.minimum(split.noise_prob, -1e-15)  # a probability of 1 has no odds
    return (prob - np.log(-np.expm1(prob)))[:, :, None]


def semantic_features(split: Split, similarity: Similarity) -> np.ndarray:
    """(N, W, 3): the largest and the mean cosine of an item's title vector with those of the window's other scored items.

    The third is the mean of these with each other. An item that stands in the window twice is as like itself as can be.
    """
    result = np.full((*split.items.shape, 3), np.nan, dtype=np.float32)
    for start in range(0, len(split.items), VECTORS_AT_ONCE):
        rows = slice(start, start + VECTORS_AT_ONCE)
        own, scored = similarity.of(split.users[rows], split.items[rows]), split.editable[rows]
        similar = own @ own.transpose(0, 2, 1)  # (n, W, W)
        others = pairs_of(scored)
        largest = np.where(others.any(2), np.where(others, similar, -np.inf).max(2), 0)  # alone: no evidence
        result[rows] = np.where(
            scored[:, :, None], np.stack([largest, *mean_with_others_and_among_others(similar, scored)], axis=2), np.nan
        )
    return result
