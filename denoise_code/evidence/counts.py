"""How often items, and pairs of items of one window, occur in the train windows. Knows nothing of noise and of models."""

from dataclasses import dataclass

import numpy as np

from denoise_code.common.errors import InputError
from denoise_code.data_set.padded_rows import Split


def new_positions(split: Split) -> np.ndarray:
    """True (N, W) where a row holds an interaction that no earlier window of its user holds, in whatever order rows come.

    Released rows do not tell which interactions they hold (`Split.places`). There sliding windows are found by their
    overlap: one that starts with all but the first s items of another of its user repeats all but its own last s.
    Overlaps of half a window and more are recognised (by a hash), shorter ones could be chance.
    """
    items = split.items
    if split.places is not None:
        order = split.places[:, -1].argsort(kind="stable")  # of two windows the earlier one has more before an interaction
        row, column = np.divmod(np.unique(split.interactions[order], return_index=True)[1], items.shape[1])
        new = np.zeros(items.shape, dtype=bool)
        new[order[row], column] = True
        return new & (items != 0)
    users = np.unique(split.users, return_inverse=True)[1]
    width, shift = items.shape[1], np.full(len(items), items.shape[1])
    weights = np.random.default_rng(0).integers(1, 2**62, size=width + 1)  # products wrap around, as hashes may

    def key(part: np.ndarray) -> np.ndarray:
        return (part * weights[: part.shape[1]]).sum(1) + users * weights[-1]

    for step in range(width // 2, 0, -1):
        continues = np.isin(key(items[:, :-step]), key(items[:, step:])) & (items[:, 0] != 0)
        shift[continues] = step
    return (np.arange(width) >= width - shift[:, None]) & (items != 0)


@dataclass
class Counts:
    """How often items and pairs of items occur in the train windows: by all users, and by each user.

    A pair of interactions counts once however many sliding windows hold both. Keys are sorted int64 numbers that code
    (item, item) with the smaller first, (user, item, item) and (user, item).
    """

    n_items: int
    user_codes: dict
    items: np.ndarray
    pairs: tuple[np.ndarray, np.ndarray]
    user_pairs: tuple[np.ndarray, np.ndarray]
    user_items: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, train: Split, n_items: int) -> "Counts":
        names, users = np.unique(train.users, return_inverse=True)
        if len(names) * (n_items + 1) ** 2 >= 2**63:
            raise InputError(f"{train.path}: {len(names)} users and {n_items} items are too many to code their pairs")
        new, width = new_positions(train), train.items.shape[1]
        pair_keys, pair_users = [], []
        for later in range(1, width):
            for earlier in range(later):
                rows = np.flatnonzero(new[:, later] & (train.items[:, earlier] != 0))
                pair_keys.append(code_pairs(train.items[rows, earlier], train.items[rows, later], n_items))
                pair_users.append(users[rows])
        keys, owners = np.concatenate(pair_keys), np.concatenate(pair_users)
        rows, columns = np.nonzero(new)
        interactions = train.items[rows, columns]
        return cls(
            n_items,
            {name: code for code, name in enumerate(names)},
            np.bincount(interactions, minlength=n_items + 1),
            np.unique(keys, return_counts=True),
            np.unique(owners * (n_items + 1) ** 2 + keys, return_counts=True),
            np.unique(users[rows] * (n_items + 1) + interactions, return_counts=True),
        )

    def expected(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """How often items that occur so often would occur together by chance."""
        total = max(self.items.sum(), 1)
        partners = 2 * self.pairs[1].sum() / total  # that an interaction has on average
        return (a * b).astype(np.float32) * (partners / total)

    def between(self, users: np.ndarray, candidates: np.ndarray, rest: np.ndarray):
        """Counts (F, C) of candidates, and (F, C, W) how often each occurs with the items of rest (F, W): found, expected.

        All by other users than the F given.
        """
        codes = self.codes_of(users)
        keys = code_pairs(candidates[:, :, None], rest[:, None, :], self.n_items)
        single, other = self.items_of_others(codes, candidates), self.items_of_others(codes, rest)
        return single, self.pairs_of_others(codes[..., None], keys), self.expected(single[:, :, None], other[:, None])

    def codes_of(self, users: np.ndarray) -> np.ndarray:
        """(N, 1), -1 for a user without train rows."""
        return np.array([self.user_codes.get(user, -1) for user in users])[:, None]

    def items_of_others(self, codes: np.ndarray, items: np.ndarray) -> np.ndarray:
        own = np.where(codes < 0, -1, codes * (self.n_items + 1) + items)
        return self.items[items] - look_up(self.user_items, own)

    def pairs_of_others(self, codes: np.ndarray, keys: np.ndarray) -> np.ndarray:
        own = np.where(codes < 0, -1, codes * (self.n_items + 1) ** 2 + keys)
        return look_up(self.pairs, keys) - look_up(self.user_pairs, own)

    def of_others(self, users: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Item counts (N, W) and pair counts (N, W, W) of a window's items by all users but its own."""
        codes, width = self.codes_of(users), items.shape[1]
        single = self.items_of_others(codes, items)
        first, second = np.triu_indices(width, 1)
        keys = code_pairs(items[:, first], items[:, second], self.n_items)  # (N, W (W - 1) / 2)
        together = self.pairs_of_others(codes, keys)
        pairs = np.zeros((len(items), width, width), dtype=np.float32)
        pairs[:, first, second] = pairs[:, second, first] = together
        return single, pairs


def code_pairs(a: np.ndarray, b: np.ndarray, n_items: int) -> np.ndarray:
    return np.minimum(a, b) * (n_items + 1) + np.maximum(a, b)


def look_up(table: tuple[np.ndarray, np.ndarray], keys: np.ndarray) -> np.ndarray:
    """Counts of keys in a sorted (keys, counts) table, 0 where a key is not in it."""
    known, counts = table
    if not len(known):
        return np.zeros(keys.shape, dtype=np.int64)
    asked, inverse = np.unique(keys, return_inverse=True)  # sorted: neighbours are found in the same cache lines
    place = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return np.where(known[place] == asked, counts[place], 0)[inverse].reshape(keys.shape)
