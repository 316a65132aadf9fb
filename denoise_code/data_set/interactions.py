"""A data set as a table of interactions and windows over it. Knows nothing of files, of models and of what noise is.

An interaction is (user, place in the user's sequence, item). A window is a run of rows of the table, so that an interaction has one
row number in all windows that hold it. Three rules keep the table from telling what must not be known:

- The last cell of a valid or test row is the true item, whatever later histories hold in its place. It is no evidence, and the table
  holds it only where nothing else holds its interaction.
- Only train windows teach: `Interactions.reach` says which places, and which pairs of places, a train window holds.
- The history of a valid or test row stands with the row (`EvaluatedRows.histories`), not with the interactions.
"""

import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NO_ROW = -1  # left padding of windows of row numbers
GAP = 1  # empty places between parts of a user's sequence whose distance is not known


@dataclass(frozen=True)
class Rows:
    """One file of windows. N rows of 2 to W items, oldest first, the last one is the target; left-padded with 0.

    users (N,) str; items (N, W) int64, the target of a valid or test row being the true item; masks (N, W) int64: for evaluation only;
    times (N,) float64 of the targets, any unit, NaN where not known; starts (N,) int64: the place of a row's first item in its user's
    sequence, or None where the file does not tell.
    """

    users: np.ndarray
    items: np.ndarray
    masks: np.ndarray
    times: np.ndarray
    starts: np.ndarray | None = None


@dataclass(frozen=True)
class Interactions:
    """n interactions, sorted by user and place.

    users (n,) int64: codes 0..U-1, `user_names` (U,) str are the file's; places, items (n,) int64.
    reach (n,) int64: places p <= q of a user are in one train window just where q <= reach at p. It is the last place of the train
    windows that start at p or before, -1 where there is none: with train windows of places 0-2 and 1-3 it is 2, 3, 3, 3.
    """

    users: np.ndarray
    places: np.ndarray
    items: np.ndarray
    reach: np.ndarray
    user_names: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    @property
    def in_train(self) -> np.ndarray:
        """(n,) bool: whether a train window holds the interaction. Nothing but these may be learned from."""
        return self.places <= self.reach

    def in_one_window(self, earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
        """Whether one train window holds both of two rows of the table, the later one standing at the same place or behind; any shape."""
        return (self.users[earlier] == self.users[later]) & (self.places[later] <= self.reach[earlier])

    def halvings(self, keys: Sequence[str] | None = None) -> np.ndarray:
        """(2, U): the users are halved twice, independently; 0 or 1 for each user.

        By the user's key in the log (default: the name in the file), so that they are the same in every data set.
        """
        names = self.user_names if keys is None else keys
        checksums = np.array([zlib.crc32(str(name).encode()) for name in names], dtype=np.int64)  # (U,)
        return np.stack([checksums & 1, checksums >> 1 & 1])


def train_pairs(users: np.ndarray, places: np.ndarray, reach: np.ndarray, lag: int) -> np.ndarray:
    """Rows (P,) whose interaction is in one train window with that of the row `lag` further on. All (n,), sorted by user and place."""
    if lag >= len(users):
        return np.zeros(0, dtype=np.int64)
    same_user = users[:-lag] == users[lag:]
    return np.flatnonzero(same_user & (places[lag:] <= reach[:-lag]))


@dataclass(frozen=True)
class EvaluatedRows:
    """The N rows of a file of valid or test rows. H = W - 1.

    users (N,) int64 codes; histories (N, H) int64 items, 0 left of the first; history_masks (N, H) int64: for evaluation only. No target
    stands here: nothing that judges a history may see it.
    """

    users: np.ndarray
    histories: np.ndarray
    history_masks: np.ndarray


@dataclass(frozen=True)
class DataSet:
    """Interactions and the windows over them.

    train (N, W) int64: row numbers of the table for each train row, -1 left of its first, in the order of the file.
    n_items: the catalogue is 1..n_items. disagreements: cells of train rows and of histories that hold another item than the table.
    """

    interactions: Interactions
    train: np.ndarray
    evaluated: dict[str, EvaluatedRows]
    n_items: int
    disagreements: int

    @property
    def train_items(self) -> np.ndarray:
        """(N, W) int64: the items of the train windows, 0 left of a window's first."""
        return np.where(self.train != NO_ROW, self.interactions.items[self.train], 0)


@dataclass(frozen=True)
class StackedRows:
    """The N rows of all files, one file below the other, those of train first. Padded on the left to one width W.

    users (N,) int64: codes of user_names (U,) str; items, masks (N, W) int64; is_train (N,) bool;
    lengths (N,) int64: items of each; starts (N,) int64: the place of the first one in the user's sequence; order (N,) int64: row
    numbers in the order in which rows count where they disagree.
    """

    users: np.ndarray
    user_names: np.ndarray
    items: np.ndarray
    masks: np.ndarray
    is_train: np.ndarray
    lengths: np.ndarray
    starts: np.ndarray
    order: np.ndarray

    @property
    def width(self) -> int:
        return self.items.shape[1]

    @property
    def n_places(self) -> int:
        """More places than any user has: user * n_places + place is the key of an interaction."""
        return int((self.starts + self.lengths).max()) + 1

    @property
    def is_target(self) -> np.ndarray:
        """(N, W) bool: the last cells of valid and test rows."""
        is_target = np.zeros(self.items.shape, dtype=bool)
        is_target[~self.is_train, -1] = True
        return is_target

    @property
    def is_seen(self) -> np.ndarray:
        """(N, W) bool: cells that hold an item, targets left out."""
        return (self.items != 0) & ~self.is_target

    def keys_of_cells(self) -> np.ndarray:
        """(N, W) int64: the key of the interaction in each cell."""
        first_places = self.starts - (self.width - self.lengths)  # (N,) of a row's first column, padding or not
        return self.users[:, None] * self.n_places + first_places[:, None] + np.arange(self.width)


def build_data_set(train: Rows, evaluated: dict[str, Rows], n_items: int) -> DataSet:
    """The table of all interactions of these files, and their rows as windows over it.

    Where rows disagree about an interaction the train rows count before the histories of the others, the earlier row before the later;
    a target counts only where nothing else holds its interaction. The order of the rows changes nothing.
    """
    files = [train, *evaluated.values()]
    stacked = stack_rows(files)
    keys, cells = choose_cells(stacked)
    first_rows = np.searchsorted(keys, stacked.users * stacked.n_places + stacked.starts)  # (N,) rows of the table
    windows = windows_of_rows(stacked, first_rows)  # (N, W)
    interactions = interactions_of_cells(stacked, keys, cells, first_rows)
    disagrees = stacked.is_seen & (interactions.items[windows] != stacked.items)  # (N, W)
    bounds = np.cumsum([len(rows.users) for rows in files])
    rows_of_files = [slice(end - len(rows.users), end) for end, rows in zip(bounds, files)]
    return DataSet(
        interactions=interactions,
        train=windows[rows_of_files[0]],
        evaluated={file: evaluated_rows(stacked, rows) for file, rows in zip(evaluated, rows_of_files[1:])},
        n_items=n_items,
        disagreements=int(disagrees.sum()),
    )


def stack_rows(files: list[Rows]) -> StackedRows:
    """The rows of all files, train first. Starts are found where one file does not tell them."""
    width = max(rows.items.shape[1] for rows in files)
    items, masks = (np.concatenate([widen(getattr(rows, name), width) for rows in files]) for name in ("items", "masks"))
    user_names, users = np.unique(np.concatenate([rows.users for rows in files]), return_inverse=True)
    times = np.concatenate([rows.times for rows in files])
    is_train = np.arange(len(users)) < len(files[0].users)
    lengths = (items != 0).sum(1)
    order = row_order(users, is_train, times, items)
    if any(rows.starts is None for rows in files):
        starts = find_starts(users, items, lengths, is_train, times, order)
    else:
        starts = np.concatenate([rows.starts for rows in files])
    return StackedRows(users, user_names, items, masks, is_train, lengths, starts, order)


def choose_cells(stacked: StackedRows) -> tuple[np.ndarray, np.ndarray]:
    """Keys (n,) int64 of the interactions, ascending, and the cell (n,) int64 that counts of those that hold one, row * W + column.

    It is the first by `StackedRows.order`; targets come last. Keys: see `StackedRows.n_places`.
    """
    row, column = np.nonzero(stacked.is_seen[stacked.order])
    seen_cells = stacked.order[row] * stacked.width + column
    cells = np.concatenate([seen_cells, np.flatnonzero(stacked.is_target)])  # (C,) in the order in which they count
    keys, first = np.unique(stacked.keys_of_cells().ravel()[cells], return_index=True)  # first: of the cells that share a key
    return keys, cells[first]


def windows_of_rows(stacked: StackedRows, first_rows: np.ndarray) -> np.ndarray:
    """(N, W) row numbers of the table, NO_ROW left of a row's first item, whose row number is in first_rows (N,)."""
    first_columns = stacked.width - stacked.lengths  # (N,) of the first items
    rows = (first_rows - first_columns)[:, None] + np.arange(stacked.width)
    return np.where(stacked.items != 0, rows, NO_ROW)


def interactions_of_cells(stacked: StackedRows, keys: np.ndarray, cells: np.ndarray, first_rows: np.ndarray) -> Interactions:
    """The table of keys, cells (n,): see `choose_cells`. first_rows (N,): the row of the table that each row begins with."""
    users, places = np.divmod(keys, stacked.n_places)
    last_places = stacked.starts + stacked.lengths - 1  # (N,)
    return Interactions(
        users=users,
        places=places,
        items=stacked.items.ravel()[cells],
        reach=furthest_ends(users, first_rows[stacked.is_train], last_places[stacked.is_train]),
        user_names=stacked.user_names,
    )


def evaluated_rows(stacked: StackedRows, of_file: slice) -> EvaluatedRows:
    """The rows of one file of valid or test rows, of all N."""
    return EvaluatedRows(stacked.users[of_file], stacked.items[of_file, :-1], stacked.masks[of_file, :-1])


def widen(cells: np.ndarray, width: int) -> np.ndarray:
    """(N, width) int64: cells (N, V <= width) with zeros to the left."""
    return np.pad(np.asarray(cells, dtype=np.int64), ((0, 0), (width - cells.shape[1], 0)))


def row_order(users: np.ndarray, is_train: np.ndarray, times: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(N,) row numbers by user, train rows first, then by time and by what the rows hold: the same however the rows were shuffled.

    The target of a row that is not a train row has no part in it.
    """
    weights = np.random.default_rng(0).integers(1, 2**62, size=items.shape[1])  # products wrap around, as hashes may
    weights = np.where(np.arange(items.shape[1]) == items.shape[1] - 1, np.where(is_train, weights[-1], 0)[:, None], weights)
    return np.lexsort(((items * weights).sum(1), np.nan_to_num(times), ~is_train, users))


def furthest_ends(users: np.ndarray, first_rows: np.ndarray, last_places: np.ndarray) -> np.ndarray:
    """`reach` (n,) of rows of these users (n,), from the first rows (N,) and the last places (N,) of the train windows."""
    ends = np.full(len(users), -1, dtype=np.int64)
    np.maximum.at(ends, first_rows, last_places)
    step = int(last_places.max(initial=0)) + 2  # above any place, so that what one user reaches is not the next one's
    return np.maximum.accumulate(ends + users * step) - users * step


# ---------------------------------------------------------------- files that do not tell where a row starts


def find_starts(
    users: np.ndarray, items: np.ndarray, lengths: np.ndarray, is_train: np.ndarray, times: np.ndarray, order: np.ndarray
) -> np.ndarray:
    """Starts (N,) of rows by what they share: see `place_windows`. order: `row_order`. Targets of other than train rows are not read."""
    starts = np.zeros(len(users), dtype=np.int64)
    width, times = items.shape[1], np.nan_to_num(times)
    bounds = np.flatnonzero(np.r_[True, users[order][1:] != users[order][:-1], True])
    for first, end in zip(bounds[:-1].tolist(), bounds[1:].tolist()):
        if end - first > 1:
            rows = order[first:end]
            windows = [
                tuple(items[row, width - lengths[row] : width if is_train[row] else width - 1].tolist()) for row in rows.tolist()
            ]
            starts[rows] = place_windows(windows, times[rows].tolist(), lengths[rows].tolist())
    return starts


def place_windows(windows: list[tuple[int, ...]], times: list[float], lengths: list[int]) -> np.ndarray:
    """Starts (M,) of one user's windows.

    Of two windows that overlap, the one that ends later has the later or the same time. Overlaps that hold half of the shorter window
    and more are recognised, shorter ones could be chance; the longest are joined first, each window to the last one before it. Windows
    that no overlap joins stand behind a gap, in the order of time. lengths (M,): places that a window takes, its target included.
    """
    parts = JoinedWindows(len(windows))
    least = -(-min(map(len, windows)) // 2)
    for overlap in range(max(map(len, windows)), max(least, 1) - 1, -1):
        for earlier, later, shift in overlaps_of(windows, times, overlap):
            parts.join(earlier, later, shift)
        if parts.count == 1:
            break
    starts, place = np.zeros(len(windows), dtype=np.int64), 0
    members = sorted(parts.members(), key=lambda part: (min(times[window] for window in part), min(part)))
    for part in members:
        offsets = np.array([parts.offsets[window] for window in part])
        starts[part] = place + offsets - offsets.min()
        place = max(starts[window] + lengths[window] for window in part) + GAP
    return starts


def overlaps_of(windows: list[tuple[int, ...]], times: list[float], overlap: int) -> list[tuple[int, int, int]]:
    """(a, b, shift): window b starts `shift` after window a, and they share `overlap` items, half of the shorter one or more."""
    ends = {}  # what stands at the end of a window, or within it: [(time, window, where in it)]
    for number, window in enumerate(windows):
        if len(window) >= overlap:
            ends.setdefault(window[len(window) - overlap :], []).append((times[number], number, len(window) - overlap))
    for places in ends.values():
        places.sort()
    found = []
    shorter = {len(window) for window in windows} - {max(map(len, windows))}
    for number, window in enumerate(windows):
        if len(window) < overlap:
            continue
        others = ends.get(window[:overlap], [])
        for place in range(bisect_right(others, (times[number], len(windows), 0)) - 1, -1, -1):  # the last one before it first
            _, other, shift = others[place]
            if other != number and 2 * overlap >= min(len(window), len(windows[other])):
                found.append((other, number, shift))
                break
        if overlap in shorter and len(window) > overlap + 1:  # a short window may lie within this one, at neither end
            for shift in range(1, len(window) - overlap):
                for time, other, _ in ends.get(window[shift : shift + overlap], []):
                    if len(windows[other]) == overlap and time <= times[number]:
                        found.append((number, other, shift))
    return found


class JoinedWindows:
    """Windows joined to parts of one sequence: `offsets` are starts within the part that a window belongs to."""

    def __init__(self, count: int):
        self.count = count
        self.offsets = [0] * count
        self.part_of = list(range(count))
        self.windows_of = {number: [number] for number in range(count)}

    def join(self, earlier: int, later: int, shift: int) -> None:
        """Let `later` start `shift` after `earlier`, and all that is joined to either with it; nothing where they are joined already."""
        kept, moved = self.part_of[earlier], self.part_of[later]
        if kept == moved:
            return
        distance = self.offsets[earlier] + shift - self.offsets[later]  # of the later one's part
        if len(self.windows_of[kept]) < len(self.windows_of[moved]):
            kept, moved, distance = moved, kept, -distance
        for window in self.windows_of[moved]:
            self.part_of[window] = kept
            self.offsets[window] += distance
        self.windows_of[kept] += self.windows_of.pop(moved)
        self.count -= 1

    def members(self) -> list[list[int]]:
        """The windows of each part."""
        return list(self.windows_of.values())


# ---------------------------------------------------------------- counts


def users_having_items(users: np.ndarray, items: np.ndarray, n_items: int) -> np.ndarray:
    """(n_items + 1,) how many users have each item, of interactions (n,)."""
    pairs = np.unique(users * (n_items + 1) + items)  # (user, item) as one number
    return np.bincount(pairs % (n_items + 1), minlength=n_items + 1)
