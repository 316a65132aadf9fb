"""The windows of a split as stage 2 reads them: the scored items of each row."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from denoise_code.common.errors import InputError
from denoise_code.data_set.planted_rows import planted_rows
from denoise_code.data_set.planting import PLANTED
from denoise_code.data_set.rows import read_windows, scores_all_items


class Window(NamedTuple):
    """A row as the model sees it: the scored items, oldest first. The target of a valid or test row is not among them."""

    row: int  # number of the row in the table that is written, from 0
    items: tuple[int, ...]


def read_scored_windows(
    folder: Path, split: str, catalogue: list[str], limit: int | None, planted: int, adapter_run: dict
) -> tuple[pd.DataFrame, list[Window]]:
    """(table, windows) of a split; the table's rows are those that will be written, in the order of the input.

    limit: so many rows, evenly spaced, of any file but planted.csv. planted: rows of planted.csv. adapter_run: run.json of
    the adapter.
    """
    if split == PLANTED:
        table = planted_rows(folder, catalogue, planted, adapter_run)
    else:
        table = read_windows(folder / f"{split}.csv", len(catalogue) - 1)
    if limit is not None and limit < len(table) and split != PLANTED:
        table = table.iloc[evenly_spaced(len(table), limit)].reset_index(drop=True)
    n_targets = 0 if scores_all_items(split) else 1  # at the end of a row
    windows = [Window(row, tuple(items[: len(items) - n_targets])) for row, items in enumerate(table["item_ids"])]
    return table, windows


def keep_users(splits: dict, count: int) -> dict:
    """{split: (table, windows)} with the rows of so many users only, evenly spaced among those there are."""
    users = list(dict.fromkeys(user for table, _ in splits.values() for user in table["user_id"]))
    selected_users = {users[position] for position in evenly_spaced(len(users), count)}
    selected = {}
    for split, (table, windows) in splits.items():
        rows = np.flatnonzero(table["user_id"].isin(selected_users))  # (n,) row numbers before the selection
        if not len(rows):
            raise InputError(f"--users {count}: none of them has a row in {split}.csv")
        renumbered = [windows[row]._replace(row=number) for number, row in enumerate(rows)]
        selected[split] = table.iloc[rows].reset_index(drop=True), renumbered
    return selected


def evenly_spaced(n: int, count: int) -> np.ndarray:
    """(count,) int64: positions among n, the first and the last included."""
    return np.linspace(0, n - 1, count).astype(int)
