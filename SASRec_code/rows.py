"""Which files of a data set folder a run reads, their rows, and the fingerprint of both."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from options import RowsOptions

from denoise_code.common.errors import InputError
from denoise_code.data_set.catalogue import read_titles
from denoise_code.data_set.folder import SPLITS, find_split, noisy_name, scored
from denoise_code.data_set.padded_rows import Split, read_split

NEXT_TO_ROWS = ("id2name4Rec.json", "planted.csv", "title_vectors.safetensors")  # files that evidence and replacements read


def needs_llm(options: RowsOptions) -> bool:
    """Whether the evidence reads what a language model said of windows; fused and random do where it said something."""
    kinds = set(options.evidence)
    if kinds & {"raw", "llm"}:
        return True
    return bool(kinds & {"fused", "random"}) and scored(options.folder)


def find_files(options: RowsOptions) -> dict[str, Path]:
    """{split: its file}; InputError where there is none."""
    with_llm, paths = needs_llm(options), {}
    for split in SPLITS:
        denoised = with_llm and split in options.filtered
        if options.whole_splits:
            paths[split] = find_whole_split(options, split, denoised)
        else:
            paths[split] = find_split(options.data_root, options.dataset, split, denoised)
    return paths


def find_whole_split(options: RowsOptions, split: str, denoised: bool) -> Path:
    """<split>.csv, of the data set or, unless the columns of denoising are asked for, of the noisy folder that it stems from."""
    datasets = dict.fromkeys([options.dataset] if denoised else [options.dataset, noisy_name(options.dataset)])
    for dataset in datasets:
        path = options.data_root / dataset / f"{split}.csv"
        if path.exists():
            return path
    hint = f"; generate_denoised.py --denoise_data {split} writes it" if denoised else ""
    raise InputError(f"--rows all: no {split}.csv in {' or '.join(datasets)}{hint}")


def choose_maxlen(paths: dict[str, Path], maxlen: int | None) -> int:
    """--maxlen, else the longest history of the files {split: path}, which cuts nothing. Says what an explicit one cuts."""
    lengths = {split: history_lengths(path) for split, path in paths.items()}  # (N,) each
    if maxlen is None:
        return max(1, *(int(of_split.max(initial=1)) for of_split in lengths.values()))
    for split, of_split in lengths.items():
        n_cut = (of_split > maxlen).sum()
        if n_cut:
            longest = of_split.max()
            print(
                f"{split}: --maxlen {maxlen} cuts the oldest items of {n_cut:,} of {len(of_split):,} histories; the longest "
                f"has {longest} items"
            )
    return maxlen


def history_lengths(path: Path) -> np.ndarray:
    """Items before the target (N,) of each row of a file; (0,) where it cannot be read, which `load` then says."""
    try:
        lists = pd.read_csv(path, usecols=["item_ids"], dtype=str, keep_default_na=False)["item_ids"]
    except ValueError:  # no such column, no table, no text: all are of this class
        return np.zeros(0, np.int64)
    return lists.str.count(",").to_numpy(np.int64)  # a list of L items and a target has L commas


def load(options: RowsOptions) -> tuple[dict[str, Split], int]:
    """{split: its rows as they are}, and the number of items; splits to filter come with what a filter reads."""
    paths = find_files(options)
    for path in paths.values():
        if path.parent.name != options.dataset:
            print(f"{options.dataset} has no {path.name}: reading {path.parent.name}")
    titles, maxlen = read_titles(paths["train"].parent), options.maxlen or choose_maxlen(paths, None)
    columns_to_filter = "needed" if needs_llm(options) else "optional"
    splits = {}
    for split, path in paths.items():
        columns = columns_to_filter if split in options.filtered else "ignored"
        splits[split] = read_split(path, titles, maxlen, columns)
    return splits, len(titles) - 1


def rows_fingerprint(options: RowsOptions) -> str:
    """SHA-256 of all files that a result depends on."""
    row_files = [*find_files(options).values()]
    folders = sorted({path.parent for path in row_files} | {options.folder})
    other_files = [folder / name for folder in folders for name in NEXT_TO_ROWS]
    digest = hashlib.sha256()
    for path in (*row_files, *(path for path in other_files if path.exists())):
        digest.update(path.read_bytes())
    return digest.hexdigest()
