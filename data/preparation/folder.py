"""The data set folder: rows, interactions, keys and titles as data/README.md describes them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from denoise_code.common.files import naming
from denoise_code.data_set.log.log import Log
from denoise_code.data_set.log.sequences import places_of
from denoise_code.data_set.log.stored_log import CHUNK_ROWS, write_interactions, write_keys, written_times
from denoise_code.data_set.planting import INJECTED

TRAIN_SAMPLES = (1000, 5000)  # the samples that the release ships
EVAL_SAMPLE = 5000


def json_list(texts: np.ndarray, lengths: np.ndarray) -> list[str]:
    """Join consecutive runs of already encoded JSON values into one JSON list a row."""
    ends = np.cumsum(lengths)
    texts = texts.tolist()
    return ["[" + ", ".join(texts[end - length : end]) + "]" for end, length in zip(ends.tolist(), lengths.tolist())]


def write_rows(path: Path, log: Log, noisy, mask, first, last, clean_target: bool) -> None:
    """Write the windows [first, last], one or more, as CSV rows; see data/README.md for the columns."""
    places = places_of(log.users)
    encoded = np.array([json.dumps(title, ensure_ascii=False) for title in log.titles], dtype=object)
    digits = np.array([str(number) for number in range(max(len(log.titles), INJECTED + 1))], dtype=object)
    for start in range(0, len(first), CHUNK_ROWS):
        heads, tails = first[start : start + CHUNK_ROWS], last[start : start + CHUNK_ROWS]
        lengths = tails - heads + 1
        ends = np.cumsum(lengths)
        rows = np.arange(lengths.sum()) + np.repeat(heads - (ends - lengths), lengths)  # flat row numbers of the log
        items, masked = noisy[rows], mask[rows].astype(np.int64)
        if clean_target:
            items[ends - 1], masked[ends - 1] = log.items[tails], 0
        injected = masked == INJECTED
        injected_per_row = np.add.reduceat(injected, ends - lengths, dtype=np.int64)
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


def write_titles(folder: Path, titles: list[str]) -> None:
    """id2name4Rec.json names every item; in id2name.json the first id of a repeated title wins."""
    every = {str(item): title for item, title in enumerate(titles) if item}
    first_of = {title: item for item, title in reversed(every.items())}
    distinct = {item: title for item, title in every.items() if first_of[title] == item}
    for name, content in (("id2name4Rec.json", every), ("id2name.json", distinct)):
        with naming(folder / name):
            (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


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
    with naming(folder / "interactions.csv"):
        write_interactions(folder / "interactions.csv", log, noisy, mask)
    with naming(folder / "items.csv"):
        write_keys(folder / "users.csv", folder / "items.csv", log)
