"""What fits in a flagged place: items that occur with the rest of the window elsewhere, and whose titles resemble it.

Candidates are neighbours of the row's other items; one score ranks them, its weights fitted on train windows whose held-out
item is the right answer. Reads counts and title vectors only; of a valid or test row nothing but its history.
"""

import numpy as np
from scipy import sparse

from denoise_code.common.errors import InputError
from denoise_code.data_set.padded_rows import Split
from denoise_code.evidence.counts import Counts
from denoise_code.evidence.planted_windows import random_places
from denoise_code.evidence.window_fit import halves

NEIGHBOURS, CANDIDATES = 50, 50  # of an item, of a flagged place, by each kind
FIT_ON, RIDGE = 3000, 1e-4  # train windows; keeps weights finite where few are found
PLACES_AT_ONCE = 500


def nearest_by_counts(counts: Counts) -> sparse.csr_array:
    """(n_items + 1, n_items + 1): log of how much more often than by chance two items occur together, the highest a row."""
    base, (keys, together) = counts.n_items + 1, counts.pairs
    a, b = np.divmod(keys, base)
    lift = np.log1p(together) - np.log1p(counts.expected(counts.items[a], counts.items[b]))
    kept = (lift > 0) & (a != b)
    first, second, lift = np.r_[a[kept], b[kept]], np.r_[b[kept], a[kept]], np.r_[lift[kept], lift[kept]]
    order = np.lexsort((second, -lift, first))
    first, second, lift = first[order], second[order], lift[order]
    top = rank_in_group(first) < NEIGHBOURS
    return sparse.csr_array((lift[top], (first[top], second[top])), shape=(base, base))


def nearest_by_titles(vectors: np.ndarray) -> sparse.csr_array:
    """The same with the cosine of title vectors (n_items + 1, D)."""
    n, most = len(vectors), min(NEIGHBOURS, len(vectors) - 2)
    table, rows, columns, values = vectors.astype(np.float32), [], [], []
    for start in range(1, n, 1024):
        chunk = np.arange(start, min(start + 1024, n))
        similar = table[chunk] @ table.T
        similar[np.arange(len(chunk)), chunk] = similar[:, 0] = -np.inf
        top = np.argpartition(-similar, most, axis=1)[:, :most]
        rows.append(np.repeat(chunk, most))
        columns.append(top.ravel())
        values.append(np.take_along_axis(similar, top, 1).ravel())
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_array(entries, shape=(n, n))


def rank_in_group(groups: np.ndarray) -> np.ndarray:
    """0, 1, … (N,) within each run of equal values of groups (N,), ascending."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Shares (F, C) of scores (F, C); all 0 in a row of -inf."""
    weights = np.exp(scores - np.maximum(scores.max(1, keepdims=True), -1e300))
    return weights / np.maximum(weights.sum(1, keepdims=True), 1e-300)


class Replacer:
    """Ranks what could stand in a place of a window by the other items there."""

    def __init__(self, train: Split, n_items: int, vectors: np.ndarray | None):
        self.vectors, by_titles = vectors, [] if vectors is None else [nearest_by_titles(vectors)]
        counted, fit_on = halves(train)
        self.count(counted, n_items, by_titles)
        self.fit(fit_on)
        self.count(train, n_items, by_titles)

    def count(self, train: Split, n_items: int, by_titles: list) -> None:
        self.counts = Counts.of(train, n_items)
        self.neighbours = [nearest_by_counts(self.counts), *by_titles]

    def fit(self, train: Split, seed: int = 0) -> None:
        """Weights of a conditional logit (McFadden 1974): which candidate stood at a random place of a train window.

        Of users whom the counts do not know: else their own pairs would bring the right item among the candidates.
        """
        from scipy.optimize import minimize

        rng = np.random.default_rng(seed)
        rows = rng.choice(len(train.items), size=min(FIT_ON, len(train.items)), replace=False)
        items = train.items[rows]
        places = random_places(items, rng)
        rest = np.where(np.arange(items.shape[1]) == places[:, None], 0, items)
        candidates, true = self.candidates(rest, rest), items[np.arange(len(rows)), places][:, None]
        right = candidates == true
        found = right.any(1)
        if not found.any():
            raise InputError(f"{train.path}: no held-out item is a neighbour of its window; too few rows to replace from")
        x, there = self.features(train.users[rows][found], rest[found], candidates[found]), candidates[found] != 0
        right = right[found]
        self.scale = x[there].std(0) + 1e-9
        x = x / self.scale

        def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
            shares = softmax(np.where(there, x @ weights, -np.inf))
            gradient = (shares[:, :, None] * x).sum(1) - x[right]
            return -np.log(shares[right]).mean() + RIDGE * weights @ weights, gradient.mean(0) + 2 * RIDGE * weights

        self.weights = minimize(loss, np.zeros(x.shape[2]), jac=True).x / self.scale
        self.held_out = shares_of(self.rank(train.users[rows], rest, rest, 10), true)

    def coefficients(self) -> dict[str, float]:
        """Weight of each standardised feature."""
        return dict(zip(("co-occurrence", "popularity", "largest similarity", "mean similarity"), self.weights * self.scale))

    def candidates(self, rest: np.ndarray, banned: np.ndarray) -> np.ndarray:
        """(F, C) items near those of rest (F, W), none of banned (F, B); 0 where there are fewer."""
        place, column = np.nonzero(rest)
        context = sparse.csr_array(
            (np.ones(len(place)), (place, rest[place, column])), shape=(len(rest), self.counts.n_items + 1)
        )
        found = []
        for table in self.neighbours:
            near = (context @ table).tocsr()
            near.sort_indices()
            owner = np.repeat(np.arange(len(rest)), np.diff(near.indptr))
            allowed = ~(near.indices[:, None] == banned[owner]).any(1)
            owner, items, values = owner[allowed], near.indices[allowed], near.data[allowed]
            order = np.lexsort((items, -values, owner))
            owner, items = owner[order], items[order]
            rank = rank_in_group(owner)
            best, top = np.zeros((len(rest), CANDIDATES), dtype=np.int64), rank < CANDIDATES
            best[owner[top], rank[top]] = items[top]
            found.append(best)
        both = np.sort(np.concatenate(found, axis=1), axis=1)
        both[:, 1:][both[:, 1:] == both[:, :-1]] = 0  # found by both kinds
        return both

    def features(self, users: np.ndarray, rest: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """(F, C, K): with the items of rest, co-occurrence beyond chance (sum); popularity; similarity (largest, mean)."""
        parts = (slice(start, start + PLACES_AT_ONCE) for start in range(0, len(rest), PLACES_AT_ONCE))
        return np.concatenate([self.features_at_once(users[part], rest[part], candidates[part]) for part in parts])

    def features_at_once(self, users: np.ndarray, rest: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        single, together, expected = self.counts.between(users, candidates, rest)
        there = (rest != 0)[:, None]
        lift = np.where(there, np.log1p(together) - np.log1p(expected), 0).sum(2)
        parts = [lift, np.log1p(single)]
        if self.vectors is not None:
            own, other = (self.vectors[items].astype(np.float32) for items in (candidates, rest))
            similar = own @ other.transpose(0, 2, 1)  # (F, C, W)
            parts += [np.where(there, similar, -1).max(2), np.where(there, similar, 0).sum(2) / np.maximum(there.sum(2), 1)]
        return np.stack(parts, axis=2)

    def rank(self, users: np.ndarray, rest: np.ndarray, banned: np.ndarray, count: int = 1) -> np.ndarray:
        """The best `count` items (F, count) for places beside rest (F, W), ties by id; 0 where there are fewer candidates."""
        best = [np.zeros((0, count), dtype=np.int64)]
        for start in range(0, len(rest), PLACES_AT_ONCE):
            places = slice(start, start + PLACES_AT_ONCE)
            candidates = self.candidates(rest[places], banned[places])
            scores = self.features(users[places], rest[places], candidates) @ self.weights
            order = np.lexsort((candidates, np.where(candidates != 0, -scores, np.inf)), axis=1)[:, :count]
            best.append(np.take_along_axis(candidates, order, 1))
        return np.concatenate(best)

    def replacements(self, split: Split, flagged: np.ndarray) -> np.ndarray:
        """(N, W): what to put in the flagged places, by the row's unflagged editable items; the best in a row's first place.

        0 elsewhere, and where none is left.
        """
        result, rows = np.zeros_like(split.items), np.flatnonzero(flagged.any(1))
        if len(rows):
            known = np.where(split.editable, split.items, 0)[rows]
            most = int(flagged.sum(1).max())
            items = self.rank(split.users[rows], np.where(flagged[rows], 0, known), known, most)
            row, place = np.nonzero(flagged[rows])
            number = flagged[rows].cumsum(1)[row, place] - 1  # of the row's flagged places: no item stands there twice
            result[rows[row], place] = items[row, number]
        return result


def shares_of(items: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """For how many places the true item (F, 1) comes first of items (F, 10), or among them."""
    return {"first": float((items[:, :1] == true).mean()), "among ten": float((items == true).any(1).mean())}


def hits(replacer: Replacer, split: Split) -> dict[str, dict[str, float]]:
    """{ranking: `shares_of` the injected items}: the replacer's, and popularity alone; and of held-out items of train windows."""
    noise = (split.mask == 1) & split.editable
    row, place = np.nonzero(noise & (split.clean != split.items))  # else what stood there is not known
    true, known = split.clean[row, place][:, None], np.where(split.editable, split.items, 0)[row]
    popular = np.argsort(-replacer.counts.items, kind="stable")[: 10 + known.shape[1]]
    allowed = (popular[:, None] != known[:, None, :]).all(2)  # (F, 10 + W): never an item of the row
    order = np.argsort(~allowed, axis=1, kind="stable")[:, :10]
    rest = np.where(np.arange(known.shape[1]) == place[:, None], 0, known)  # other noise stays: nobody has told of it
    ranked = {
        "neighbours": replacer.rank(split.users[row], rest, known, 10),
        "popularity": np.where(np.take_along_axis(allowed, order, 1), popular[order], 0),
    }
    return {kind: shares_of(items, true) for kind, items in ranked.items()} | {"held out of train": replacer.held_out}
