"""Folders and files of a data set: their names, where a split lies, fingerprints."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from denoise_code.common.errors import InputError
from denoise_code.common.files import fingerprint_of_files
from denoise_code.data_set.rows import read_windows


def find_train_file(folder: Path) -> Path:
    """train.csv, or the largest of the samples where a folder carries only samples."""
    path = file_of_split([folder], "train")
    if path is None:
        raise InputError(f"{folder}: no train.csv")
    return path


def data_fingerprint(folder: Path, table: pd.DataFrame | None = None) -> str:
    """SHA-256 of what an adapter learns from: the items of the train rows, the titles, the examples of the release.

    table: the train rows, where they were read before.
    """
    train_rows = read_windows(find_train_file(folder)) if table is None else table
    items = json.dumps(train_rows["item_ids"].tolist())
    files = fingerprint_of_files([folder / "id2name4Rec.json", folder / "TDMD" / "train.json"])
    return hashlib.sha256(f"{items}{files}".encode()).hexdigest()


def output_name(dataset: str, model_path: Path | None, sample: int) -> str:
    """The output-folder rule: Toy_noise_user0.1 + …sample5000…/checkpoint-2000 -> Toy_denoise_user0.1_5000_2000.

    Without an adapter: Toy_denoise_user0.1_0. sample: what the name has where the path of the adapter does not tell.
    """
    if "_noise_" not in dataset:
        raise InputError(f"--noise_dataset_path {dataset}: expected a folder named <Name>_noise_user<rate>")
    parts = [dataset.replace("_noise_", "_denoise_")]
    parent, name = model_path.parts[-2:] if model_path else ("", "")
    sample_in_path = re.search(r"sample(\d+)", f"{parent}/{name}")
    parts.append(sample_in_path[1] if sample_in_path else str(sample))
    step_in_path = re.search(r"checkpoint-(\d+)", name)
    if step_in_path:
        parts.append(step_in_path[1])
    return "_".join(parts)


SPLITS = ("train", "valid", "test")


def find_split(root: Path, dataset: str, split: str, denoised: bool) -> Path:
    """The file of a split: the full train rows, the 5,000-row samples of valid and test that the release evaluates on.

    A data set named like a denoised one falls back to the noisy folder that it stems from, unless the columns of
    denoising are asked for.
    """
    path = file_of_split([root / dataset] if denoised else [root / dataset, root / noisy_name(dataset)], split)
    if path is not None:
        return path
    names = sorted(path.name for path in root.glob("*") if path.is_dir() and (path / "id2name4Rec.json").exists())
    raise InputError(f"--dataset {dataset}: no {split}.csv in {root / dataset}; there are: {', '.join(names) or 'none'}")


def file_of_split(folders: Iterable[Path], split: str) -> Path | None:
    """The file of a split in the first of the folders that has one: the whole of train, the 5,000-row sample of others, else the
    largest sample. None where there is none."""
    for folder in folders:
        whole = folder / f"{split}.csv"
        samples = sorted(folder.glob(f"{split}_*.csv"), key=lambda path: path.stat().st_size)
        first = [whole] if split == "train" else [folder / f"{split}_5000.csv", whole]
        for path in (*first, *reversed(samples)):
            if path.exists():
                return path
    return None


def noisy_name(dataset: str) -> str:
    """Toy_denoise_user0.1_5000_2000 -> Toy_noise_user0.1."""
    name, denoised_mark, rest = dataset.rpartition("_denoise_")
    return f"{name}_noise_{rest.split('_')[0]}" if denoised_mark else dataset
