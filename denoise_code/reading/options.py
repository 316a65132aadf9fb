"""What stage 2 can be asked for, by who reads it: which rows, which model, how it reads and answers."""

from dataclasses import dataclass
from pathlib import Path

from denoise_code.language_model.loading import Precision


@dataclass(frozen=True)
class RowOptions:
    """Which rows are read: for generate_denoised.py, which reads them, and job.py, which tells jobs apart."""

    noise_dataset_path: Path
    denoise_data: list[str]  # splits
    planted: int  # train rows with one planted item each
    limit: int | None  # rows of each split; None: all
    users: int | None  # users whose rows are read; None: all


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and how it is loaded: for language_model/loading.py, title_vectors.py and grounding.py."""

    denoise_model_path: Path | None  # the adapter; None: title vectors alone
    base_model: str  # the adapter's, where there is one
    precision: Precision  # its dtype is auto only where no language model is read with


@dataclass(frozen=True)
class ReadingOptions:
    """How windows are read and what is suggested: for plan.py, denoiser.py, scoring.py, suggesting.py and grounding.py."""

    score: str  # first_token (paper) or likelihood
    unit: str  # window (paper) or interaction
    suggest: str  # free (paper) or catalogue
    ground: str  # last_token (release) or title_vectors
    top_k: int  # suspects of a row
    min_percentile: float | None  # suspects only above this share of positions; None: the top ones, whatever they have
    max_new_tokens: int  # of a free replacement
    batch_size: int  # windows at once

    @property
    def by_interaction(self) -> bool:
        return self.unit == "interaction"

    @property
    def by_likelihood(self) -> bool:
        """Whether by it. Then a score depends on nothing behind the item, and a text may be longer than a window (`causal` in plan.py)."""
        return self.score == "likelihood"

    @property
    def is_free(self) -> bool:
        return self.suggest == "free"
