"""A log's interactions and keys as the files of a data set: interactions.csv, users.csv, items.csv."""

import re
from decimal import Decimal
from pathlib import Path

import numpy as np

from denoise_code.common.files import naming
from denoise_code.data_set.log.log import Log
from denoise_code.data_set.log.sequences import places_of

CHUNK_ROWS = 100_000  # rows turned into text at once: bounds the memory of writing
NEEDS_QUOTES = re.compile(r'[,"\r\n]|(^|\x00)\s|\s(\x00|$)')


def written_times(times: np.ndarray, decimals: int) -> np.ndarray | list[str]:
    return times if not decimals else [f"{Decimal(moment).scaleb(-decimals):f}" for moment in times.tolist()]


def write_interactions(path: Path, log: Log, noisy: np.ndarray, mask: np.ndarray) -> None:
    """One line an interaction, by user and place."""
    import pyarrow as pa
    from pyarrow.csv import CSVWriter, WriteOptions

    places = places_of(log.users)
    names = ["user_id", "place", "item_id", "timestamp", "mask", "true_item_id", "log_row"]
    with naming(path), path.open("wb") as file:
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


def write_keys(folder: Path, log: Log) -> None:
    """users.csv and items.csv: our numbers and the log's own keys."""
    users = [(str(user), key) for user, key in enumerate(log.user_keys) if user]
    items = [(str(item), key, title or "") for item, (key, title) in enumerate(zip(log.item_keys, log.titles)) if item]
    for name, header, rows in (("users.csv", "user_id,key", users), ("items.csv", "item_id,key,title", items)):
        lines = [header, *(",".join(map(cell, row)) for row in rows)]
        with naming(folder / name):
            (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")


def csv_lines(columns: list[list[str]]) -> str:
    """Rows of a CSV file from the cells of its columns, each row with its line end."""
    texts = [column if not NEEDS_QUOTES.search("\x00".join(column)) else list(map(cell, column)) for column in columns]
    return "".join([",".join(row) + "\n" for row in zip(*texts)])


def cell(text: str) -> str:
    """A cell of a CSV file. (Python's csv leaves a carriage return without quotation marks, and nothing reads it back.)"""
    if any(character in text for character in ',"\r\n') or text != text.strip():
        return '"' + text.replace('"', '""') + '"'
    return text
