"""From a log to the windows of an experiment: which interactions count, the split by time, the noise."""

import numpy as np

from denoise_code.common.errors import InputError
from denoise_code.data_set.log.log import Log

MIN_WINDOWS = 10  # an 8:1:1 split of fewer leaves a split empty


def drop_untitled(log: Log) -> Log:
    kept = log.pick(np.array([title is not None for title in log.titles])[log.items])
    if not len(kept.users):
        raise InputError("no interaction is left: none of its items has a title (or none is rated --min_rating)")
    return kept


def drop_low_ratings(log: Log, least: float) -> Log:
    """Keep the interactions rated `least` and more."""
    if log.ratings is None:
        raise InputError("--min_rating: this source has no ratings, or not for every interaction")
    return log.pick(log.ratings >= least)


def count_duplicates(log: Log) -> int:
    """How many interactions repeat an earlier one: the same user, item and time."""
    with np.errstate(over="ignore"):  # wraps around: equal interactions stay equal
        hashed = (log.users * len(log.titles) + log.items) * 0x9E3779B97F4A7C1 + log.times
    hashed_sorted = np.sort(hashed)
    repeated = hashed_sorted[1:][hashed_sorted[1:] == hashed_sorted[:-1]]
    if not len(repeated):
        return 0
    rows = np.flatnonzero(np.isin(hashed, repeated))
    candidates = np.stack([log.users[rows], log.items[rows], log.times[rows]], axis=1)  # (M, 3)
    return len(rows) - len(np.unique(candidates, axis=0))


def sample_items(log: Log, count: int, rng: np.random.Generator) -> Log:
    """Keep the interactions of `count` random items (the paper samples 20,000 movies before the k-core)."""
    present = np.unique(log.items)
    if count > len(present):
        raise InputError(f"--sample_items {count}: only {len(present)} items with a title have interactions")
    chosen = np.zeros(len(log.titles), dtype=bool)
    chosen[rng.choice(present, size=count, replace=False)] = True
    return log.pick(chosen[log.items])


def k_core(log: Log, k: int) -> Log:
    """Drop users and items with fewer than k interactions until none is left."""
    while len(log.users):
        keep = (np.bincount(log.users)[log.users] >= k) & (np.bincount(log.items)[log.items] >= k)
        if keep.all():
            return log
        log = log.pick(keep)
    raise InputError(f"--k_core {k} removes every interaction")


def count_single_interactions(users: np.ndarray) -> int:
    """Interactions of users who have one only: no window holds them."""
    return int((np.bincount(users) == 1).sum())


def time_split(target_times: np.ndarray) -> dict[str, np.ndarray]:
    """Window numbers of train, valid and test: 8:1:1 of all windows in the order of their targets' times."""
    total = len(target_times)
    if total < MIN_WINDOWS:
        raise InputError(f"only {total} windows: not enough users or interactions for an 8:1:1 split")
    order = np.argsort(target_times, kind="stable")
    train, valid = total * 8 // 10, total * 9 // 10
    return {"train": order[:train], "valid": order[train:valid], "test": order[valid:]}


def inject_noise(items: np.ndarray, n_items: int, rate: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Replace each interaction with probability `rate` by an item drawn uniformly from 1..n_items.

    Returns the noisy items and the mask (both (N,)); a draw may hit the original item and still counts as noise.
    """
    mask = rng.random(len(items)) < rate
    noisy = items.copy()
    noisy[mask] = rng.integers(1, n_items + 1, size=int(mask.sum()))
    return noisy, mask
