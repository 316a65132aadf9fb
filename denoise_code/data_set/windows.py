"""The windows of a split as stage 2 reads them: the scored items of each row."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from denoise_code.common.errors import InputError
from denoise_code.data_set.planted_rows import planted_rows
from denoise_code.data_set.planting import PLANTED
from denoise_code.data_set.rows import read_windows


class Window(NamedTuple):
    """A row as the model sees it: the scored items, oldest first. The target of a valid or test row is not among them."""

    row: int
    items: tuple[int, ...]


def read_scored_windows(folder: Path, split: str, catalogue: list[str], limit: int | None, planted: int, adapter_run: dict):
    """(table, windows) of a split; the table's rows are those that will be written, in the order of the input.

    `--limit` keeps that many rows, evenly spaced.
    """
    if split == PLANTED:
        table = planted_rows(folder, catalogue, planted, adapter_run)
    else:
        table = read_windows(folder / f"{split}.csv", len(catalogue) - 1)
    if limit is not None and limit < len(table) and split != PLANTED:
        table = table.iloc[np.linspace(0, len(table) - 1, limit).astype(int)].reset_index(drop=True)
    hidden = 0 if split.startswith("train") or split == PLANTED else 1
    return table, [Window(row, tuple(items[: len(items) - hidden])) for row, items in enumerate(table["item_ids"])]


def keep_users(splits: dict, count: int) -> dict:
    """{split: (table, windows)} with the rows of so many users only, evenly spaced among those there are."""
    users = list(dict.fromkeys(user for table, _ in splits.values() for user in table["user_id"]))
    kept = {users[place] for place in np.linspace(0, len(users) - 1, count).astype(int)}
    result = {}
    for split, (table, windows) in splits.items():
        rows = np.flatnonzero(table["user_id"].isin(kept))
        if not len(rows):
            raise InputError(f"--users {count}: none of them has a row in {split}.csv")
        result[split] = table.iloc[rows].reset_index(drop=True), [windows[row]._replace(row=n) for n, row in enumerate(rows)]
    return result
