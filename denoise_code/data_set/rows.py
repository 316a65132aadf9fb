"""Rows of a split as text on disk: list cells parsed, checked row by row; which items of a row are scored."""

import ast
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from denoise_code.common.errors import InputError, one_line
from denoise_code.data_set.planting import PLANTED

WINDOW_COLUMNS = ("user_id", "item_ids", "mask")
NAME_OF_KIND = {int: "whole numbers", float: "numbers", str: "texts"}  # for messages


def scores_all_items(split: str) -> bool:
    """Whether all items of a row are scored, by the name of its file: so of train rows, and of train rows with a planted item.

    Of any other row only the history is: its last item is the target, which is given and never edited.
    """
    return split.startswith(("train", PLANTED))


def read_as_text(path: Path, columns: set[str] | None = None, remedy: str = "") -> pd.DataFrame:
    """A CSV file, its cells as they are written. columns: those that are read where there are such; None: all.

    InputError, with what to do, where it cannot be read.
    """
    try:
        is_read = columns.__contains__ if columns else None  # a list of names would refuse those that are absent
        return pd.read_csv(path, dtype=str, keep_default_na=False, usecols=is_read)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file{remedy}") from None
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {one_line(error)}{remedy}") from None


def check_columns(path: Path, table: pd.DataFrame, needed: Iterable[str], remedy: str = "") -> None:
    """InputError, with what to do, where a table lacks a column."""
    for column in needed:
        if column not in table.columns:
            raise InputError(f"{path}: no column {column!r}, found {', '.join(table.columns)}{remedy}")


def read_windows(
    path: Path,
    n_items: int | None = None,
    columns: set[str] | None = None,
    needed: Iterable[str] = (*WINDOW_COLUMNS, "timestamp"),
) -> pd.DataFrame:
    """Rows of a split with `item_ids` and `mask` as lists of ints; all other columns as they are written (str).

    n_items: the largest item id that the catalogue has; None: not checked. columns: those that are read; None: all. needed: those
    that must be there. Raises InputError naming the row (1 is the first below the header) that is empty, ragged or has an unknown id.
    """
    table = read_as_text(path, columns)
    check_columns(path, table, needed)
    if table.empty:
        raise InputError(f"{path}: no rows below the header")
    for column in ("item_ids", "mask"):
        table[column] = parse_lists(path, table, column)
    check_windows(path, table, n_items)
    return table


def check_windows(path: Path, table: pd.DataFrame, n_items: int | None) -> None:
    """Refuse rows of one item, rows whose mask has another length, and ids that the catalogue does not have."""
    largest, expected = (np.inf, "from 1 on") if n_items is None else (n_items, f"1..{n_items}")
    for row, (items, mask) in enumerate(zip(table["item_ids"], table["mask"]), 1):
        if len(items) < 2 or len(items) != len(mask):
            raise InputError(f"{path} row {row}: {len(items)} items and {len(mask)} mask entries, expected 2 or more of each")
        if min(items) < 1 or max(items) > largest:
            raise InputError(f"{path} row {row}: item ids {min(items)}..{max(items)}, the catalogue has {expected}")


def parse_lists(path: Path, table: pd.DataFrame, column: str, kinds: tuple[type, ...] = (int,)) -> list[list]:
    """The lists of a column of numbers, one a row. All cells at once where they are JSON, else one by one to name the row that is not."""
    cells = table[column].tolist()
    try:
        lists = json.loads("[" + ",".join(cells) + "]")
    except (ValueError, RecursionError):
        lists = []
    # Cells that are broken may join into as many lists ("[1" and "2],[3]"): not if each starts as one and none holds another.
    whole = len(lists) == len(cells) and all(cell[:1] == "[" and isinstance(values, list) for cell, values in zip(cells, lists))
    if whole and {type(value) for values in lists for value in values} <= set(kinds):
        return lists
    return [parse_list(path, row, column, text, kinds) for row, text in enumerate(cells, 1)]


def parse_list(path: Path, row: int, column: str, text: str, kinds: tuple[type, ...] = (int,)) -> list:
    """A cell that holds a list: JSON, or the Python literal of the release's title columns."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        try:
            values = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            values = None
    if not isinstance(values, list) or not all(type(value) in kinds for value in values):
        raise InputError(f"{path} row {row}: {column} is {text[:60]!r}, expected a list of {NAME_OF_KIND[kinds[-1]]}")
    return values


def whole_numbers(file: Path | str, table: pd.DataFrame, column: str, remedy: str = "") -> np.ndarray:
    """A column (N,) as int64. InputError, with the file and what to do, for what is no whole number from 0 on."""
    numbers = pd.to_numeric(table[column], errors="coerce")
    bad = np.flatnonzero((numbers.isna() | (numbers < 0) | (numbers % 1 != 0)).to_numpy())
    if len(bad):
        text = table[column].iat[bad[0]]
        raise InputError(f"{file} row {bad[0] + 1}: {column} is {text!r}, expected a whole number from 0 on{remedy}")
    return numbers.to_numpy(dtype=np.int64)
