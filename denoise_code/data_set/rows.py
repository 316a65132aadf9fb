"""Rows of a split as text on disk: list cells parsed, checked row by row."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from denoise_code.common.errors import InputError, one_line


def read_as_text(path: Path, is_read: Callable[[str], bool] | None = None, remedy: str = "") -> pd.DataFrame:
    """A CSV file, its cells as they are written. is_read: which columns, by name; None: all. InputError, with what to do, where it cannot
    be read."""
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, usecols=is_read)
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {one_line(error)}{remedy}") from None


def read_windows(path: Path, n_items: int | None = None) -> pd.DataFrame:
    """Rows of a split with `item_ids` and `mask` as lists of ints; all other columns as they are written (str).

    n_items: the largest item id that the catalogue has; None: not checked. Raises InputError naming the row (1 is the first
    below the header) that is empty, ragged or has an unknown id.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    table = read_as_text(path)
    missing = {"user_id", "item_ids", "mask", "timestamp"} - set(table.columns)
    if missing:
        raise InputError(f"{path}: no column {sorted(missing)[0]!r}, found {', '.join(table.columns)}")
    if table.empty:
        raise InputError(f"{path}: no rows below the header")
    for column in ("item_ids", "mask"):
        table[column] = [parse_ints(path, row, column, text) for row, text in enumerate(table[column], 1)]
    for row, (items, mask) in enumerate(zip(table["item_ids"], table["mask"]), 1):
        if len(items) < 2 or len(items) != len(mask):
            raise InputError(f"{path} row {row}: {len(items)} items and {len(mask)} mask entries, expected 2 or more of each")
        if min(items) < 1 or (n_items is not None and max(items) > n_items):
            raise InputError(f"{path} row {row}: item ids {min(items)}..{max(items)}, the catalogue has 1..{n_items}")
    return table


def parse_ints(path: Path, row: int, column: str, text: str) -> list[int]:
    """A cell that holds a JSON list of whole numbers."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise InputError(f"{path} row {row}: {column} is {text[:60]!r}, expected a list of whole numbers")
    return values


def whole_numbers(file: Path | str, table: pd.DataFrame, column: str, remedy: str = "") -> np.ndarray:
    """A column (N,) as int64. InputError, with the file and what to do, for what is no whole number from 0 on."""
    numbers = pd.to_numeric(table[column], errors="coerce")
    bad = np.flatnonzero((numbers.isna() | (numbers < 0) | (numbers % 1 != 0)).to_numpy())
    if len(bad):
        text = table[column].iat[bad[0]]
        raise InputError(f"{file} row {bad[0] + 1}: {column} is {text!r}, expected a whole number from 0 on{remedy}")
    return numbers.to_numpy(dtype=np.int64)
