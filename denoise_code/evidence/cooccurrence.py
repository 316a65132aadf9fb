"""How often items, and pairs of items, stand in one train window: counted by lags of the table of interactions. Knows nothing of noise.

A pair of interactions counts once, however many windows hold both. What is said of a user comes from the other users' counts. A
user's own pairs are counted anew for the few users of a chunk: a table of all users' pairs would be W - 1 times as large as the log.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from denoise_code.data_set.interactions import Interactions, train_pairs
from denoise_code.evidence.features import PairKind

PAIRS_AT_ONCE = 2**25  # pairs of interactions that are held before they are added up


@dataclass(frozen=True)
class Cooccurrence:
    """Counts of train interactions.

    item_counts (n_items + 1,) int64. pairs: (n_items + 1, n_items + 1) int32, CSR, the smaller item names the row. n_pairs: their sum.
    users, places, items, reach (t,): the train interactions. user_items (K,) int64, ascending: user * (n_items + 1) + item for each
    item that a user has, user_item_counts (K,) how often.
    """

    n_items: int
    width: int
    item_counts: np.ndarray
    pairs: sparse.csr_array
    n_pairs: int
    users: np.ndarray
    places: np.ndarray
    items: np.ndarray
    reach: np.ndarray
    user_items: np.ndarray
    user_item_counts: np.ndarray

    def user_item_rows(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Where a (user, item) stands in `user_items`, -1 where the user has no such train interaction; any shape."""
        if not len(self.user_items):
            return np.full(users.shape, -1)
        keys = users * (self.n_items + 1) + items
        row = np.minimum(np.searchsorted(self.user_items, keys), len(self.user_items) - 1)
        return np.where(self.user_items[row] == keys, row, -1)

    def items_of_others(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """How often the other users have an item; users and items of one shape, int64."""
        row = self.user_item_rows(users, items)
        return self.item_counts[items] - np.where(row >= 0, np.r_[self.user_item_counts, 0][row], 0)

    def pairs_of_others(self, users: np.ndarray, items: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(P,) how often the other users have the items of cells `first` and `second` (P,) in one window.

        Cell m is items[m] of users[m] (m,); both cells of a pair are of one user.
        """
        swapped = items[first] > items[second]
        smaller, larger = np.where(swapped, second, first), np.where(swapped, first, second)  # cells
        together = look_up(self.pairs, items[smaller], items[larger])
        rows = self.user_item_rows(users, items)  # (m,)
        # Pairs of which the user has both items; where one is lacking there is nothing to leave out.
        own = np.flatnonzero((rows[smaller] >= 0) & (rows[larger] >= 0))
        if len(own):
            codes = np.unique(users)
            base = int(np.searchsorted(self.user_items, codes[0] * (self.n_items + 1)))
            own_pairs = self.pairs_of_users(codes, base)
            together[own] -= look_up(own_pairs, rows[smaller[own]] - base, items[larger[own]])
        return together

    def pairs_of_users(self, codes: np.ndarray, base: int) -> sparse.csr_array:
        """Pairs of some users, codes (K,) ascending, by their items: row r is entry base + r of `user_items`, columns are items."""
        end = int(np.searchsorted(self.user_items, (codes[-1] + 1) * (self.n_items + 1)))
        low, high = np.searchsorted(self.users, codes), np.searchsorted(self.users, codes, side="right")
        if (low[1:] == high[:-1]).all():
            kept = slice(low[0], high[-1])
        else:
            kept = np.concatenate([np.arange(start, stop) for start, stop in zip(low.tolist(), high.tolist())])
        users, places, items, reach = (column[kept] for column in (self.users, self.places, self.items, self.reach))
        entries = self.user_item_rows(users, items) - base
        return count_pairs(users, places, reach, self.width, entries, items, (end - base, self.n_items + 1), items)

    def expected(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """How often two items that occur so often would be in one window if they were independent.

        first, second: counts of any shape. The totals are of all users, whoever is judged: one user's part in them is small.
        """
        total = max(len(self.items), 1)
        partners = 2 * self.n_pairs / total  # that an interaction has on average
        return (first * second).astype(np.float32) * np.float32(partners / total)

    def lift(self, users: np.ndarray, items: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(P,) float32: log((together + 1) / (expected + 1)) of pairs of cells; arguments as of `pairs_of_others`.

        The counts of the pair and of both items are of the other users, the totals in `expected` are of all.
        """
        counts = self.items_of_others(users, items)  # (m,)
        together = self.pairs_of_others(users, items, first, second)
        return np.log1p(together.astype(np.float32)) - np.log1p(self.expected(counts[first], counts[second]))


def count(interactions: Interactions, n_items: int, width: int, users: np.ndarray | None = None) -> Cooccurrence:
    """Counts of the interactions that train windows of at most `width` items hold. users (U,) bool: of these alone."""
    kept = interactions.in_train
    if users is not None:
        kept = kept & users[interactions.users]
    users, places, items, reach = (getattr(interactions, name)[kept] for name in ("users", "places", "items", "reach"))
    pairs = count_pairs(users, places, reach, width, items, items, (n_items + 1, n_items + 1), items)
    user_items, counts = np.unique(users * (n_items + 1) + items, return_counts=True)
    return Cooccurrence(
        n_items=n_items,
        width=width,
        item_counts=np.bincount(items, minlength=n_items + 1),
        pairs=pairs,
        n_pairs=int(pairs.sum(dtype=np.int64)),
        users=users,
        places=places,
        items=items,
        reach=reach,
        user_items=user_items,
        user_item_counts=counts,
    )


def count_pairs(users, places, reach, width: int, row_of, column_of, shape: tuple[int, int], items) -> sparse.csr_array:
    """Pairs of interactions in one train window, by lags 1..width-1: one is added at (row_of, column_of) of the two.

    All (n,), sorted by user and place. The interaction with the smaller item gives the row, the other one the column.
    """
    total = sparse.csr_array(shape, dtype=np.int32)
    rows, columns, held = [], [], 0
    for lag in range(1, width):
        earlier = train_pairs(users, places, reach, lag)
        swapped = items[earlier] > items[earlier + lag]
        rows.append(row_of[np.where(swapped, earlier + lag, earlier)].astype(np.int32))
        columns.append(column_of[np.where(swapped, earlier, earlier + lag)].astype(np.int32))
        held += len(earlier)
        if held > PAIRS_AT_ONCE:
            total = total + added_up(rows, columns, shape)
            rows, columns, held = [], [], 0
    if held:
        last = added_up(rows, columns, shape)
        total = total + last if total.nnz else last
    return total


def added_up(rows: list[np.ndarray], columns: list[np.ndarray], shape: tuple[int, int]) -> sparse.csr_array:
    """How often each (row, column) stands there."""
    row, column = np.concatenate(rows), np.concatenate(columns)
    ones = np.ones(len(row), dtype=np.int32)
    matrix = sparse.coo_array((ones, (row, column)), shape=shape).tocsr()
    matrix.sum_duplicates()
    return matrix


def look_up(matrix: sparse.csr_array, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(P,) int64 entries of a CSR matrix. Asked in the order of the rows, which is four times as fast where the matrix is large."""
    result = np.zeros(len(rows), dtype=np.int64)
    if matrix.nnz and len(rows):
        order = np.argsort(rows, kind="stable")
        found = sparse.csr_matrix(matrix)[rows[order], columns[order]]
        result[order] = np.asarray(found).ravel()
    return result


class Collaborative(PairKind):
    """Co-occurrence beyond chance with the other items of a window, these with each other, and how few have the item.

    An item that nobody has in train has 0 in the first: no evidence but its rarity.
    """

    columns = ("co-occurrence", "co-occurrence of the rest", "rarity")

    def __init__(self, counts: Cooccurrence):
        self.counts = counts

    def pair_values(self, users, items, first, second):
        return self.counts.lift(users, items, first, second)

    def item_values(self, users, items):
        others = self.counts.items_of_others(users, items)
        return -np.log1p(others.astype(np.float32))[:, None]
