"""The windows of a split as stage 2 reads them: the scored items of each row."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from denoise_code.common.errors import InputError
from denoise_code.data_set.adapter_record import AdapterRecord
from denoise_code.data_set.planted_rows import planted_rows
from denoise_code.data_set.planting import PLANTED
from denoise_code.data_set.rows import read_windows, scores_all_items


class Window(NamedTuple):
    """A row as the model sees it: the scored items, oldest first. The target of a valid or test row is not among them."""

    row: int  # number of the row in the table that is written, from 0
    items: tuple[int, ...]


@dataclass(frozen=True)
class ScoredSplit:
    """The N rows of a split that stage 2 reads and writes, in the order of the input.

    table (N rows): as `read_windows` or `planted_rows` gives it. windows (N,): the scored items of each row, in its order.
    """

    table: pd.DataFrame
    windows: list[Window]

    def select(self, rows: np.ndarray) -> "ScoredSplit":
        """The rows with these numbers (n,) alone, numbered anew."""
        windows = [self.windows[row]._replace(row=number) for number, row in enumerate(rows)]
        return ScoredSplit(self.table.iloc[rows].reset_index(drop=True), windows)


def read_scored_windows(
    folder: Path, split: str, catalogue: list[str], limit: int | None, planted: int, adapter_record: AdapterRecord
) -> ScoredSplit:
    """The rows of a split that will be written.

    limit: so many rows, evenly spaced, of any file but planted.csv. planted: rows of planted.csv, chosen
    among those that the adapter did not see, as its record says.
    """
    if split == PLANTED:
        table = planted_rows(folder, catalogue, planted, adapter_record)
    else:
        table = read_windows(folder / f"{split}.csv", len(catalogue) - 1)
    if limit is not None and limit < len(table) and split != PLANTED:
        table = table.iloc[evenly_spaced(len(table), limit)].reset_index(drop=True)
    n_targets = 0 if scores_all_items(split) else 1  # at the end of a row
    windows = [Window(row, tuple(items[: len(items) - n_targets])) for row, items in enumerate(table["item_ids"])]
    return ScoredSplit(table, windows)


def keep_users(splits: dict[str, ScoredSplit], count: int) -> dict[str, ScoredSplit]:
    """The rows of so many users only, evenly spaced among those there are. InputError where a split has none of theirs."""
    users = list(dict.fromkeys(user for scored in splits.values() for user in scored.table["user_id"]))
    selected_users = {users[position] for position in evenly_spaced(len(users), count)}
    selected = {}
    for split, scored in splits.items():
        rows = np.flatnonzero(scored.table["user_id"].isin(selected_users))  # (n,) row numbers before the selection
        if not len(rows):
            raise InputError(f"--users {count}: none of them has a row in {split}.csv")
        selected[split] = scored.select(rows)
    return selected


def evenly_spaced(n: int, count: int) -> np.ndarray:
    """(count,) int64: positions among n, the first and the last included."""
    return np.linspace(0, n - 1, count).astype(int)
