"""How often the true item is the replacement of an injected one, beside naming the most popular item of the train rows.

A row for train interactions and for the histories of each file of valid and test rows of each denoised folder. Intervals are those of a
bootstrap that draws users. The last columns are evidence.json's: of items of real train windows that were held out, how many the ranking
of replacements puts first, and among the first ten.

python tests/benchmarks/measure_replacements.py data/ML100K_denoise_user0.1_0 data/Toy_denoise_user0.1_0
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from denoise_code.common.statistics import interval
from denoise_code.common.text_table import text_table
from denoise_code.data_set.evidence_files import read_evidence
from denoise_code.data_set.folder import noisy_name
from denoise_code.data_set.planting import INJECTED
from denoise_code.making_evidence import read_rows

HEADER = ["data", "rows", "injected", "most popular is true", "replacement is true", "held out: first", "among ten"]


def measure(folder: Path) -> list[list]:
    evidence = read_evidence(folder)
    splits = read_rows(folder, folder.parent / noisy_name(folder.name)).splits
    most_popular = np.bincount(splits["train"].items[splits["train"].items > 0]).argmax()
    held_out = evidence.record["replacements"]["held out items found"]
    rows = []
    for file, split in splits.items():
        injected = (split.mask == INJECTED) & (split.clean != split.items)  # (N, W); a draw may have hit the true item
        users, true_items = np.broadcast_to(split.users[:, None], split.items.shape), split.clean
        if file == "train":
            interaction, cell = np.unique(evidence.interaction_of_cell[injected], return_index=True)
            users, true_items = users[injected][cell], true_items[injected][cell]  # (n,) of each injected interaction
            replacements = evidence.train_replacements[interaction]
        else:
            injected = injected[:, :-1]  # a target is never injected
            users, true_items = users[:, :-1][injected], true_items[:, :-1][injected]  # (n,) of each injected place
            replacements = evidence.history_replacements[file][injected]
        is_true = replacements == true_items
        popular = np.mean(true_items == most_popular)
        rows.append([
            folder.name, file, f"{len(is_true):,}", f"{popular:.1%}", share_and_interval(is_true, users),
            f"{held_out['first']:.1%}", f"{held_out['among ten']:.1%}",
        ])  # fmt: skip
    return rows


def share_and_interval(is_true: np.ndarray, users: np.ndarray, draws: int = 1000) -> str:
    """The share of `is_true` (n,), and its 95 % interval over users (n,)."""
    _, number = np.unique(users, return_inverse=True)
    counts, hits = np.bincount(number), np.bincount(number, is_true)  # (U,)
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(counts), size=(draws, len(counts)))  # (draws, U)
    shares = hits[drawn].sum(1) / counts[drawn].sum(1)
    low, high = interval(shares)
    return f"{is_true.mean():.1%} [{low:.1%}, {high:.1%}]"


if __name__ == "__main__":
    print(text_table(HEADER, [row for folder in sys.argv[1:] for row in measure(Path(folder))]))
