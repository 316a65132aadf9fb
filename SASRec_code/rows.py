"""Which files of a data set folder a run reads."""

import hashlib
from pathlib import Path

import numpy as np

from denoise_code.data_set.catalogue import read_titles
from denoise_code.data_set.folder import SPLITS, find_split, scored
from denoise_code.data_set.padded_rows import read_split


def needs_llm(args) -> bool:
    """Whether the evidence reads what a language model said of windows; fused and random do where it said something."""
    kinds = set(np.atleast_1d(args.evidence))
    return bool(kinds & {"raw", "llm"}) or (bool(kinds & {"fused", "random"}) and scored(args.data_root / args.dataset))


def find_files(args, filtered: tuple[str, ...]) -> dict[str, Path]:
    """{split: its file}."""
    needed = needs_llm(args)
    return {split: find_split(args.data_root, args.dataset, split, needed and split in filtered) for split in SPLITS}


def load(args, filtered: tuple[str, ...]) -> tuple[dict, int]:
    """{split: Split} of the rows as they are, and the number of items; `filtered` splits come with what a filter reads."""
    needed, paths = needs_llm(args), find_files(args, filtered)
    for path in paths.values():
        if path.parent.name != args.dataset:
            print(f"{args.dataset} has no {path.name}: reading {path.parent.name}")
    titles, columns = read_titles(paths["train"].parent), {True: "needed" if needed else "optional", False: "ignored"}
    splits = {split: read_split(path, titles, args.maxlen, columns[split in filtered]) for split, path in paths.items()}
    return splits, len(titles) - 1


def rows_fingerprint(args, filtered: tuple[str, ...]) -> str:
    """SHA-256 of all files that a result depends on."""
    paths, digest = [*find_files(args, filtered).values()], hashlib.sha256()
    folders = {path.parent for path in paths} | {args.data_root / args.dataset}
    names = ("id2name4Rec.json", "planted.csv", "title_vectors.safetensors")
    beside = [folder / name for folder in sorted(folders) for name in names]
    for path in (*paths, *(path for path in beside if path.exists())):
        digest.update(path.read_bytes())
    return digest.hexdigest()
