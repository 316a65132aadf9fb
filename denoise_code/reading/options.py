"""What stage 2 can be asked for, by who reads it: which rows, which model, how it reads and answers."""

from dataclasses import dataclass
from pathlib import Path

from denoise_code.common.options import Options, needed, option, positive, ranged, share
from denoise_code.data_set.planted_rows import DEFAULT_PLANTED
from denoise_code.language_model.options import Precision

DEFAULT_FILES = ["train", "valid_5000", "test_5000"]  # of each of SPLITS
BATCH_SIZE_CPU, BATCH_SIZE_GPU = 16, 1024
BATCH_SIZE_LARGE_MODEL = 128  # on a GPU too, of SMALL_MODEL parameters and more


@dataclass(frozen=True)
class RowOptions(Options):
    """Which rows are read: for generate_denoised.py, which reads them, and job.py, which tells jobs apart."""

    noise_dataset_path: Path = needed("data set folder <Name>_noise_user<rate> (needed)", type=Path)
    denoise_data: list[str] = option(
        DEFAULT_FILES,
        "files of the data set, without .csv (default: train valid_5000 test_5000, or what there is in place of these; release: "
        "train test_5000)",
        nargs="+",
    )
    planted: int = option(
        DEFAULT_PLANTED,
        "train rows with one planted item each, written as planted.csv; 0: none (default: 1000, or as many as there are)",
        type=ranged(int, 0),
    )
    limit: int | None = option(None, "this many rows of each file but planted.csv, evenly spaced (default: all)", type=positive)
    users: int | None = option(None, "the rows of so many users only, evenly spaced among all (default: of all)", type=positive)


@dataclass(frozen=True)
class ModelOptions(Options):
    """Which model, and how it is loaded: for language_model/loading.py, title_vectors.py and grounding.py."""

    denoise_model_path: Path | None = option(
        None, "checkpoint of train_denoise_model.py (default: none, no rows are read)", type=Path
    )
    base_model: str = option(None, "language model, the adapter's where there is one (default: that, or the embedded one)")
    precision: Precision = Precision()  # its dtype is auto only where no language model is read with


@dataclass(frozen=True)
class ReadingOptions(Options):
    """How windows are read and what is suggested: for plan.py, denoiser.py, scoring.py, suggesting.py and grounding.py."""

    score: str = option(
        "first_token",
        "noise_prob by how readily the model starts to name a title (default, paper: first_token), or by how unlikely it is there",
        choices=["first_token", "likelihood"],
    )
    unit: str = option(
        "window",
        "what is read: each row (default, paper: window), or each interaction once, with half a window or more before it",
        choices=["window", "interaction"],
    )
    suggest: str = option(
        "free",
        "what may be suggested: any text (default, paper: free), or titles of the catalogue alone",
        choices=["free", "catalogue"],
    )
    ground: str = option(
        "last_token",
        "how free text that is no title finds the nearest item (default, release: last_token)",
        choices=["last_token", "title_vectors"],
    )
    top_k: int = option(3, "suspects a window (default, release: 3)", type=positive)
    min_percentile: float | None = option(
        None,
        "suspects only above this share of positions, estimated on a pilot (default: the top ones, whatever they have)",
        type=share,
    )
    max_new_tokens: int = option(64, "longest free suggestion, in tokens (default: 64; release: 512)", type=positive)
    batch_size: int = option(  # of a request a number, whatever was asked for
        "auto",
        f"windows at once (default: auto, {BATCH_SIZE_CPU} on a CPU, {BATCH_SIZE_GPU} on a GPU and "
        f"{BATCH_SIZE_LARGE_MODEL} there with models of a billion parameters)",
    )

    @property
    def by_interaction(self) -> bool:
        return self.unit == "interaction"

    @property
    def by_likelihood(self) -> bool:
        """Whether items are scored by likelihood. Then a score depends on nothing behind the item, and a text may be longer than a
        window (`causal` in plan.py)."""
        return self.score == "likelihood"

    @property
    def is_free(self) -> bool:
        return self.suggest == "free"
