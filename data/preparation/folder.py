"""The data set folder: rows, interactions, keys and titles as data/README.md describes them."""

import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd

from denoise_code.common.files import naming
from denoise_code.data_set.planting import INJECTED
from preparation.log import Log

TRAIN_SAMPLES = (1000, 5000)  # the samples that the release ships
EVAL_SAMPLE = 5000
CHUNK_ROWS = 100_000  # rows turned into text at once: bounds the memory of writing


def json_list(texts: np.ndarray, lengths: np.ndarray) -> list[str]:
    """Join consecutive runs of already encoded JSON values into one JSON list a row."""
    ends = np.cumsum(lengths)
    texts = texts.tolist()
    return ["[" + ", ".join(texts[end - length : end]) + "]" for end, length in zip(ends.tolist(), lengths.tolist())]


def first_of_each_user(users: np.ndarray) -> np.ndarray:
    """The row (U,) of each user's first interaction, `users` (N,) being sorted."""
    return np.r_[0, np.flatnonzero(users[1:] != users[:-1]) + 1]


def places_of(users: np.ndarray) -> np.ndarray:
    """The place (N,) of each interaction in its user's sequence, from 0, `users` (N,) being sorted."""
    firsts = first_of_each_user(users)
    lengths = np.diff(np.r_[firsts, len(users)])
    return np.arange(len(users)) - np.repeat(firsts, lengths)


def write_rows(path: Path, log: Log, noisy, mask, first, last, clean_target: bool) -> None:
    """Write the windows [first, last] as CSV rows; see data/README.md for the columns."""
    places = places_of(log.users)
    encoded = np.array([json.dumps(title, ensure_ascii=False) for title in log.titles], dtype=object)
    digits = np.array([str(number) for number in range(max(len(log.titles), INJECTED + 1))], dtype=object)
    for start in range(0, max(len(first), 1), CHUNK_ROWS):
        heads, tails = first[start : start + CHUNK_ROWS], last[start : start + CHUNK_ROWS]
        lengths = tails - heads + 1
        ends = np.cumsum(lengths)
        rows = np.arange(lengths.sum()) + np.repeat(heads - (ends - lengths), lengths)  # flat row numbers of the log
        items, masked = noisy[rows], mask[rows].astype(np.int64)
        if clean_target and len(ends):
            items[ends - 1], masked[ends - 1] = log.items[tails], 0
        injected = masked == INJECTED
        injected_per_row = np.add.reduceat(injected, ends - lengths, dtype=np.int64) if len(ends) else lengths
        table = pd.DataFrame(
            {
                "user_id": log.users[tails],
                "item_ids": json_list(digits[items], lengths),
                "mask": json_list(digits[masked], lengths),
                "item_titles": json_list(encoded[items], lengths),
                "replaced_item_titles": json_list(encoded[log.items[rows[injected]]], injected_per_row),
                "timestamp": written_times(log.times[tails], log.decimals),
                "start": places[heads],
                "true_item_ids": json_list(digits[log.items[rows]], lengths),
            }
        )
        with naming(path):
            table.to_csv(path, mode="a", header=start == 0, index=False)


def written_times(times: np.ndarray, decimals: int) -> np.ndarray | list[str]:
    return times if not decimals else [f"{Decimal(moment).scaleb(-decimals):f}" for moment in times.tolist()]


def write_titles(folder: Path, titles: list[str]) -> None:
    """id2name4Rec.json names every item; in id2name.json the first id of a repeated title wins."""
    every = {str(item): title for item, title in enumerate(titles) if item}
    first_of = {title: item for item, title in reversed(every.items())}
    distinct = {item: title for item, title in every.items() if first_of[title] == item}
    for name, content in (("id2name4Rec.json", every), ("id2name.json", distinct)):
        with naming(folder / name):
            (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


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
    items = [(str(item), key, title) for item, (key, title) in enumerate(zip(log.item_keys, log.titles)) if item]
    for name, header, rows in (("users.csv", "user_id,key", users), ("items.csv", "item_id,key,title", items)):
        lines = [header, *(",".join(map(cell, row)) for row in rows)]
        with naming(folder / name):
            (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")


def cell(text: str) -> str:
    """A cell of a CSV file. (Python's csv leaves a carriage return without quotation marks, and nothing reads it back.)"""
    if any(character in text for character in ',"\r\n') or text != text.strip():
        return '"' + text.replace('"', '""') + '"'
    return text


def write_data_set(folder: Path, log: Log, noisy, mask, bounds, splits: dict, seed: int) -> None:
    """Write all files of the data set into `folder`, but for run.json."""
    folder.mkdir(parents=True)
    first, last = bounds
    write_titles(folder, log.titles)
    for number, (split, rows) in enumerate(splits.items()):
        samples = {f"{split}_{size}": size for size in (TRAIN_SAMPLES if split == "train" else (EVAL_SAMPLE,))}
        for name, size in {split: len(rows), **samples}.items():
            chosen = rows
            if size < len(rows):
                rng = np.random.default_rng([seed, 2, number, size])
                chosen = rows[np.sort(rng.choice(len(rows), size=size, replace=False))]
            write_rows(folder / f"{name}.csv", log, noisy, mask, first[chosen], last[chosen], clean_target=split != "train")
    write_interactions(folder / "interactions.csv", log, noisy, mask)
    write_keys(folder, log)
