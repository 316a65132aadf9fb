"""Features of interactions: means over the train windows that hold one. Features of places of a history: those of that window.

A kind of evidence is an object with `columns`, `of_interactions`, `of_windows` and `of_histories` (`FeatureKind`). The regression for
histories is fitted on `of_windows`. A kind that cannot judge any window that it is given, since it reads more than users and items (times,
say), returns None there; then it and `fused` judge histories by the regression for train interactions. There are two ways to make a kind
that can, both of users and items alone:

- `PairKind`: what any two items of a window say of each other. Windows overlap, so a pair is asked once, not once a window: prefix sums
  over lags give the sums of all windows that hold an interaction. Time and memory grow with n W, not with N W^2.
- `WindowKind`: a function of whole windows, such as a model that reads them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from denoise_code.common.progress import progress
from denoise_code.data_set.interactions import DataSet, train_pairs

CHUNK_BYTES = 2**28  # working memory of one chunk


@dataclass(frozen=True)
class Planted:
    """M interactions with another item in their place, each alone in all its windows. rows (M,) int64 of the table; items (M,) int64."""

    rows: np.ndarray
    items: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


class FeatureKind(Protocol):
    """columns: names of its F features. Items are numbers up to `n_items` of the counts, which is more than the catalogue has: planted
    ones may be stand-ins for unseen items (`unseen_items.py`)."""

    columns: tuple[str, ...]

    def of_interactions(self, data: DataSet, planted: Planted) -> tuple[np.ndarray, np.ndarray]:
        """(n, F) and (M, F) float32: of the interactions as they are, NaN where no train window holds one, and of the planted ones."""

    def of_windows(self, users: np.ndarray, items: np.ndarray) -> np.ndarray | None:
        """(N, H, F) float32 of windows, each by itself: items (N, H), 0 where there is none and the features are NaN; users (N,).

        None for a kind that reads more than users and items, or can only say what it was given.
        """

    def of_histories(self, data: DataSet, file: str) -> np.ndarray:
        """(N, H, F) float32 of the histories of a file of `data.evaluated`, NaN left of a history's first item."""


# ---------------------------------------------------------------- train windows by their first rows


@dataclass
class TrainWindows:
    """Train windows sorted by the first row of each: first, last (N,) row numbers; width W."""

    rows: np.ndarray  # (N, W) as in the data set
    first: np.ndarray = field(init=False)
    last: np.ndarray = field(init=False)
    order: np.ndarray = field(init=False)

    def __post_init__(self):
        lengths = (self.rows >= 0).sum(1)
        last = self.rows[:, -1]
        first = last - lengths + 1
        self.order = np.lexsort((last, first))
        self.first, self.last = first[self.order], last[self.order]

    @property
    def width(self) -> int:
        return self.rows.shape[1]

    def holding(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(which of rows (M,), number of the sorted window), both (K,): each window that holds each of these rows of the table."""
        low = np.searchsorted(self.first, rows - self.width + 1)
        high = np.searchsorted(self.first, rows, side="right")
        counts = high - low
        owner = np.repeat(np.arange(len(rows)), counts)
        window = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + low[owner]
        held = self.last[window] >= rows[owner]
        return owner[held], window[held]


def user_chunks(users: np.ndarray, bytes_a_row: int, chunk_bytes: int = CHUNK_BYTES) -> Iterator[slice]:
    """Slices of rows (n,), sorted by user, that hold whole users, as many as fit into so many bytes (one at least)."""
    ends = np.flatnonzero(np.r_[users[1:] != users[:-1], True]) + 1
    most, start = max(1, chunk_bytes // bytes_a_row), 0
    while start < len(users):
        first, fitting = np.searchsorted(ends, [start, start + most], side="right") - [0, 1]  # numbers of users
        stop = int(ends[max(first, fitting)])
        yield slice(start, stop)
        start = stop


def row_chunks(count: int, bytes_a_row: int, chunk_bytes: int = CHUNK_BYTES) -> Iterator[slice]:
    """Slices of 0..count that fit into so many bytes, one row at least."""
    step = max(1, chunk_bytes // bytes_a_row)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


# ---------------------------------------------------------------- kinds that compare pairs of items


class PairKind:
    """Features from pairs of items: [the largest value with another item of the window,] the mean value with the others, the mean value of
    these others with each other, and what `item_values` says of the item alone.

    A stranger is an item that does not go with the others where these go with each other. An item alone in its window has 0 in all of
    them: no evidence.
    """

    columns: tuple[str, ...]
    with_largest = False
    chunk_bytes = CHUNK_BYTES

    def pair_values(self, users: np.ndarray, items: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(P,) a symmetric value for cells `first` and `second` (P,), numbers of cells; a cell m is items[m] in a window of users[m]."""
        raise NotImplementedError

    def item_values(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(m, E) what each cell says by itself."""
        return np.zeros((len(items), 0), dtype=np.float32)

    def of_interactions(self, data: DataSet, planted: Planted) -> tuple[np.ndarray, np.ndarray]:
        windows, table = TrainWindows(data.train), data.interactions
        of_log = np.full((len(table), len(self.columns)), np.nan, dtype=np.float32)
        of_planted = np.full((len(planted), len(self.columns)), np.nan, dtype=np.float32)
        by_row = np.argsort(planted.rows, kind="stable")
        sorted_rows = planted.rows[by_row]
        bar = progress(None, "compare pairs", "interaction", len(table))
        for rows in user_chunks(table.users, 20 * 8 * windows.width, self.chunk_bytes):
            inside = slice(*np.searchsorted(sorted_rows, [rows.start, rows.stop]))
            chunk = PairChunk(self, data, windows, rows)
            of_log[rows], window_sums = chunk.pooled_features()
            chosen = by_row[inside]
            for part in row_chunks(len(chosen), 40 * 8 * windows.width, self.chunk_bytes):
                numbers = chosen[part]
                of_planted[numbers] = chunk.planted_features(planted.rows[numbers], planted.items[numbers], window_sums)
            bar.update(rows.stop - rows.start)
        bar.close()
        return of_log, of_planted

    def of_histories(self, data: DataSet, file: str) -> np.ndarray:
        return self.of_windows(data.evaluated[file].users, data.evaluated[file].histories)

    def of_windows(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        result = np.full((*items.shape, len(self.columns)), np.nan, dtype=np.float32)
        by_user = np.argsort(users, kind="stable")  # what a user's own pairs are is found once for all its windows
        for part in row_chunks(len(items), 10 * 8 * items.shape[1] ** 2, self.chunk_bytes):
            rows = by_user[part]
            result[rows] = self.of_some_windows(users[rows], items[rows])
        return result

    def of_some_windows(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(N, W, F) of windows that fit into memory at once."""
        held = items != 0
        values = self.window_values(users, items, held)  # (N, W, W), -inf where there is no pair
        pair_sum = zero_for_none(values).sum(2)  # (N, W)
        sum_of_others = pair_sum.sum(1, keepdims=True) - 2 * pair_sum
        columns = feature_columns(
            pair_sum, sum_of_others, held.sum(1, keepdims=True), values.max(2) if self.with_largest else None
        )
        alone = self.item_values(np.repeat(users, items.shape[1]), items.ravel()).reshape(*items.shape, -1)
        features = np.concatenate([np.stack(columns, axis=2), alone], axis=2)
        return np.where(held[:, :, None], features, np.nan)

    def window_values(self, users: np.ndarray, items: np.ndarray, held: np.ndarray) -> np.ndarray:
        """(N, W, W) values of all pairs of held places (N, W) of each window, -inf for any other."""
        count, width = items.shape
        earlier, later = np.triu_indices(width, 1)
        row, pair = np.nonzero(held[:, earlier] & held[:, later])
        first, second = row * width + earlier[pair], row * width + later[pair]
        values = np.full((count, width, width), -np.inf, dtype=np.float32)
        found = self.pair_values(np.repeat(users, width), items.ravel(), first, second)
        values[row, earlier[pair], later[pair]] = values[row, later[pair], earlier[pair]] = found
        return values


def feature_columns(
    pair_sum: np.ndarray, sum_of_others: np.ndarray, length: np.ndarray, largest: np.ndarray | None
) -> list[np.ndarray]:
    """The features of a `PairKind` without `item_values`, an array each, from what the pairs of items in windows add up to.

    pair_sum: of an item's values with the length - 1 others; sum_of_others: of the values of these with each other, each pair twice;
    largest: of an item's values, -inf where it has none, None for a kind without it. All of one shape; length (N, 1) where they are
    (N, W).
    """
    means = [pair_sum / np.maximum(length - 1, 1), sum_of_others / np.maximum((length - 1) * (length - 2), 1)]
    return means if largest is None else [zero_for_none(largest), *means]


def zero_for_none(values: np.ndarray) -> np.ndarray:
    """Values with 0 in place of -inf, which stands where there is no pair."""
    return np.where(np.isneginf(values), 0, values)


class PairChunk:
    """The train windows of some users: values of pairs by lag, and from these the features of interactions.

    Of a window from row s to row e, an interaction at row p has the pairs with lags 1..e-p after it and 1..p-s before it. So with running
    sums over lags its sum in any window is two look-ups.
    """

    def __init__(self, kind: PairKind, data: DataSet, windows: TrainWindows, rows: slice):
        self.table = table = data.interactions
        self.kind, self.windows, self.start, self.width = kind, windows, rows.start, windows.width
        self.users, self.items = table.users[rows], table.items[rows]
        self.places, self.reach = table.places[rows], table.reach[rows]
        self.n_rows = len(self.users)
        first, second = self.pairs_in_windows()
        values = kind.pair_values(self.users, self.items, first, second)
        self.after = running(self.n_rows, self.width, first, second - first, values, kind.with_largest)
        self.before = running(self.n_rows, self.width, second, second - first, values, kind.with_largest)
        low, high = np.searchsorted(windows.first, [rows.start, rows.stop])
        self.window_slice = slice(low, high)
        self.first, self.last = windows.first[low:high] - rows.start, windows.last[low:high] - rows.start  # (w,)

    def pairs_in_windows(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows (P,) of the chunk, the earlier and the later of each pair that a train window holds."""
        first = []
        for lag in range(1, self.width):
            first.append(train_pairs(self.users, self.places, self.reach, lag))
        counts = [len(rows) for rows in first]
        earlier = np.concatenate([np.zeros(0, dtype=np.int64), *first])
        return earlier, earlier + np.repeat(np.arange(1, len(counts) + 1), counts)

    def pooled_features(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, F): means over the windows that hold each row, NaN where none does; (w,) sums of all ordered pairs of each window."""
        columns = len(self.kind.columns)
        sums, held_by = np.zeros((self.n_rows, columns)), np.zeros(self.n_rows)
        window_sums = np.zeros(len(self.first))
        for part in row_chunks(len(self.first), 12 * 8 * self.width, self.kind.chunk_bytes):
            first, last = self.first[part, None], self.last[part, None]
            rows = first + np.arange(self.width)  # (w, W)
            held = rows <= last
            rows = np.where(held, rows, last)
            pair_sum = np.where(held, self.after.sums[rows, last - rows] + self.before.sums[rows, rows - first], 0)
            window_sums[part] = pair_sum.sum(1)
            sum_of_others = window_sums[part, None] - 2 * pair_sum
            largest = largest_in_windows(self.after, self.before, rows, last - rows, rows - first)
            cells = rows[held]
            held_by += np.bincount(cells, minlength=self.n_rows)
            for column, value in enumerate(feature_columns(pair_sum, sum_of_others, held.sum(1, keepdims=True), largest)):
                sums[:, column] += np.bincount(cells, value[held], minlength=self.n_rows)
        alone = self.kind.item_values(self.users, self.items)
        with np.errstate(invalid="ignore"):
            pooled = sums / held_by[:, None]
        pooled[:, columns - alone.shape[1] :] = np.where(held_by[:, None] > 0, alone, np.nan)
        return pooled, window_sums

    def planted_features(self, table_rows: np.ndarray, items: np.ndarray, window_sums: np.ndarray) -> np.ndarray:
        """(M, F): means over the windows that hold these rows (M,) of the table, items (M,) standing there.

        window_sums (w,): of `pooled_features`.
        """
        rows, count = table_rows - self.start, len(items)
        owner, window = self.windows.holding(table_rows)
        window -= self.window_slice.start
        after, before = self.planted_running(rows, items)
        to_end, to_start = self.last[window] - rows[owner], rows[owner] - self.first[window]  # (K,) lags
        pair_sum = after.sums[owner, to_end] + before.sums[owner, to_start]
        clean_pair_sum = self.after.sums[rows[owner], to_end] + self.before.sums[rows[owner], to_start]
        sum_of_others = window_sums[window] - 2 * clean_pair_sum  # what the others say of each other is as it was
        largest = largest_in_windows(after, before, owner, to_end, to_start)
        columns = feature_columns(pair_sum, sum_of_others, to_end + to_start + 1, largest)
        held_by = np.bincount(owner, minlength=count)
        means = [np.bincount(owner, column, minlength=count) / held_by for column in columns]
        return np.column_stack([*means, self.kind.item_values(self.users[rows], items)])

    def planted_running(self, rows: np.ndarray, items: np.ndarray) -> tuple["Running", "Running"]:
        """Running sums (M, W) of planted items with what stands after and before their rows (M,)."""
        cells = self.n_rows + np.arange(len(rows))  # behind the cells of the chunk
        users, all_items = np.concatenate([self.users, self.users[rows]]), np.concatenate([self.items, items])
        sides = []
        for sign in (1, -1):
            other = rows[:, None] + sign * np.arange(1, self.width)  # (M, W - 1)
            inside = np.clip(other, 0, self.n_rows - 1)
            earlier, later = (rows[:, None], inside) if sign == 1 else (inside, rows[:, None])
            together = (other == inside) & self.table.in_one_window(earlier + self.start, later + self.start)
            number, lag = np.nonzero(together)
            values = self.kind.pair_values(users, all_items, cells[number], inside[together])
            sides.append(running(len(rows), self.width, number, lag + 1, values, self.kind.with_largest))
        return sides[0], sides[1]


@dataclass(frozen=True)
class Running:
    """sums (m, W) float64: of a row's values with lags 1..k in column k; largest (m, W) float32 of the same, -inf where there is none."""

    sums: np.ndarray
    largest: np.ndarray | None


def running(count: int, width: int, rows: np.ndarray, lags: np.ndarray, values: np.ndarray, with_largest: bool) -> Running:
    """`Running` of `count` rows from values (P,) of these rows at these lags (P,)."""
    by_lag = np.zeros((count, width))
    by_lag[rows, lags] = values
    largest = None
    if with_largest:
        largest = np.full((count, width), -np.inf, dtype=np.float32)
        largest[rows, lags] = values
        largest = np.maximum.accumulate(largest, axis=1)
    return Running(np.cumsum(by_lag, axis=1), largest)


def largest_in_windows(
    after: Running, before: Running, rows: np.ndarray, to_end: np.ndarray, to_start: np.ndarray
) -> np.ndarray | None:
    """Of a row's values with lags 1..to_end after and 1..to_start before it, of the shape of rows; None for a kind without it."""
    return None if after.largest is None else np.maximum(after.largest[rows, to_end], before.largest[rows, to_start])


# ---------------------------------------------------------------- kinds that read whole windows


class WindowKind:
    """What `features_of_windows`(users (N,), items (N, W)) -> (N, W, F) says of whole windows; an item 0 is none.

    users are codes of the table: what was learned from one half of the users is used on the other (`Interactions.halvings`).
    """

    at_once = 4096  # windows a call

    def __init__(self, columns: tuple[str, ...], features_of_windows: Callable[[np.ndarray, np.ndarray], np.ndarray]):
        self.columns, self.features_of_windows = columns, features_of_windows

    def of_interactions(self, data: DataSet, planted: Planted) -> tuple[np.ndarray, np.ndarray]:
        table = data.interactions
        items = np.r_[table.items, 0]  # the last for the padding, row -1
        sums, held_by = np.zeros((len(table), len(self.columns))), np.zeros(len(table))
        parts = list(row_chunks(len(data.train), 1, self.at_once))
        for part in progress(parts, "read windows", "batch"):
            rows = data.train[part]  # (N, W)
            held = rows >= 0
            values = self.features_of_windows(table.users[rows[:, -1]], items[rows])
            held_by += np.bincount(rows[held], minlength=len(table))
            for column in range(len(self.columns)):
                sums[:, column] += np.bincount(rows[held], values[..., column][held], minlength=len(table))
        with np.errstate(invalid="ignore"):
            of_log = (sums / held_by[:, None]).astype(np.float32)
        return of_log, self.of_planted(data, planted)

    def of_planted(self, data: DataSet, planted: Planted) -> np.ndarray:
        """(M, F): each planted interaction read in all windows that hold it."""
        table, windows = data.interactions, TrainWindows(data.train)
        items = np.r_[table.items, 0]
        owner, window = windows.holding(planted.rows)
        sums = np.zeros((len(planted), len(self.columns)))
        parts = list(row_chunks(len(owner), 1, self.at_once))
        for part in progress(parts, "read planted windows", "batch"):
            rows = data.train[windows.order[window[part]]]  # (K, W)
            here = rows == planted.rows[owner[part], None]
            asked = np.where(here, planted.items[owner[part], None], items[rows])
            values = self.features_of_windows(table.users[rows[:, -1]], asked)[here]  # (K, F)
            np.add.at(sums, owner[part], values)
        held_by = np.bincount(owner, minlength=len(planted))
        return (sums / held_by[:, None]).astype(np.float32)

    def of_histories(self, data: DataSet, file: str) -> np.ndarray:
        return self.of_windows(data.evaluated[file].users, data.evaluated[file].histories)

    def of_windows(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        result = np.full((*items.shape, len(self.columns)), np.nan, dtype=np.float32)
        for part in row_chunks(len(items), 1, self.at_once):
            result[part] = np.where((items[part] != 0)[:, :, None], self.features_of_windows(users[part], items[part]), np.nan)
        return result


@dataclass(frozen=True)
class GivenKind:
    """Features that somebody else has made, such as what a language model said (its log-odds, means over what it read).

    of_log (n, F); planted (M, F) in the order in which interactions were planted; histories {file: (N, H, F)}.
    """

    columns: tuple[str, ...]
    of_log: np.ndarray
    planted: np.ndarray
    histories: dict[str, np.ndarray]

    def of_interactions(self, data: DataSet, planted: Planted) -> tuple[np.ndarray, np.ndarray]:
        if len(planted) != len(self.planted):
            raise ValueError(f"{len(planted)} planted interactions, but {len(self.planted)} were read")
        return self.of_log, self.planted

    def of_windows(self, users: np.ndarray, items: np.ndarray) -> None:
        return None

    def of_histories(self, data: DataSet, file: str) -> np.ndarray:
        return self.histories[file]
