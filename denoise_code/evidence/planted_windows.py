"""Train windows with one planted item each, for evidence that needs no language model."""

import numpy as np

from denoise_code.common.errors import InputError
from denoise_code.data_set.padded_rows import Split
from denoise_code.data_set.planting import DRAWN
from denoise_code.evidence.counts import Counts


def plant(train: Split, n_items: int, count: int, seed: int = 0, popular: Counts | None = None) -> Split:
    """`count` train windows with one item each that is not in the window, at a uniform place; mask 2 there.

    The items are uniform over the catalogue, or as popular as the positions of the windows are by these counts.
    """
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(train.items), size=min(count, len(train.items)), replace=False)
    items, mask = train.items[rows].copy(), np.zeros_like(train.mask[rows])
    places, drawn = random_places(items, rng), np.zeros(len(rows), dtype=np.int64)
    for _ in range(1000):
        clash = (drawn[:, None] == items).any(1) | (drawn == 0)
        if not clash.any():
            break
        size = int(clash.sum())
        drawn[clash] = rng.integers(1, n_items + 1, size) if popular is None else as_popular(train, popular, size, rng)
    else:
        raise InputError(f"{train.path}: a window holds nearly all of the {n_items} items, none is left to plant")
    items[np.arange(len(rows)), places] = drawn
    mask[np.arange(len(rows)), places] = 2
    kind = np.full(len(rows), DRAWN[popular is not None])
    return Split(train.path.with_name("planted"), train.users[rows], items, mask, items, drawn=kind)


def as_popular(train: Split, counts: Counts, size: int, rng: np.random.Generator) -> np.ndarray:
    """Items (size,) that other users hold as often as the other users hold what stands at random positions of the windows.

    A position's own user is left out of its count as of all features: who draws positions themselves plants items that are
    more popular by one, and on sparse data (Toy) rarity alone then has an AUC of 0.44.
    """
    row, place = (chosen[:, None] for chosen in divmod(rng.choice(np.flatnonzero(train.items), size), train.items.shape[1]))
    popularity = counts.items_of_others(counts.codes_of(train.users[row[:, 0]]), train.items[row, place])[:, 0]
    order = rng.permutation(counts.n_items) + 1
    order = order[counts.items[order].argsort(kind="stable")]
    ascending = counts.items[order]
    first, after = (np.searchsorted(ascending, popularity, side) for side in ("left", "right"))
    return order[np.minimum(first + (rng.random(size) * (after - first)).astype(int), counts.n_items - 1)]


def random_places(items: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A uniform place (N,) of each left-padded window (N, W)."""
    return items.shape[1] - 1 - (rng.random(len(items)) * (items != 0).sum(1)).astype(int)
