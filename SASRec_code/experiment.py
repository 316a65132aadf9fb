"""One experiment of main.py: rows, filtered; a recommender a seed, trained and ranked; the files of its results."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from comparison import METRICS_OF_TABLES, summarise, table
from filter import Edits, check_suggestions, edit_splits, noise_share, selection_windows, weigh
from options import FilterOptions, RowsOptions, link_or_copy, stored_kind
from ranking import metrics, rank_targets
from rows import LoadedRows, load
from torch import Tensor
from training import Trainer, load_weights, make_model

from denoise_code.common.files import save_arrays, write_json
from denoise_code.common.resources import peak_memory_gib

EVALUATED = ("valid", "test")


@dataclass(frozen=True)
class WeighedRows:
    """The rows of a data set and what the filter knows of them. probabilities: {split to filter: (N, W)}, as `filter.weigh` gives."""

    loaded: LoadedRows
    filtering: FilterOptions
    probabilities: dict[str, np.ndarray]

    def edited(self, draw: int = 0) -> dict[str, Edits]:
        """{split: its windows (N, W) after the filter, and what was edited}; draw: of random places."""
        return edit_splits(self.loaded, self.probabilities, self.filtering, draw)


def read_rows(options: RowsOptions, filtering: FilterOptions) -> WeighedRows:
    """InputError where the rows lack what the filter asks for."""
    loaded = load(options)
    check_suggestions(loaded, filtering)
    return WeighedRows(loaded, filtering, weigh(loaded, filtering))


@dataclass(frozen=True)
class Outcome:
    """What a seed gave. ranks: {split: (N, 2)}; edits: {split: how much was edited}; fit: what training.fit returned, with the seed;
    None where nothing was trained."""

    ranks: dict[str, np.ndarray]
    edits: dict[str, dict[str, int]]
    fit: dict | None = None


class Experiment:
    """Trains a recommender for each seed on the rows that the filter leaves."""

    def __init__(self, rows: WeighedRows, trainer: Trainer, folder: Path):
        self.rows, self.trainer, self.folder = rows, trainer, folder
        self.use_draw(0)

    def use_draw(self, draw: int) -> None:
        """Filter the rows, random places being those of this draw."""
        edits = self.rows.edited(draw)
        edited = {split: of_split.windows for split, of_split in edits.items()}
        select_on = self.trainer.training.select_on
        selection = selection_windows(self.rows.loaded.splits, edited, select_on, self.rows.filtering.clean)
        self.windows = {split: self.to_device(windows) for split, windows in edited.items()}  # (N, L + 1) each
        self.edits = {split: of_split.counts() for split, of_split in edits.items()}
        self.selection = self.to_device(selection)  # (M, L + 1)

    def to_device(self, windows: np.ndarray) -> Tensor:
        return torch.from_numpy(windows).to(self.trainer.device)

    def train_and_rank(self, seed: int, draw: int) -> Outcome:
        """draw: how many seeds came before; each has other random places."""
        if draw > 0 and self.rows.filtering.evidence == "random":
            self.use_draw(draw)
        log_dir = self.folder / f"tensorboard_seed{seed}"
        trained = self.trainer.train(self.windows["train"], self.selection, seed, log_dir)
        link_or_copy(trained.path, self.folder / f"seed{seed}.safetensors")
        return Outcome(self.rank(trained.model), self.edits, {"seed": seed} | trained.record)

    def evaluate(self, weights: Path, seed: int) -> Outcome:
        """Ranks by weights that are given."""
        trainer = self.trainer
        model = make_model(trainer.n_items, trainer.recommender, seed, trainer.device)
        load_weights(model, weights)
        return Outcome(self.rank(model), self.edits)

    def rank(self, model) -> dict[str, np.ndarray]:
        """{split: ranks (N, 2)} of the targets."""
        ranks = {}
        for split in EVALUATED:
            windows = self.windows[split]
            ranks[split] = rank_targets(model, windows[:, :-1], windows[:, -1])
        return ranks


def write_results(
    folder: Path, settings: dict, data_fingerprint: str, rows: WeighedRows, device: torch.device, outcomes: list[Outcome]
) -> dict:
    """Writes test_ranks.npz and run.json into the folder, prints the metrics; returns what run.json holds.

    settings: the options that shape the result, `options.settings`.
    """
    per_seed = {split: [metrics(outcome.ranks[split]) for outcome in outcomes] for split in EVALUATED}
    fits = [outcome.fit for outcome in outcomes if outcome.fit]
    run = {
        "arguments": settings,
        "data_fingerprint": data_fingerprint,
        "rows": {name: len(split.items) for name, split in rows.loaded.splits.items()},
        "users": {name: len(np.unique(split.users)) for name, split in rows.loaded.splits.items()},  # that have rows
        "n_items": rows.loaded.n_items,
        "evidence": describe_evidence(rows.loaded, rows.filtering),
        "edits": [outcome.edits for outcome in outcomes],
        "versions": {name: version(name) for name in ("torch", "numpy")},
        "device": str(device),
        "fits": fits,
        "per_seed": per_seed,
        "metrics": {split: summarise(by_seed) for split, by_seed in per_seed.items()},
        "peak_memory_gib": round(peak_memory_gib(device), 3),  # of the device
    }
    test = rows.loaded.splits["test"]
    test_ranks = np.stack([outcome.ranks["test"] for outcome in outcomes])  # (S, N, 2)
    save_arrays(folder / "test_ranks.npz", users=test.users.astype(str), targets=test.items[:, -1], ranks=test_ranks)
    write_json(folder / "run.json", run)
    print(table([{"rows": split, **summary} for split, summary in run["metrics"].items()], ("rows", *METRICS_OF_TABLES)))
    seconds = sum(fit["seconds"] for fit in fits)
    print(f"wrote {folder}; {seconds:.0f} s of training, peak memory {run['peak_memory_gib']} GiB ({device})")
    return run


def describe_evidence(loaded: LoadedRows, filtering: FilterOptions) -> dict | None:
    """What the evidence of a run rests on: features and weights, the share of noise that was taken, how it was made."""
    record = loaded.record
    if record is None or filtering.evidence in ("raw", "oracle"):
        return None
    kind = stored_kind(filtering.evidence)
    return {
        "kind": kind,
        "features": record["features"][kind],
        "coefficients": record["coefficients"][kind],
        "share_bound": record["share_bound"][kind],
        "noise_share": noise_share(loaded, filtering),
        "noise_share_of_replacements": record["noise_share"],
        "sources": record["sources"],
    }
