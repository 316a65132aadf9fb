"""One calibrated probability that an item does not belong, from the language model's score and the data's own counts.

Planted noise needs no labels, so the weights of all kinds of evidence are fitted on it: a logistic regression on train
windows with one random item each. `llm` sees the model's noise_prob, `collaborative` how often the items of a window
occur together elsewhere and how rare each is, `semantic` how alike their titles are (similarity.py), `fused` all that a folder
has.

Reads train.csv and, of a folder that generate_denoised.py made, planted.csv (llm) and title_vectors.safetensors (semantic).
No fit and no probability reads valid or test targets, the mask of injected noise, or clean titles.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from counts import Counts
from dataloader import DRAWN, InputError, Split, half_of, pick
from similarity import Similarity, learn

FEATURES = {
    "llm": ("noise_prob",),
    "collaborative": ("co-occurrence", "co-occurrence of the rest", "rarity"),
    "semantic": ("largest similarity", "mean similarity", "similarity of the rest"),
}
OWN_PLANTED = 5000  # windows that are planted here where no language model has to read them, so they cost nothing
ROWS_AT_ONCE, VECTORS_AT_ONCE = 50_000, 5_000


def collaborative_features(split: Split, counts: Counts) -> np.ndarray:
    """(N, W, 3): how much more often than by chance an item occurs with the others, these with each other; its rarity.

    The first is the mean over the window's other items of log((together + 1) / (expected + 1)), expected being what
    independent items of these counts would give, the second the same over pairs of these others: a stranger is one where the
    rest belongs together. The third is -log(count + 1). Counts are of other users only, so neither the window itself nor its
    neighbours speak for it. An item never seen in train has 0 in the first: no evidence but its rarity.
    """
    result = np.full((*split.items.shape, 3), np.nan, dtype=np.float32)
    for start in range(0, len(split.items), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        items, scored = split.items[rows], split.editable[rows]
        single, together = counts.of_others(split.users[rows], items)
        expected = counts.expected(single[:, :, None], single[:, None, :])
        lift = np.log1p(together) - np.log1p(expected)
        values = np.stack([*with_the_rest(lift, scored), -np.log1p(single)], axis=2)
        result[rows] = np.where(scored[:, :, None], values, np.nan)
    return result


def with_the_rest(values: np.ndarray, scored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of symmetric values (N, W, W) of each scored item with the others, and of these others with each other; (N, W)."""
    others = pairs_of(scored)
    values, count = np.where(others, values, 0), scored.sum(1, keepdims=True)
    own = values.sum(2)
    rest = own.sum(1, keepdims=True) - 2 * own  # each pair of the others twice
    return own / np.maximum(count - 1, 1), rest / np.maximum((count - 1) * (count - 2), 1)


def pairs_of(scored: np.ndarray) -> np.ndarray:
    """(N, W, W) where two different places of a row are scored."""
    return scored[:, :, None] & scored[:, None, :] & ~np.eye(scored.shape[1], dtype=bool)


def llm_features(split: Split) -> np.ndarray:
    """(N, W, 1): the log-odds of noise_prob. Not also relative to its window: that is worth most where just one item is planted."""
    prob = np.minimum(split.noise_prob, -1e-15)  # a probability of 1 has no odds
    return (prob - np.log(-np.expm1(prob)))[:, :, None]


def semantic_features(split: Split, similarity: Similarity) -> np.ndarray:
    """(N, W, 3): the largest and the mean cosine of an item's title vector with those of the window's other scored items.

    The third is the mean of these with each other. An item that stands in the window twice is as like itself as can be.
    """
    result = np.full((*split.items.shape, 3), np.nan, dtype=np.float32)
    for start in range(0, len(split.items), VECTORS_AT_ONCE):
        rows = slice(start, start + VECTORS_AT_ONCE)
        own, scored = similarity.of(split.users[rows], split.items[rows]), split.editable[rows]
        similar = own @ own.transpose(0, 2, 1)  # (n, W, W)
        others = pairs_of(scored)
        largest = np.where(others.any(2), np.where(others, similar, -np.inf).max(2), 0)  # alone: no evidence
        result[rows] = np.where(scored[:, :, None], np.stack([largest, *with_the_rest(similar, scored)], axis=2), np.nan)
    return result


def plant(train: Split, n_items: int, count: int, seed: int = 0, popular: Counts | None = None) -> Split:
    """`count` train windows with one item each that is not in the window, at a uniform place; mask 2 there.

    The items are uniform over the catalogue, or as popular as the positions of the windows are by these counts.
    """
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(train.items), size=min(count, len(train.items)), replace=False)
    items, mask = train.items[rows].copy(), np.zeros_like(train.mask[rows])
    places, drawn = random_places(items, rng), np.zeros(len(rows), dtype=np.int64)
    for _ in range(1000):
        clash = (drawn[:, None] == items).any(1) | (drawn == 0)
        if not clash.any():
            break
        size = int(clash.sum())
        drawn[clash] = rng.integers(1, n_items + 1, size) if popular is None else as_popular(train, popular, size, rng)
    else:
        raise InputError(f"{train.path}: a window holds nearly all of the {n_items} items, none is left to plant")
    items[np.arange(len(rows)), places] = drawn
    mask[np.arange(len(rows)), places] = 2
    kind = np.full(len(rows), DRAWN[popular is not None])
    return Split(train.path.with_name("planted"), train.users[rows], items, mask, items, drawn=kind)


def as_popular(train: Split, counts: Counts, size: int, rng: np.random.Generator) -> np.ndarray:
    """Items (size,) that other users hold as often as the other users hold what stands at random positions of the windows.

    A position's own user is left out of its count as of all features: who draws positions themselves plants items that are
    more popular by one, and on sparse data (Toy) rarity alone then has an AUC of 0.44.
    """
    row, place = (chosen[:, None] for chosen in divmod(rng.choice(np.flatnonzero(train.items), size), train.items.shape[1]))
    popularity = counts.items_of_others(counts.codes_of(train.users[row[:, 0]]), train.items[row, place])[:, 0]
    order = rng.permutation(counts.n_items) + 1
    order = order[counts.items[order].argsort(kind="stable")]
    ascending = counts.items[order]
    first, after = (np.searchsorted(ascending, popularity, side) for side in ("left", "right"))
    return order[np.minimum(first + (rng.random(size) * (after - first)).astype(int), counts.n_items - 1)]


def random_places(items: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A uniform place (N,) of each left-padded window (N, W)."""
    return items.shape[1] - 1 - (rng.random(len(items)) * (items != 0).sum(1)).astype(int)


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


def expected_calibration_error(truth: np.ndarray, prob: np.ndarray, bins: int = 10) -> float:
    """Mean |share of noise - mean probability| over equal-width bins of prob (N,), weighted by their sizes."""
    cell = np.minimum((prob * bins).astype(int), bins - 1)
    size = np.bincount(cell, minlength=bins)
    gap = np.abs(np.bincount(cell, truth, minlength=bins) - np.bincount(cell, prob, minlength=bins))
    return float(gap.sum() / max(size.sum(), 1))


def detection_row(truth: np.ndarray, score: np.ndarray, scored: np.ndarray) -> dict[str, float | None]:
    """AUC and average precision over the scored positions of (N, W), their means over windows, and recall where precision is 0.5.

    None in place of a figure that does not exist: all of them where the scored positions are all noise or none is, those in
    windows where no window holds both (a history of one item never does).
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    names = ("AUC", "AP", "AUC in window", "AP in window", "recall at precision 0.5")
    noise, values = truth[scored], score[scored]
    if noise.all() or not noise.any():
        return dict.fromkeys(names)
    precision, recall, _ = precision_recall_curve(noise, values)
    in_windows, ap_in_windows = within_windows(truth & scored, score, scored)
    figures = (
        float(roc_auc_score(noise, values)),
        float(average_precision_score(noise, values)),
        float(in_windows.mean()) if len(in_windows) else None,
        float(ap_in_windows.mean()) if len(ap_in_windows) else None,
        float(recall[precision >= 0.5].max()),
    )
    return dict(zip(names, figures, strict=True))


def within_windows(truth: np.ndarray, score: np.ndarray, scored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUC and average precision (M,) of each window of (N, W) that holds both kinds; M may be 0."""
    mixed = np.flatnonzero(truth.any(1) & (scored & ~truth).any(1))
    parts = np.array_split(mixed, len(mixed) // ROWS_AT_ONCE + 1)
    auc, ap = zip(*(of_windows(truth[rows], score[rows], scored[rows]) for rows in parts))
    return np.concatenate(auc), np.concatenate(ap)


def of_windows(truth: np.ndarray, score: np.ndarray, scored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same of windows (M, W) that all hold both."""
    one, other, both = score[:, :, None], score[:, None, :], scored[:, :, None] & scored[:, None, :]  # (M, W, W)
    pairs = both & truth[:, :, None] & ~truth[:, None, :]
    auc = (((one > other) + (one == other) / 2) * pairs).sum((1, 2)) / pairs.sum((1, 2))
    reached = both & (other >= one)
    precision = (reached & truth[:, None, :]).sum(2) / np.maximum(reached.sum(2), 1)
    return auc, (precision * truth).sum(1) / truth.sum(1)


def bootstrap_aucs(split, mark: int, scores: dict[str, np.ndarray], draws: int = 300) -> dict[str, np.ndarray]:
    """{kind: AUC (draws,) over all positions}, users being drawn with all their windows, the same ones for all kinds."""
    rng, scored = np.random.default_rng(0), split.editable
    users = np.unique(split.users, return_inverse=True)[1]
    owners, truth = users[np.nonzero(scored)[0]], (split.mask == mark)[scored]
    levels = {kind: np.unique(score[scored], return_inverse=True)[1] for kind, score in scores.items()}
    aucs = {kind: [] for kind in scores}
    for _ in range(draws):
        times = rng.multinomial(users.max() + 1, np.full(users.max() + 1, 1 / (users.max() + 1)))[owners]  # drawn
        if 0 < times[truth].sum() < times.sum():
            for kind, level in levels.items():
                aucs[kind].append(weighted_auc(truth, level, times))
    return {kind: np.array(values) for kind, values in aucs.items()}


def weighted_auc(truth: np.ndarray, level: np.ndarray, times: np.ndarray) -> float:
    """AUC of scores that are whole numbers from 0 (N,), each counted so many times; sklearn's sorts them anew for each draw."""
    noise, clean = (np.bincount(level, times * kind, level.max() + 1) for kind in (truth, ~truth))
    return float((noise * (clean.cumsum() - clean / 2)).sum() / (noise.sum() * clean.sum()))


def interval(values: np.ndarray) -> list[float] | None:
    """The middle 95 % of bootstrap draws (draws,); None where no draw has the figure."""
    return [float(value) for value in np.percentile(values, [2.5, 97.5])] if len(values) else None
