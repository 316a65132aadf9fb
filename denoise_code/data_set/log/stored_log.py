"""A log's interactions and keys as the files of a data set: interactions.csv, users.csv, items.csv. Written, and read again."""

import re
from decimal import Decimal
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from denoise_code.common.delimited import Dialect
from denoise_code.common.errors import InputError
from denoise_code.common.records import open_table
from denoise_code.data_set.log.log import Log
from denoise_code.data_set.log.sequences import places_of
from denoise_code.data_set.log.times import Times

CHUNK_ROWS = 100_000  # rows turned into text at once: bounds the memory of writing
NEEDS_QUOTES = re.compile(r'["\r\n]|(^|\x00)\s|\s(\x00|$)')  # and what holds the separator


def written_times(times: np.ndarray, decimals: int) -> np.ndarray | list[str]:
    return times if not decimals else [f"{Decimal(moment).scaleb(-decimals):f}" for moment in times.tolist()]


def write_interactions(path: Path, log: Log, noisy: np.ndarray, mask: np.ndarray) -> None:
    """One line an interaction, by user and place."""
    import pyarrow as pa
    from pyarrow.csv import CSVWriter, WriteOptions

    places = places_of(log.users)
    names = ["user_id", "place", "item_id", "timestamp", "mask", "true_item_id", "log_row"]
    with path.open("wb") as file:
        file.write((",".join(names) + "\n").encode())
        options = WriteOptions(include_header=False, quoting_style="none")
        for start in range(0, len(log.users), CHUNK_ROWS):
            some = slice(start, start + CHUNK_ROWS)
            times = written_times(log.times[some], log.decimals)
            columns = [
                log.users[some],
                places[some],
                noisy[some],
                times,
                mask[some].astype(np.int8),
                log.items[some],
                log.rows[some],
            ]
            batch = pa.table([pa.array(column) for column in columns], names)
            with CSVWriter(file, batch.schema, write_options=options) as writer:
                writer.write_table(batch)


def write_keys(users_path: Path, items_path: Path, log: Log) -> None:
    """users.csv and items.csv: our numbers and the log's own keys."""
    users = [(str(user), key) for user, key in enumerate(log.user_keys) if user]
    items = [(str(item), key, title or "") for item, (key, title) in enumerate(zip(log.item_keys, log.titles)) if item]
    for path, header, rows in ((users_path, "user_id,key", users), (items_path, "item_id,key,title", items)):
        lines = [header, *(",".join(map(cell, row)) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")


def csv_lines(columns: list[list[str]], separator: str = ",", quotes: bool = True) -> str:
    """Rows of a CSV file from the cells of its columns, each row with its line end. Without quotes all characters are text."""
    if quotes:
        columns = [
            list(map(partial(cell, separator=separator), column)) if needs_quotes(column, separator) else column
            for column in columns
        ]
    return "".join([separator.join(row) + "\n" for row in zip(*columns)])


def needs_quotes(column: list[str], separator: str) -> bool:
    """Whether some cell of a column may."""
    if len(separator) > 1:  # a cell that ends with a part of it would join it
        return True
    joined = "\x00".join(column)
    return separator in joined or NEEDS_QUOTES.search(joined) is not None


def cell(text: str, separator: str = ",") -> str:
    """A cell of a CSV file. (Python's csv leaves a carriage return without quotation marks, and nothing reads it back.)"""
    joins_separator = len(separator) > 1 and text != text.strip(separator)  # strip takes its characters
    if separator in text or joins_separator or any(character in text for character in '"\r\n') or text != text.strip():
        return '"' + text.replace('"', '""') + '"'
    return text


def read_stored_log(folder: Path) -> Log:
    """The log of a folder as `number_and_sort` gave it; an item without a title has the title ""."""
    path = folder / "interactions.csv"
    table, times = open_table(path, Dialect()), Times()
    columns = [[], [], []]
    for users, items, moments, rows in table.chunks(["user_id", "item_id", "timestamp", "log_row"]):
        for column, texts in zip(columns, (users, items, rows)):
            column.append(np.array(texts, dtype=np.int64))
        times.add(moments, table.where)
    users, items, rows = (np.concatenate(column) for column in columns)
    keys = pd.read_csv(folder / "users.csv", dtype=str, keep_default_na=False)
    catalogue = pd.read_csv(folder / "items.csv", dtype=str, keep_default_na=False)
    if users.max() > len(keys) or items.max() > len(catalogue):
        raise InputError(f"{path}: users 1..{users.max()} and items 1..{items.max()}, users.csv and items.csv have fewer")
    moments, decimals = times.result()
    return Log(
        users=users,
        items=items,
        times=moments,
        titles=["", *catalogue["title"]],
        decimals=decimals,
        rows=rows,
        user_keys=["", *keys["key"]],
        item_keys=["", *catalogue["key"]],
    )
