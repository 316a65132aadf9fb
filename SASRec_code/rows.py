"""Which files of a data set folder a run reads, their rows, and the fingerprint of both."""

import hashlib
from pathlib import Path

from options import RowsOptions

from denoise_code.data_set.catalogue import read_titles
from denoise_code.data_set.folder import SPLITS, find_split, scored
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
    with_llm = needs_llm(options)
    return {
        split: find_split(options.data_root, options.dataset, split, with_llm and split in options.filtered) for split in SPLITS
    }


def load(options: RowsOptions) -> tuple[dict[str, Split], int]:
    """{split: its rows as they are}, and the number of items; splits to filter come with what a filter reads."""
    paths = find_files(options)
    for path in paths.values():
        if path.parent.name != options.dataset:
            print(f"{options.dataset} has no {path.name}: reading {path.parent.name}")
    titles = read_titles(paths["train"].parent)
    columns_to_filter = "needed" if needs_llm(options) else "optional"
    splits = {}
    for split, path in paths.items():
        columns = columns_to_filter if split in options.filtered else "ignored"
        splits[split] = read_split(path, titles, options.maxlen, columns)
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
