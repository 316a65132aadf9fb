"""Planted noise: random items put into a window, the paper's way to learn without labels (section 3.2)."""

import numpy as np

from denoise_code.common.errors import InputError

PLANTED = "planted"  # the name of planted.csv among the files of a data set
# In the column mask: noise that an experiment injected, and an item that was planted to learn from.
INJECTED, PLANTED_MARK = 1, 2
UNIFORM, BY_POPULARITY = "uniform", "popularity"
DRAWN = (UNIFORM, BY_POPULARITY)  # column `drawn` of planted.csv: how a planted item was drawn, in turn where both are measured
MOST_DRAWS = 10_000  # before planting gives up


def noise_pools(windows: list[list[int]], n_items: int) -> dict[str, np.ndarray]:
    """{how planted items are drawn: items (P,) int64 of which each is as likely as any other}.

    uniform: the catalogue, as the paper plants. popularity: all positions of the windows, so that a planted item is as
    popular as what stands there; then only its context tells it, and a score that knows popularity alone has an AUC of 0.5.
    """
    return {UNIFORM: np.arange(1, n_items + 1), BY_POPULARITY: np.concatenate(windows)}


def draw_planted(items: list[int], pool: np.ndarray, rng: np.random.Generator, rate: float | None = None) -> dict[int, int]:
    """{position: random item} to put into a window: one position, or each with probability `rate` (at least one).

    Positions are uniform. Each item is a uniform draw from `pool` (P,), in which an item may stand more than once. An item that the
    window holds already could not be told from itself: it is drawn again. Raises InputError where the pool has hardly any other.
    """
    n_planted = 1 if rate is None else max(1, rng.binomial(len(items), rate))
    positions = rng.choice(len(items), size=n_planted, replace=False)  # (n_planted,) in random order
    planted, taken = {}, set(items)
    for _ in range(MOST_DRAWS):
        item = int(pool[rng.integers(len(pool))])
        if item not in taken:
            taken.add(item)
            planted[int(positions[len(planted)])] = item
            if len(planted) == n_planted:
                return planted
    raise InputError(f"too few items to plant random ones in windows of {len(items)}: the catalogue has hardly any others")


def put_planted(values: list[int], planted: dict[int, int]) -> list[int]:
    """The values of a window (its items, or its mask) with {position: value} put in their places."""
    return [planted.get(position, value) for position, value in enumerate(values)]
