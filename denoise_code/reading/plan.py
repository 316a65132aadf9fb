"""What is read, and which rows take what from it: each row by itself, or each interaction of a user once.

Knows nothing of tokens and models: a text is a run of items here.

Windows overlap, so that one interaction stands in up to eleven rows. An interaction is noise or it is not: read once, with
the most history before it, it has one probability and one replacement in all rows that hold it.

What is known of a valid or test row's target must not reach its history. So each interaction has a limit, the first place
that its probability and replacement may not know: the earliest target among the valid and test rows whose history holds
it, and for what train rows hold the end of the user's train rows, so that nothing of later periods reaches those either.
A reading ends at or before the limits of all that it scores, or it is causal: what is behind a title in the text cannot
reach the likelihood of the title, and for a replacement the text is cut at the limit.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from denoise_code.common.errors import InputError
from denoise_code.data_set.windows import Window


class Row(NamedTuple):
    """A row of a split: its scored items are `length` interactions from place `start` on."""

    split: str
    row: int
    start: int
    length: int


class Work(NamedTuple):
    """Interactions that no other work shares, in the order of time.

    items, limits, reading (n,): of each interaction the item, the first place it may not know, and the number of the reading
    that scores it. readings: (start, stop) in places. window: the items of the longest row.
    """

    items: tuple[int, ...]
    limits: list[int]
    reading: list[int]
    readings: list[tuple[int, int]]
    rows: list[Row]
    window: int

    def texts(self) -> list["Text"]:
        first = {number: place for place, number in reversed([*enumerate(self.reading)])}
        held = min((row.start for row in self.rows), default=0)  # what stands before it is read, not scored
        return [Text(self, start, stop, max(first[number], held) - start) for number, (start, stop) in enumerate(self.readings)]

    def near(self, place: int) -> frozenset[int]:
        """Items of the rows that may hold this interaction, as far as it may know them: none of them is its replacement."""
        return frozenset(self.items[max(0, place + 1 - self.window) : min(place + self.window, self.limits[place])])


class Text(NamedTuple):
    """A reading of a work: places start to stop of it, scored from item number `first` of them on."""

    work: Work
    start: int
    stop: int
    first: int

    @property
    def items(self) -> tuple[int, ...]:
        return self.work.items[self.start : self.stop]

    @property
    def size(self) -> int:
        """Windows' worth of items."""
        return -(-(self.stop - self.start) // self.work.window)


def each_row(split: str, windows: list[Window], before: list[tuple[int, ...]] | None = None) -> list[Work]:
    """Each row read by itself, or after what stands `before` it in its user's sequence."""
    works = []
    for window, history in zip(windows, before or [()] * len(windows)):
        n, k = len(history) + len(window.items), len(window.items)
        works.append(Work((*history, *window.items), [n] * n, [0] * n, [(0, n)], [Row(split, window.row, n - k, k)], k))
    return works


def each_interaction(splits: dict, overlap: float, span: int, causal: bool) -> list[Work]:
    """Works of {split: (table, windows)}: a work is a user's interactions that follow each other without a gap.

    Each is read with at least `overlap` of a window before it, as far as there is that much. A causal reading spans `span`
    windows, any other is one window long.
    """
    rows = place_rows(splits)
    window = int(rows["length"].max())
    length = span * window if causal else window
    least = min(int(np.ceil(overlap * window)), length - 1)  # each reading scores one interaction or more
    works = []
    columns = [rows[name].tolist() for name in ("user", "split", "row", "start", "length")]
    items = {name: [window.items for window in windows] for name, (_, windows) in splits.items()}
    chain, end, user = [], 0, None
    for row in [*zip(*columns), (None,) * 5]:
        if row[0] != user or row[3] > end:  # another user, or a gap
            if chain:
                works.append(chain_work(chain, items, length, least, causal, window))
            chain, end, user = [], 0, row[0]
        if row[0] is not None:
            chain.append(row)
            end = max(end, row[3] + row[4])
    return works


def chain_work(chain: list[tuple], items: dict, length: int, least: int, causal: bool, window: int) -> Work:
    """The work of (user, split, row, start, length) that overlap, by their starts."""
    first, known, rows = chain[0][3], {}, []
    for user, split, row, start, count in chain:
        for place, item in enumerate(items[split][row], start - first):
            if known.setdefault(place, item) != item:
                raise InputError(f"{split}.csv row {row + 1}: start {start} of user {user} disagrees with the rows before it")
        rows.append(Row(split, row, start - first, count))
    n = len(known)
    train = max((row.start + row.length for row in rows if row.split.startswith("train")), default=0)
    limits = np.where(np.arange(n) < train, train, n)
    for row in sorted((row for row in rows if not row.split.startswith("train")), key=lambda row: -(row.start + row.length)):
        held = slice(row.start, row.start + row.length)
        limits[held] = np.minimum(limits[held], row.start + row.length)
    limits = np.minimum.accumulate(limits[::-1])[::-1].tolist()  # never later than that of a later interaction
    readings, reading, place = [], [], 0
    while place < n:
        stop = min(max(0, place - least) + length, n if causal else limits[place])
        start = place - least if causal else stop - length  # the most that its length allows, where that costs no more
        readings.append((max(0, start), stop))
        reading += [len(readings) - 1] * (stop - place)
        place = stop
    return Work(tuple(known[place] for place in range(n)), limits, reading, readings, rows, window)


def place_rows(splits: dict) -> pd.DataFrame:
    """user, split, row, start and (scored) length of all rows, by user and start; starts are found where none are given."""
    parts = []
    for name, (table, windows) in splits.items():
        lengths = [len(window.items) for window in windows]
        part = pd.DataFrame({"user": table["user_id"].to_numpy(), "split": name, "row": np.arange(len(table)), "length": lengths})
        part["time"] = pd.to_numeric(table["timestamp"], errors="coerce").to_numpy()
        part["start"] = read_starts(name, table) if "start" in table else -1
        parts.append(part)
    rows = pd.concat(parts, ignore_index=True)
    if (rows["start"] < 0).any():
        rows = rows.sort_values(["user", "time"], kind="stable", ignore_index=True)
        rows["start"] = find_starts(rows, {name: windows for name, (_, windows) in splits.items()})
    return rows.sort_values(["user", "start", "length"], kind="stable", ignore_index=True)


def read_starts(name: str, table: pd.DataFrame) -> np.ndarray:
    starts = pd.to_numeric(table["start"], errors="coerce")
    bad = np.flatnonzero((starts.isna() | (starts < 0) | (starts % 1 != 0)).to_numpy())
    if len(bad):
        raise InputError(
            f"{name}.csv row {bad[0] + 1}: start is {table['start'].iat[bad[0]]!r}, expected a whole number from 0 on"
        )
    return starts.to_numpy(dtype=np.int64)


def find_starts(rows: pd.DataFrame, windows: dict) -> list[int]:
    """Starts (N,) of rows by user and time: where a row goes on as the one before it ends, for half of it or more.

    A row that continues nothing stands behind a gap after all of them.
    """
    found = [windows[split][row].items for split, row in zip(rows["split"], rows["row"])]
    users, starts, end = rows["user"].tolist(), [0] * len(rows), 0
    for here, new in enumerate(found):
        if here and users[here] == users[here - 1]:
            old = found[here - 1]
            shifts = range(len(old) - (min(len(old), len(new)) + 1) // 2 + 1)
            shift = next((s for s in shifts if old[s : s + len(new)] == new[: len(old) - s]), None)
            starts[here] = end + 1 if shift is None else starts[here - 1] + shift
        else:
            end = 0
        end = max(end, starts[here] + len(new))
    return starts


def histories(planted: pd.DataFrame, train: pd.DataFrame, overlap: float, span: int) -> list[tuple[int, ...]]:
    """What stands before the first interaction of each planted row where its train row is read by interaction, causally."""
    kept = np.flatnonzero(train["user_id"].isin(planted["user_id"]))
    windows = [Window(row, tuple(train["item_ids"].iat[row])) for row in kept]
    works = each_interaction({"train": (train.iloc[kept], windows)}, overlap, span, causal=True)
    rows = ((work, row) for work in works for row in work.rows)
    before = {kept[row.row]: work.items[work.readings[work.reading[row.start]][0] : row.start] for work, row in rows}
    return [before[row] for row in planted["train_row"]]
