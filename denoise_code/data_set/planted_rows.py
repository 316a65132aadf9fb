"""Train rows with one planted item each, written as planted.csv: what the language model's scores are calibrated on."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from denoise_code.common.errors import InputError
from denoise_code.data_set.adapter_record import AdapterRecord
from denoise_code.data_set.folder import data_fingerprint, find_train_file
from denoise_code.data_set.held_out import split_rows, split_single_rows
from denoise_code.data_set.planting import DRAWN, PLANTED_MARK, draw_planted, noise_pools, put_planted
from denoise_code.data_set.rows import read_windows

DEFAULT_PLANTED = 1000  # where nothing else is asked for, as many as there are up to so many


def planted_rows(folder: Path, catalogue: list[str], count: int, adapter_record: AdapterRecord) -> pd.DataFrame:
    """`count` train rows of users that fine-tuning did not see, one random item put into each, with mask 2 at its place.

    The items of every other row are drawn by popularity, those of the rest uniformly (column `drawn`). Column `train_row` is the
    number of the row, counted from 0. Where fewer than `count` such rows exist, DEFAULT_PLANTED gives these, and says so; another
    count raises InputError.
    """
    path, n_items = find_train_file(folder), len(catalogue) - 1
    table = read_windows(path, n_items)
    unseen = unseen_rows(folder, path, table, adapter_record)  # (n_unseen,) row numbers
    if count == DEFAULT_PLANTED > len(unseen):
        print(
            f"{path}: {len(unseen)} rows are of users that fine-tuning did not see; {len(unseen)} are planted in place of {count}"
        )
        count = len(unseen)
    if count > len(unseen):
        raise InputError(
            f"--planted {count}: {path} has {len(unseen)} rows that fine-tuning did not use, nor any other of the same user; "
            f"--planted {len(unseen)} takes these, fine-tuning with a smaller --sample leaves more"
        )
    rng = np.random.default_rng([adapter_record.seed, 3])
    pools = noise_pools(table["item_ids"].tolist(), n_items)
    rows = np.sort(rng.choice(unseen, size=count, replace=False))  # (count,)
    return plant_rows(table, rows, catalogue, pools, rng)


def unseen_rows(folder: Path, path: Path, table: pd.DataFrame, adapter_record: AdapterRecord) -> np.ndarray:
    """Numbers (n,) int64 of the train rows of users that the adapter never saw, less the held-out rows that chose its checkpoint.

    Adapters of which rows were held out saw other rows than these, of the same users. All rows where it is not known which they saw.
    """
    tdmd = folder / "TDMD" / "train.json"  # the release made it of all its train rows, in their order
    n_examples = len(json.loads(tdmd.read_text(encoding="utf-8"))) if tdmd.exists() else len(table)
    learned_from_these = adapter_record.data_fingerprint == data_fingerprint(folder, table) and n_examples == len(table)
    if not learned_from_these or not adapter_record.sample:
        print(f"{path}: not known which rows the adapter was trained on, planted ones may be among them")
        return np.arange(len(table))
    sample, eval_sample, seed = adapter_record.sample, adapter_record.eval_sample, adapter_record.seed
    if adapter_record.held_out != "users":
        print(
            f"{path}: the adapter was trained on other rows than the planted ones, but on the same users; their figures flatter it"
        )
        split = split_single_rows(len(table), sample, eval_sample, seed)
        return np.setdiff1d(np.arange(len(table)), np.concatenate([split.trained, split.held_out]))
    users = table["user_id"].to_numpy()  # (n_rows,) str
    split = split_rows(users, sample, eval_sample, seed)
    is_of_trained_user = np.isin(users.astype(str), np.unique(users[split.trained].astype(str)))  # (n_rows,) bool
    return np.setdiff1d(np.flatnonzero(~is_of_trained_user), split.held_out)


def plant_rows(table: pd.DataFrame, rows: np.ndarray, catalogue: list[str], pools: dict, rng) -> pd.DataFrame:
    """The rows with these numbers (n,), one item planted into each: uniformly and by popularity in turn."""
    table = table.iloc[rows].reset_index(drop=True).assign(train_row=rows)
    table["drawn"] = [DRAWN[number % 2] for number in range(len(table))]
    for number in range(len(table)):
        planted = draw_planted(table.at[number, "item_ids"], pools[table.at[number, "drawn"]], rng)
        table.at[number, "item_ids"] = put_planted(table.at[number, "item_ids"], planted)
        table.at[number, "mask"] = put_planted(table.at[number, "mask"], dict.fromkeys(planted, PLANTED_MARK))
    if "item_titles" in table:
        titles = [[catalogue[item] for item in items] for items in table["item_ids"]]
        table["item_titles"] = [json.dumps(row, ensure_ascii=False) for row in titles]
    return table
