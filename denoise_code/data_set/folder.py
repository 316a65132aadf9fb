"""Folders and files of a data set: their names, where a split lies, fingerprints."""

import hashlib
import json
import re
from pathlib import Path

import pandas as pd

from denoise_code.common.errors import InputError
from denoise_code.common.files import fingerprint_of_files
from denoise_code.data_set.rows import read_windows


def find_train_file(folder: Path) -> Path:
    """train.csv, or the largest of the samples where a folder carries only samples."""
    if (folder / "train.csv").exists():
        return folder / "train.csv"
    samples = sorted(folder.glob("train_*.csv"), key=lambda path: path.stat().st_size)
    if not samples:
        raise InputError(f"{folder}: no train.csv")
    return samples[-1]


def data_fingerprint(folder: Path, table: pd.DataFrame | None = None) -> str:
    """SHA-256 of what an adapter learns from: the items of the train rows, the titles, the examples of the release.

    table: the train rows, where they were read before.
    """
    items = read_windows(find_train_file(folder))["item_ids"] if table is None else table["item_ids"]
    others = fingerprint_of_files([folder / "id2name4Rec.json", folder / "TDMD" / "train.json"])
    return hashlib.sha256(f"{json.dumps(items.tolist())}{others}".encode()).hexdigest()


def output_name(dataset: str, model_path: Path | None, sample: int) -> str:
    """The output-folder rule: Toy_noise_user0.1 + …sample5000…/checkpoint-2000 -> Toy_denoise_user0.1_5000_2000.

    Without an adapter: Toy_denoise_user0.1_0.
    """
    if "_noise_" not in dataset:
        raise InputError(f"--noise_dataset_path {dataset}: expected a folder named <Name>_noise_user<rate>")
    folder, name = model_path.parts[-2:] if model_path else ("", "")
    named = re.search(r"sample(\d+)", f"{folder}/{name}")
    step = re.search(r"checkpoint-(\d+)", name)
    parts = [dataset.replace("_noise_", "_denoise_"), named[1] if named else str(sample), *([step[1]] if step else [])]
    return "_".join(parts)


SPLITS = ("train", "valid", "test")


def find_split(root: Path, dataset: str, split: str, denoised: bool) -> Path:
    """The file of a split: the full train rows, the 5,000-row samples of valid and test that the release evaluates on.

    A data set named like a denoised one falls back to the noisy folder that it stems from, unless the columns of
    denoising are asked for.
    """
    source = noisy_name(dataset)
    for name in (dataset,) if denoised or source == dataset else (dataset, source):
        folder = root / name
        whole, samples = folder / f"{split}.csv", sorted(folder.glob(f"{split}_*.csv"), key=lambda path: path.stat().st_size)
        order = [whole, *reversed(samples)] if split == "train" else [folder / f"{split}_5000.csv", whole, *reversed(samples)]
        found = next((path for path in order if path.exists()), None)
        if found:
            return found
    there = sorted(path.name for path in root.glob("*") if path.is_dir() and (path / "id2name4Rec.json").exists())
    raise InputError(f"--dataset {dataset}: no {split}.csv in {root / dataset}; there are: {', '.join(there) or 'none'}")


def noisy_name(dataset: str) -> str:
    """Toy_denoise_user0.1_5000_2000 -> Toy_noise_user0.1."""
    head, mark, tail = dataset.rpartition("_denoise_")
    return f"{head}_noise_{tail.split('_')[0]}" if mark else dataset


def scored(folder: Path) -> bool:
    """Whether a language model scored the folder's planted windows: without those its scores cannot be calibrated."""
    return (folder / "planted.csv").exists()
