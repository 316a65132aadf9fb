"""One calibrated probability that an item does not belong, from the language model's score and the data's own counts.

Planted noise needs no labels, so the weights of all kinds of evidence are fitted on it: a logistic regression on train windows
with one random item each. `fused` is fitted on all features that a folder has.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from denoise_code.common.errors import InputError
from denoise_code.data_set.padded_rows import Split, half_of, pick
from denoise_code.data_set.planting import DRAWN
from denoise_code.evidence.counts import Counts
from denoise_code.evidence.planted_windows import plant
from denoise_code.evidence.similarity import Similarity, learn
from denoise_code.evidence.window_features import FEATURES, collaborative_features, llm_features, semantic_features

OWN_PLANTED = 5000  # windows that are planted here where no language model has to read them, so they cost nothing


@dataclass
class Sources:
    """All that evidence can come from: train windows, windows with planted noise, title vectors.

    planted: those that a language model scored; None where none did. vectors (n_items + 1, D) or None.
    """

    train: Split
    n_items: int
    planted: Split | None = None
    vectors: np.ndarray | None = None

    @cached_property
    def counts(self) -> Counts:
        return Counts.of(self.train, self.n_items)

    @cached_property
    def similarity(self) -> Similarity:
        return learn(self.train, self.vectors)

    def kinds(self) -> list[str]:
        """The kinds of evidence there are."""
        there = {"llm": self.planted is not None, "semantic": self.vectors is not None}
        return [*(kind for kind in FEATURES if there.get(kind, True)), "fused"]

    def parts(self, kind: str) -> list[str]:
        """The single kinds that a kind joins: `fused` all there are, a+b those two; raises InputError where one is absent."""
        parts = self.kinds()[:-1] if kind == "fused" else kind.split("+")
        for part in parts:
            if part == "llm" and self.planted is None:
                raise InputError(f"--evidence {kind}: no planted.csv with noise_prob; generate_denoised.py --planted makes it")
            if part == "semantic" and self.vectors is None:
                raise InputError(f"--evidence {kind}: no title_vectors.safetensors; generate_denoised.py makes it")
        return parts

    def planted_by(self, kind: str, popular: bool = False) -> Split:
        """Windows with planted noise for a kind: those that a language model scored where it takes part, else our own."""
        if "llm" not in self.parts(kind):
            return plant(self.train, self.n_items, OWN_PLANTED, int(popular), self.counts if popular else None)
        drawn = self.planted.drawn if self.planted.drawn is not None else np.full(len(self.planted.items), DRAWN[0])
        if not (drawn == DRAWN[popular]).any():
            raise InputError(f"{self.planted.path}: no row whose item is drawn by {DRAWN[popular]}")
        return pick(self.planted, drawn == DRAWN[popular])

    def features(self, kind: str, split: Split) -> np.ndarray:
        """(N, W, F) of the kind's parts, in the order of FEATURES; NaN where nothing is scored."""
        of = {
            "llm": lambda: llm_features(split),
            "collaborative": lambda: collaborative_features(split, self.counts),
            "semantic": lambda: semantic_features(split, self.similarity),
        }
        return np.concatenate([of[part]() for part in self.parts(kind)], axis=2)


class Evidence:
    """P(this item does not belong), fitted on windows with uniformly planted noise."""

    def __init__(self, kind: str, sources: Sources, planted: Split | None = None):
        """planted: what to fit on, by default what the sources have for this kind."""
        self.kind, self.sources = kind, sources
        self.fit(planted if planted is not None else sources.planted_by(kind))

    def fit(self, planted: Split) -> None:
        from sklearn.linear_model import LogisticRegressionCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        x, truth = self.sources.features(self.kind, planted), planted.mask == 2
        scored = planted.editable
        if not 0 < truth[scored].sum() < scored.sum():
            raise InputError(f"{planted.path}: no planted item (mask 2) among its rows, nothing to fit on")
        regression = LogisticRegressionCV(
            Cs=7, cv=5, scoring="neg_log_loss", max_iter=1000, l1_ratios=(0,), use_legacy_attributes=False
        )
        self.model = make_pipeline(StandardScaler(), regression).fit(x[scored], truth[scored])

    def probabilities(self, split: Split) -> np.ndarray:
        """(N, W) in 0..1, NaN where nothing is scored."""
        x, scored = self.sources.features(self.kind, split), split.editable
        result = np.full(split.items.shape, np.nan)
        if scored.any():
            result[scored] = self.model.predict_proba(x[scored])[:, 1]
        return result

    def coefficients(self) -> dict[str, float]:
        """Weight of each standardised feature in the log-odds."""
        names = [name for part in self.sources.parts(self.kind) for name in FEATURES[part]]
        return dict(zip(names, map(float, self.model[-1].coef_.ravel())))


def halves(split: Split) -> tuple[Split, Split]:
    """Two disjoint halves by user, to fit on one and check the calibration on the other."""
    half = half_of(split.users)
    if not 0 < half.sum() < len(half):
        raise InputError(f"{split.path}: too few users to learn from one half and check on the other")
    return pick(split, half == 0), pick(split, half == 1)
