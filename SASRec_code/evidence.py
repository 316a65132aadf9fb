"""One calibrated probability that an item does not belong, from the language model's score and the data's own counts.

Planted noise needs no labels, so the weights of both kinds of evidence are fitted on it: a logistic regression on train
windows with one random item each. `llm` sees the model's noise_prob, `collaborative` how often the items of a window
occur together elsewhere and how rare each is, `fused` both.

Reads train.csv and, for llm and fused, planted.csv of a folder that generate_denoised.py made. Used by main.py,
sweep.py and report.py; nothing here reads valid or test rows, the mask of injected noise, or clean titles.
"""

from dataclasses import dataclass, replace

import numpy as np
from dataloader import InputError, Split

KINDS = ("llm", "collaborative", "fused")
FEATURES = {
    "llm": ("noise_prob", "noise_prob in window"),
    "collaborative": ("co-occurrence", "rarity"),
    "fused": ("noise_prob", "noise_prob in window", "co-occurrence", "rarity"),
}
OWN_PLANTED = 5000  # windows that `collaborative` plants itself; it needs no model, so they cost nothing
ROWS_AT_ONCE = 50_000


def new_positions(split: Split) -> np.ndarray:
    """True (N, W) where a row holds an interaction that no earlier window of its user holds, in whatever order rows come.

    Released rows do not tell which interactions they hold (`Split.places`). There sliding windows are found by their
    overlap: one that starts with all but the first s items of another of its user repeats all but its own last s.
    Overlaps of half a window and more are recognised (by a hash), shorter ones could be chance.
    """
    users, items = np.unique(split.users, return_inverse=True)[1], split.items
    if split.places is not None:
        order = split.places[:, -1].argsort(kind="stable")  # of two windows the earlier one has more before an interaction
        names = np.where(items != 0, users[:, None] * (split.places.max() + 1) + split.places, -1)[order]
        row, column = np.divmod(np.unique(names, return_index=True)[1], items.shape[1])
        new = np.zeros(items.shape, dtype=bool)
        new[order[row], column] = True
        return new & (items != 0)
    width, shift = items.shape[1], np.full(len(items), items.shape[1])
    weights = np.random.default_rng(0).integers(1, 2**62, size=width + 1)  # products wrap around, as hashes may

    def key(part: np.ndarray) -> np.ndarray:
        return (part * weights[: part.shape[1]]).sum(1) + users * weights[-1]

    for step in range(width // 2, 0, -1):
        continues = np.isin(key(items[:, :-step]), key(items[:, step:])) & (items[:, 0] != 0)
        shift[continues] = step
    return (np.arange(width) >= width - shift[:, None]) & (items != 0)


@dataclass
class Counts:
    """How often items and pairs of items occur in the train windows: by all users, and by each user.

    A pair of interactions counts once however many sliding windows hold both. Keys are sorted int64 numbers that code
    (item, item) with the smaller first, (user, item, item) and (user, item).
    """

    n_items: int
    user_codes: dict
    items: np.ndarray
    pairs: tuple[np.ndarray, np.ndarray]
    user_pairs: tuple[np.ndarray, np.ndarray]
    user_items: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, train: Split, n_items: int) -> "Counts":
        names, users = np.unique(train.users, return_inverse=True)
        if len(names) * (n_items + 1) ** 2 >= 2**63:
            raise InputError(f"{train.path}: {len(names)} users and {n_items} items are too many to code their pairs")
        new, width = new_positions(train), train.items.shape[1]
        pair_keys, pair_users = [], []
        for later in range(1, width):
            for earlier in range(later):
                rows = np.flatnonzero(new[:, later] & (train.items[:, earlier] != 0))
                pair_keys.append(code_pairs(train.items[rows, earlier], train.items[rows, later], n_items))
                pair_users.append(users[rows])
        keys, owners = np.concatenate(pair_keys), np.concatenate(pair_users)
        rows, columns = np.nonzero(new)
        interactions = train.items[rows, columns]
        return cls(
            n_items,
            {name: code for code, name in enumerate(names)},
            np.bincount(interactions, minlength=n_items + 1),
            np.unique(keys, return_counts=True),
            np.unique(owners * (n_items + 1) ** 2 + keys, return_counts=True),
            np.unique(users[rows] * (n_items + 1) + interactions, return_counts=True),
        )

    def of_others(self, users: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Item counts (N, W) and pair counts (N, W, W) of a window's items by all users but its own."""
        base = self.n_items + 1
        codes = np.array([self.user_codes.get(user, -1) for user in users])[:, None]
        single = self.items[items] - look_up(self.user_items, np.where(codes < 0, -1, codes * base + items))
        width = items.shape[1]
        first, second = np.triu_indices(width, 1)
        keys = code_pairs(items[:, first], items[:, second], self.n_items)  # (N, W (W - 1) / 2)
        together = look_up(self.pairs, keys) - look_up(self.user_pairs, np.where(codes < 0, -1, codes * base**2 + keys))
        pairs = np.zeros((len(items), width, width), dtype=np.float32)
        pairs[:, first, second] = pairs[:, second, first] = together
        return single, pairs


def code_pairs(a: np.ndarray, b: np.ndarray, n_items: int) -> np.ndarray:
    return np.minimum(a, b) * (n_items + 1) + np.maximum(a, b)


def look_up(table: tuple[np.ndarray, np.ndarray], keys: np.ndarray) -> np.ndarray:
    """Counts of keys in a sorted (keys, counts) table, 0 where a key is not in it."""
    known, counts = table
    if not len(known):
        return np.zeros(keys.shape, dtype=np.int64)
    asked, inverse = np.unique(keys, return_inverse=True)  # sorted: neighbours are found in the same cache lines
    place = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return np.where(known[place] == asked, counts[place], 0)[inverse].reshape(keys.shape)


def collaborative_features(split: Split, counts: Counts) -> np.ndarray:
    """(N, W, 2): how much more often than by chance an item occurs with the window's other items, and its rarity.

    The first is the mean over the other items of log((together + 1) / (expected + 1)), expected being what independent
    items of these counts would give; the second is -log(count + 1). Counts are of other users only, so neither the
    window itself nor its neighbours speak for it. An item never seen in train has 0 and 0: no evidence but its rarity.
    """
    result = np.full((*split.items.shape, 2), np.nan, dtype=np.float32)
    total = max(counts.items.sum(), 1)
    pairs_per_item = 2 * counts.pairs[1].sum() / total  # partners that an interaction has on average
    for start in range(0, len(split.items), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        items, scored = split.items[rows], split.editable[rows]
        single, together = counts.of_others(split.users[rows], items)
        expected = (single[:, :, None] * single[:, None, :]).astype(np.float32) * (pairs_per_item / total)
        lift = np.log1p(together) - np.log1p(expected)
        others = scored[:, :, None] & scored[:, None, :] & ~np.eye(items.shape[1], dtype=bool)
        fit = np.where(others, lift, 0).sum(2) / np.maximum(others.sum(2), 1)
        values = np.stack([fit, -np.log1p(single)], axis=2)
        result[rows] = np.where(scored[:, :, None], values, np.nan)
    return result


def llm_features(split: Split) -> np.ndarray:
    """(N, W, 2): the log-odds of noise_prob, and noise_prob normalised over the scored items of the window."""
    prob = np.minimum(split.noise_prob, -1e-15)  # a probability of 1 has no odds
    log_odds = prob - np.log(-np.expm1(prob))
    peak = np.nanmax(prob, axis=1, keepdims=True)
    total = peak + np.log(np.nansum(np.exp(prob - peak), axis=1, keepdims=True))
    return np.stack([log_odds, prob - total], axis=2)


def features(kind: str, split: Split, counts: Counts | None) -> np.ndarray:
    """(N, W, F) in the order of FEATURES[kind]; NaN where nothing is scored."""
    if kind != "collaborative" and split.noise_prob is None:
        raise InputError(f"{split.path}: --evidence {kind} needs the columns of generate_denoised.py")
    parts = [] if kind == "collaborative" else [llm_features(split)]
    return np.concatenate(parts + ([] if kind == "llm" else [collaborative_features(split, counts)]), axis=2)


def plant(train: Split, n_items: int, count: int, seed: int = 0) -> Split:
    """`count` train windows with one item each, uniform over those not in the window, at a uniform place; mask 2 there."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(train.items), size=min(count, len(train.items)), replace=False)
    items, mask = train.items[rows].copy(), np.zeros_like(train.mask[rows])
    lengths, width = (items != 0).sum(1), items.shape[1]
    places = width - 1 - (rng.random(len(rows)) * lengths).astype(int)
    drawn = rng.integers(1, n_items + 1, size=len(rows))
    while (clash := (drawn[:, None] == items).any(1)).any():
        drawn[clash] = rng.integers(1, n_items + 1, size=int(clash.sum()))
    items[np.arange(len(rows)), places] = drawn
    mask[np.arange(len(rows)), places] = 2
    return Split(train.path.with_name("planted"), train.users[rows], items, mask, items)


class Evidence:
    """P(this item does not belong), fitted on windows with planted noise."""

    def __init__(self, kind: str, train: Split, planted: Split | None, n_items: int):
        """Raises InputError where the planted windows hold one class only or none is given for llm and fused.

        `collaborative` plants its own where none is given.
        """
        self.kind = kind
        self.counts = None if kind == "llm" else Counts.of(train, n_items)
        if kind == "collaborative" and planted is None:
            planted = plant(train, n_items, OWN_PLANTED)
        if planted is None:
            raise InputError(f"--evidence {kind}: there is no planted.csv; generate_denoised.py --planted makes it")
        self.fit(planted)

    def fit(self, planted: Split) -> None:
        from sklearn.linear_model import LogisticRegressionCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        x, truth = features(self.kind, planted, self.counts), planted.mask == 2
        scored = planted.editable
        if not 0 < truth[scored].sum() < scored.sum():
            raise InputError(f"{planted.path}: no planted item (mask 2) among its rows, nothing to fit on")
        regression = LogisticRegressionCV(
            Cs=7, cv=5, scoring="neg_log_loss", max_iter=1000, l1_ratios=(0,), use_legacy_attributes=False
        )
        self.model = make_pipeline(StandardScaler(), regression).fit(x[scored], truth[scored])

    def probabilities(self, split: Split) -> np.ndarray:
        """(N, W) in 0..1, NaN where nothing is scored."""
        x, scored = features(self.kind, split, self.counts), split.editable
        result = np.full(split.items.shape, np.nan)
        if scored.any():
            result[scored] = self.model.predict_proba(x[scored])[:, 1]
        return result

    def coefficients(self) -> dict[str, float]:
        """Weight of each standardised feature in the log-odds."""
        return dict(zip(FEATURES[self.kind], map(float, self.model[-1].coef_.ravel())))


def halves(planted: Split) -> tuple[Split, Split]:
    """Two disjoint halves by user, to fit on one and check the calibration on the other."""
    users = np.unique(planted.users, return_inverse=True)[1]
    first = np.random.default_rng(0).permutation(users.max() + 1)[users] % 2 == 0
    return pick(planted, first), pick(planted, ~first)


def pick(split: Split, rows: np.ndarray) -> Split:
    """The split with these rows only."""
    arrays = {name: value[rows] for name, value in vars(split).items() if isinstance(value, np.ndarray)}
    return replace(split, **arrays)


def expected_calibration_error(truth: np.ndarray, prob: np.ndarray, bins: int = 10) -> float:
    """Mean |share of noise - mean probability| over equal-width bins of prob (N,), weighted by their sizes."""
    cell = np.minimum((prob * bins).astype(int), bins - 1)
    size = np.bincount(cell, minlength=bins)
    gap = np.abs(np.bincount(cell, truth, minlength=bins) - np.bincount(cell, prob, minlength=bins))
    return float(gap.sum() / max(size.sum(), 1))
