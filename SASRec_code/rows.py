"""Which files of a data set folder a run reads: rows, what stage 2 says of them, and the fingerprint of both."""

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from options import CONTROLS, RowsOptions, with_settings

from denoise_code.common.errors import InputError
from denoise_code.data_set.catalogue import read_catalogue
from denoise_code.data_set.evidence_files import (
    RECORD,
    StoredEvidence,
    check_catalogue,
    check_rows,
    fingerprint_of_evidence,
    read_evidence,
    read_record,
)
from denoise_code.data_set.folder import SPLITS, find_split, noisy_name
from denoise_code.data_set.padded_rows import Split, last_columns, read_split, resize

NO_INTERACTION = -1


@dataclass(frozen=True)
class RowEvidence:
    """What evidence.safetensors says of the places of a split.

    r {kind: (N, W) float32}: log(f_planted / f_log), NaN where nothing is scored. replacements (N, W) int64 item ids, 0 where
    there is none. interactions (N, W) int64: which train interaction a place is, -1 at padding; None for rows that are not train
    rows, whose places are judged row by row.
    """

    r: dict[str, np.ndarray]
    replacements: np.ndarray
    interactions: np.ndarray | None


@dataclass(frozen=True)
class LoadedRows:
    """The splits of a data set as they are; evidence {split to filter: RowEvidence}, empty where none is read.

    record: evidence.json, None where none is read. users_of_interactions (n,) int: codes, ascending.
    """

    splits: dict[str, Split]
    n_items: int
    evidence: dict[str, RowEvidence]
    record: dict | None = None
    users_of_interactions: np.ndarray | None = None

    @property
    def replaces_all_places(self) -> bool:
        return bool(self.evidence) and self.record["replacements"]["least_probability"] == 0


def find_files(options: RowsOptions) -> dict[str, Path]:
    """{split: its file}; InputError where there is none. Only raw evidence needs rows that a language model read."""
    paths = {}
    for split in SPLITS:
        if options.whole_splits:
            paths[split] = find_whole_split(options, split, options.reads_noise_prob(split))
        else:
            paths[split] = find_split(options.data_root, options.dataset, split, options.reads_noise_prob(split))
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


def with_maxlen(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments of a script, --maxlen being that of the data set where none is given. InputError where a file is missing."""
    paths = find_files(RowsOptions.from_arguments(args))
    return with_settings(args, maxlen=choose_maxlen(paths, args.maxlen))


def choose_maxlen(paths: dict[str, Path], maxlen: int | None) -> int:
    """--maxlen, else the longest history of the files {split: path}, which cuts nothing."""
    if maxlen is not None:
        return maxlen
    return max(1, *(int(history_lengths(path).max(initial=1)) for path in paths.values()))


def history_lengths(path: Path) -> np.ndarray:
    """Items before the target (N,) of each row of a file; (0,) where it cannot be read, which `load` then says."""
    try:
        lists = pd.read_csv(path, usecols=["item_ids"], dtype=str, keep_default_na=False)["item_ids"]
    except ValueError:  # no such column, no table, no text: all are of this class
        return np.zeros(0, np.int64)
    return lists.str.count(",").to_numpy(np.int64)  # a list of L items and a target has L commas


def load(options: RowsOptions) -> LoadedRows:
    """Rows, and what a filter reads of the splits to filter. InputError for evidence that is absent or of other rows."""
    paths = find_files(options)
    for path in paths.values():
        if path.parent.name != options.dataset:
            print(f"{options.dataset} has no {path.name}: reading {path.parent.name}")
    titles = read_catalogue(paths["train"].parent, allow_untitled=True)
    splits = {}
    for split, path in paths.items():
        splits[split] = read_split(path, titles, "needed" if options.reads_noise_prob(split) else "ignored")
    stored = read_evidence(options.folder) if options.reads_evidence else None
    if stored:
        check_catalogue(options.folder, stored, titles)
        check_kinds(options, stored)
        check_replacements(options, stored)
    evidence = {name: row_evidence(options, stored, name, splits[name]) for name in options.filtered if stored}
    if options.maxlen:
        say_what_is_cut(splits, options.maxlen)
    longest = max(split.items.shape[1] for split in splits.values())  # the longest row, its target included
    width = options.maxlen + 1 if options.maxlen else longest
    return LoadedRows(
        splits={name: resize(split, width) for name, split in splits.items()},
        n_items=len(titles) - 1,
        evidence={name: resize_evidence(of_split, width) for name, of_split in evidence.items()},
        record=stored.record if stored else None,
        users_of_interactions=stored.users if stored else None,
    )


def say_what_is_cut(splits: dict[str, Split], maxlen: int) -> None:
    """How many histories of each split are longer than --maxlen."""
    for name, split in splits.items():
        lengths = (split.items[:, :-1] != 0).sum(1)  # (N,)
        n_cut = (lengths > maxlen).sum()
        if n_cut:
            print(
                f"{name}: --maxlen {maxlen} cuts the oldest items of {n_cut:,} of {len(lengths):,} histories; the longest "
                f"has {lengths.max()} items"
            )


def check_kinds(options: RowsOptions, stored: StoredEvidence) -> None:
    """Refuse a kind of evidence that stage 2 has not made for this folder."""
    for kind in options.stored_kinds:
        if kind not in stored.kinds:
            raise InputError(
                f"--evidence {kind}: {options.folder} has {', '.join(stored.kinds)}; semantic needs title vectors, llm all rows "
                "and planted windows read with an adapter"
            )


def check_replacements(options: RowsOptions, stored: StoredEvidence) -> None:
    """Refuse controls at any place where only probable noise has replacements: they would delete nearly all."""
    least = stored.record["replacements"]["least_probability"]
    controls = [kind for kind in options.evidence if kind in CONTROLS]
    if controls and "replace" in options.edits and least > 0:
        raise InputError(
            f"--evidence {controls[0]}: {options.folder} has replacements above a probability of {least} alone; "
            "generate_denoised.py --replace_all makes one for every place"
        )


def row_evidence(options: RowsOptions, stored: StoredEvidence, name: str, split: Split) -> RowEvidence:
    """The part of the stored evidence that is of these rows (N, W)."""
    if name == "train":
        check_rows(options.folder, stored, "train", split.users, split.items)
        is_scored = stored.interaction_of_cell >= 0  # (N, V), V >= W: as wide as the longest row of all files
        interactions = np.where(is_scored, stored.interaction_of_cell, 0)
        r = {kind: np.where(is_scored, stored.train[kind][interactions], np.nan) for kind in options.stored_kinds}
        replacements = np.where(is_scored, stored.train_replacements[interactions], 0)
        return RowEvidence(r, replacements.astype(np.int64), np.where(is_scored, interactions, NO_INTERACTION).astype(np.int64))
    file = split.path.stem
    check_rows(options.folder, stored, file, split.users, split.items[:, :-1])
    at_target = ((0, 0), (0, 1))  # a target is not scored
    histories = stored.histories[file]  # {kind: (N, V - 1)}
    r = {kind: np.pad(histories[kind], at_target, constant_values=np.nan) for kind in options.stored_kinds}
    replacements = np.pad(stored.history_replacements[file], at_target)
    return RowEvidence(r, replacements.astype(np.int64), None)


def resize_evidence(evidence: RowEvidence, width: int) -> RowEvidence:
    """Of the last `width` places of each row, as `padded_rows.resize`."""
    interactions = evidence.interactions
    return RowEvidence(
        {kind: last_columns(r, width, np.nan) for kind, r in evidence.r.items()},
        last_columns(evidence.replacements, width, 0),
        None if interactions is None else last_columns(interactions, width, NO_INTERACTION),
    )


def rows_fingerprint(options: RowsOptions) -> str:
    """SHA-256 of all files that a result depends on."""
    paths = [*find_files(options).values()]
    paths += [folder / "id2name4Rec.json" for folder in sorted({path.parent for path in paths})]
    digest = hashlib.sha256()
    if options.reads_evidence and (options.folder / RECORD).exists():
        digest.update(fingerprint_of_evidence(read_record(options.folder)).encode())
    for path in paths:
        if path.exists():
            digest.update(path.read_bytes())
    return digest.hexdigest()
