"""One replacement for an interaction: what goes with the others of its windows. Ours; the paper's way, in which the language model
names one, is `denoise_code/reading/suggesting.py`.

Candidates are neighbours of these others, by co-occurrence and by title vectors. A conditional logit ranks them, fitted on train items that
are held out, all others counting alike; in use an item counts by 1 - P(noise). What is done to a valid or test row reads its history alone.
"""

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from denoise_code.common.progress import progress
from denoise_code.data_set.interactions import DataSet
from denoise_code.evidence import cooccurrence
from denoise_code.evidence.calibration import items_in_windows
from denoise_code.evidence.cooccurrence import Cooccurrence
from denoise_code.evidence.features import CHUNK_BYTES, TrainWindows, row_chunks

NEIGHBOURS, CANDIDATES = 50, 50  # of an item, of a place, by each kind
# Items that a replacement is chosen by: all of the windows of 11 that hold an interaction; of longer ones the nearest.
MOST_OTHERS = 20
FIT_ON = 3000  # held-out items
RIDGE = 1e-4  # keeps weights finite where few are found
AT_ONCE = 1000  # places
COLUMNS = ("co-occurrence", "popularity", "largest similarity", "mean similarity")


class NothingToReplaceFrom(ValueError):
    """No held-out item is a neighbour of the others of its windows."""


@dataclass(frozen=True)
class Context:
    """F places whose item is asked for.

    users (F,) codes; others (F, C) items beside it, 0 where none; shares (F, C) float32: of the windows that hold the place those that hold
    the other too; trust (F, C) float32: 1 - P(noise) of the other; banned (F, B) items that must not be the answer, 0 where none.
    """

    users: np.ndarray
    others: np.ndarray
    shares: np.ndarray
    trust: np.ndarray
    banned: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    def part(self, rows) -> "Context":
        return Context(self.users[rows], self.others[rows], self.shares[rows], self.trust[rows], self.banned[rows])


def context_of_interactions(data: DataSet, windows: TrainWindows, rows: np.ndarray, p_noise: np.ndarray | None) -> Context:
    """Of train interactions, rows (F,) of the table; p_noise (n,) of all, None where all others count alike."""
    table, width = data.interactions, windows.width
    owner, window = windows.holding(rows)
    changes = np.zeros((len(rows), 2 * width))  # column width - 1 + lag: windows that begin to hold the row `lag` further on
    np.add.at(changes, (owner, windows.first[window] - rows[owner] + width - 1), 1)
    np.add.at(changes, (owner, windows.last[window] - rows[owner] + width), -1)
    held_both = changes.cumsum(1)[:, :-1]  # (F, 2 W - 1)
    shares = held_both / np.maximum(held_both[:, width - 1 : width], 1)
    shares[:, width - 1] = 0  # the place itself
    nearest = (-shares).argsort(1, kind="stable")[:, : min(MOST_OTHERS, 2 * width - 2)]  # (F, C)
    shares = np.take_along_axis(shares, nearest, 1)
    other_rows = np.clip(rows[:, None] + nearest - (width - 1), 0, len(table) - 1)
    held = shares > 0
    trust = np.ones(shares.shape) if p_noise is None else 1 - np.nan_to_num(p_noise[other_rows])
    return Context(
        users=table.users[rows],
        others=np.where(held, table.items[other_rows], 0),
        shares=shares.astype(np.float32),
        trust=np.where(held, trust, 0).astype(np.float32),
        banned=items_in_windows(data, rows),
    )


def context_of_histories(
    users: np.ndarray, histories: np.ndarray, p_noise: np.ndarray, rows: np.ndarray, places: np.ndarray
) -> Context:
    """Of places (F,) of these rows (F,) of histories (N, H) with their p_noise (N, H) and users (N,)."""
    width = histories.shape[1]
    distance = np.abs(np.arange(width) - places[:, None])
    distance[np.arange(len(places)), places] = 2 * width  # the place itself is the last
    nearest = distance.argsort(1, kind="stable")[:, : min(MOST_OTHERS, width - 1)]
    others = histories[rows[:, None], nearest]  # (F, C)
    held = (others != 0).astype(np.float32)
    trust = held * (1 - np.nan_to_num(p_noise[rows[:, None], nearest]).astype(np.float32))
    return Context(users[rows], others, held, trust, histories[rows])


# ---------------------------------------------------------------- neighbours


def neighbours_by_counts(counts: Cooccurrence) -> sparse.csr_array:
    """(n_items + 1, n_items + 1) float32: log of how much more often than by chance two items occur together, the highest of each row."""
    pairs = counts.pairs.tocoo()
    smaller, larger = pairs.coords
    lift = np.log1p(pairs.data.astype(np.float32))
    lift -= np.log1p(counts.expected(counts.item_counts[smaller], counts.item_counts[larger]))
    kept = (lift > 0) & (smaller != larger)
    smaller, larger, lift = smaller[kept], larger[kept], lift[kept]
    rows, columns, values = np.r_[smaller, larger], np.r_[larger, smaller], np.r_[lift, lift]
    order = np.lexsort((columns, -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    top = rank_in_group(rows) < NEIGHBOURS
    return sparse.csr_array((values[top], (rows[top], columns[top])), shape=counts.pairs.shape)


def neighbours_by_titles(vectors: np.ndarray) -> sparse.csr_array:
    """(n_items + 1, n_items + 1) float32: cosines of title vectors (n_items + 1, D), the highest of each row."""
    import torch

    count, most = len(vectors), min(NEIGHBOURS, len(vectors) - 2)
    table = torch.from_numpy(vectors.astype(np.float32))  # (n_items + 1, D)
    cosines, neighbours = [], []
    for items in row_chunks(count, 4 * count, CHUNK_BYTES // 2):
        similar = table[items] @ table.T  # (items of the chunk, n_items + 1)
        similar[:, 0] = -torch.inf
        similar[:, items].fill_diagonal_(-torch.inf)  # an item is no neighbour of itself
        nearest = similar.topk(most, sorted=False)
        cosines.append(nearest.values)
        neighbours.append(nearest.indices)
    cosines, neighbours = torch.cat(cosines)[1:], torch.cat(neighbours)[1:]  # (n_items, most); item 0 is padding
    rows = np.repeat(np.arange(1, count), most)
    return sparse.csr_array((cosines.numpy().ravel(), (rows, neighbours.numpy().ravel())), shape=(count, count))


def rank_in_group(groups: np.ndarray) -> np.ndarray:
    """0, 1, … (N,) within each run of equal values of groups (N,), ascending."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)


# ---------------------------------------------------------------- ranking


@dataclass(frozen=True)
class OwnItems:
    """Which items each user has: numbers (K,) int64, ascending, user * (n_items + 1) + item."""

    numbers: np.ndarray
    n_items: int

    @classmethod
    def of(cls, data: DataSet) -> "OwnItems":
        table = data.interactions
        return cls(np.unique(table.users.astype(np.int64) * (data.n_items + 1) + table.items), data.n_items)

    def include(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(F, C) bool: whether users (F,) have items (F, C)."""
        asked = users[:, None].astype(np.int64) * (self.n_items + 1) + items  # (F, C)
        place = np.minimum(np.searchsorted(self.numbers, asked), len(self.numbers) - 1)
        return self.numbers[place] == asked


@dataclass
class Ranker:
    """What a place's item could be, and the score of each: sum of weights (K,) times features (K,), see COLUMNS.

    neighbours: tables (n_items + 1, n_items + 1), one a kind; vectors (n_items + 1, D) of titles or None. own_items: of users, what they
    have, which is no candidate for them then; None where only what is banned is none.
    """

    counts: Cooccurrence
    neighbours: list[sparse.csr_array]
    vectors: np.ndarray | None
    weights: np.ndarray
    own_items: "OwnItems | None" = None

    def candidates(self, context: Context) -> np.ndarray:
        """(F, C) items, ascending, 0 where there are fewer: the nearest to the others, none of the banned nor of the user's own."""
        most = CANDIDATES + context.banned.shape[1]  # so many that enough are left
        most += 0 if self.own_items is None else CANDIDATES
        place, column = np.nonzero(context.others)
        weights = context.shares[place, column] * context.trust[place, column]
        shape = len(context), self.counts.n_items + 1
        others = sparse.csr_array((weights, (place, context.others[place, column])), shape=shape)
        parts = []
        for table in self.neighbours:
            near = (others @ table).tocsr()
            near.sort_indices()
            owner = np.repeat(np.arange(len(context)), np.diff(near.indptr))
            order = np.lexsort((-near.data, owner))  # stable: equal ones by their ids
            rank = rank_in_group(owner)
            first = rank < most
            nearest = np.zeros((len(context), most), dtype=np.int64)
            nearest[owner[first], rank[first]] = near.indices[order][first]
            nearest[(nearest[:, :, None] == context.banned[:, None, :]).any(2)] = 0
            if self.own_items is not None:
                nearest[self.own_items.include(context.users, nearest)] = 0
            kept = (nearest == 0).argsort(1, kind="stable")[:, :CANDIDATES]
            parts.append(np.take_along_axis(nearest, kept, 1))
        candidates = np.sort(np.concatenate(parts, axis=1), axis=1)
        candidates[:, 1:][candidates[:, 1:] == candidates[:, :-1]] = 0  # found by both kinds
        return candidates

    def features(self, context: Context, candidates: np.ndarray) -> np.ndarray:
        """(F, C, K) of candidates (F, C)."""
        n_places, n_candidates = candidates.shape
        n_others = context.others.shape[1]
        cell_items = np.concatenate([candidates, context.others], axis=1)  # (F, C + others)
        cell_users = np.broadcast_to(context.users[:, None], cell_items.shape)
        numbers = np.arange(cell_items.size).reshape(cell_items.shape)
        asked = (candidates != 0)[:, :, None] & (context.others != 0)[:, None, :]
        first = np.broadcast_to(numbers[:, :n_candidates, None], asked.shape)[asked]
        second = np.broadcast_to(numbers[:, None, n_candidates:], asked.shape)[asked]
        lift = np.zeros((n_places, n_candidates, n_others), dtype=np.float32)
        lift[asked] = self.counts.lift(cell_users.ravel(), cell_items.ravel(), first, second)
        weights = context.shares * context.trust  # (F, others)
        popularity = self.counts.items_of_others(cell_users[:, :n_candidates], candidates)
        columns = [(lift * weights[:, None]).sum(2), np.log1p(popularity)]
        if self.vectors is not None:
            own, other = (self.vectors[items].astype(np.float32) for items in (candidates, context.others))
            similar = own @ other.transpose(0, 2, 1)  # (F, C, others)
            largest = np.where(asked, similar * context.trust[:, None], -1).max(2)
            mean = (similar * weights[:, None]).sum(2) / np.maximum(weights.sum(1), 1e-9)[:, None]
            columns += [largest, mean]
        return np.stack(columns, axis=2)

    def rank(self, context: Context) -> np.ndarray:
        """(F, C) int32 candidates, the best first, ties by id, then 0."""
        parts = [np.zeros((0, CANDIDATES * len(self.neighbours)), dtype=np.int32)]
        for rows in row_chunks(len(context), 1, AT_ONCE):
            context_of_rows = context.part(rows)
            candidates = self.candidates(context_of_rows)
            scores = np.where(candidates != 0, self.features(context_of_rows, candidates) @ self.weights, -np.inf)
            order = np.lexsort((candidates, -scores), axis=1)
            parts.append(np.take_along_axis(candidates, order, 1).astype(np.int32))
        return np.concatenate(parts)


@dataclass(frozen=True)
class Fitted:
    """ranker: over all train interactions; coefficients: of standardised features; held_out: shares of held-out items that came first,
    and among ten."""

    ranker: Ranker
    coefficients: dict[str, float]
    held_out: dict[str, float]


def fit_ranker(data: DataSet, vectors: np.ndarray | None, halving: np.ndarray, seed: int = 0) -> Fitted:
    """halving (U,) int64, the half of each user: the counts of half 0 rank held-out items of half 1, else a user's own pairs would bring
    the right one among the candidates. Then all count."""
    table, width = data.interactions, data.train.shape[1]
    by_titles = None if vectors is None else neighbours_by_titles(vectors)
    counts = cooccurrence.count(table, data.n_items, width, users=halving == 0)
    ranker = make_ranker(counts, vectors, by_titles, np.zeros(2 if vectors is None else 4))
    held_out = np.flatnonzero(table.in_train & (halving[table.users] == 1))
    rows = np.sort(np.random.default_rng(seed).permutation(held_out)[:FIT_ON])
    context = without_own_item(context_of_interactions(data, TrainWindows(data.train), rows, None))
    weights, scale = fit_weights(ranker, context, table.items[rows])
    ranker.weights = weights / scale
    ranked, right = ranker.rank(context), table.items[rows][:, None]
    shares = {"first": float((ranked[:, :1] == right).mean()), "among ten": float((ranked[:, :10] == right).any(1).mean())}
    everyone = cooccurrence.count(table, data.n_items, width)
    fitted = make_ranker(everyone, vectors, by_titles, ranker.weights)
    return Fitted(fitted, dict(zip(COLUMNS, map(float, weights))), shares)


def make_ranker(
    counts: cooccurrence.Cooccurrence, vectors: np.ndarray | None, by_titles: np.ndarray | None, weights: np.ndarray
) -> Ranker:
    """Candidates by co-occurrence and, where titles are read, by title. by_titles: `neighbours_by_titles(vectors)`."""
    return Ranker(counts, [neighbours_by_counts(counts), *([] if by_titles is None else [by_titles])], vectors, weights)


def without_own_item(context: Context) -> Context:
    """What stands at the place itself is the right answer: only the others are banned."""
    others = np.where((context.banned[:, :, None] == context.others[:, None, :]).any(2), context.banned, 0)
    return Context(context.users, context.others, context.shares, context.trust, others)


def fit_weights(ranker: Ranker, context: Context, right_items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of a conditional logit (McFadden 1974) of right_items (F,) among their candidates, and the scale of features, (K,) each."""
    from scipy.optimize import minimize

    parts = []
    for rows in row_chunks(len(context), 1, AT_ONCE):
        candidates = ranker.candidates(context.part(rows))
        right = candidates == right_items[rows, None]
        found = right.any(1)
        context_of_found = context.part(np.arange(len(context))[rows][found])
        parts.append((ranker.features(context_of_found, candidates[found]), candidates[found] != 0, right[found]))
    features, listed, right = (np.concatenate(arrays) for arrays in zip(*parts))
    if not len(right):
        raise NothingToReplaceFrom(f"none of {len(context)} held-out items is a neighbour of the items beside it; too few rows")
    scale = features[listed].std(0) + 1e-9
    features = features / scale

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        shares = softmax(np.where(listed, features @ weights, -np.inf))
        gradient = (shares[:, :, None] * features).sum(1) - features[right]
        return -np.log(shares[right]).mean() + RIDGE * weights @ weights, gradient.mean(0) + 2 * RIDGE * weights

    return minimize(loss, np.zeros(features.shape[2]), jac=True).x, scale


def softmax(scores: np.ndarray) -> np.ndarray:
    """Shares (F, C) of scores (F, C), one of a row at least being finite."""
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


# ---------------------------------------------------------------- one replacement each


def replace_interactions(
    data: DataSet, ranker: Ranker, p_noise: np.ndarray, least: float = 0, new_to_user: bool = False
) -> np.ndarray:
    """(n,) int64: one replacement for each train interaction whose P(noise), p_noise (n,), is `least` or more; 0 elsewhere, and
    where none is left.

    It is no item of a train window that holds the interaction, nor what another interaction within a window's length was given: the
    most probable noise chooses first. new_to_user: nor any other item that the user has or was given.
    """
    if new_to_user:
        ranker = replace(ranker, own_items=OwnItems.of(data))
    table, windows = data.interactions, TrainWindows(data.train)
    width, received = windows.width, np.zeros(len(table), dtype=np.int64)
    asked = np.flatnonzero(table.in_train & (np.nan_to_num(p_noise) >= least))
    parts = list(row_chunks(len(asked), 1, AT_ONCE))
    ranked = [
        ranker.rank(context_of_interactions(data, windows, asked[rows], p_noise))
        for rows in progress(parts, "choose replacements", "batch")
    ]
    if not ranked:
        return received
    if new_to_user:
        choose_once_a_user(np.concatenate(ranked), p_noise[asked], asked.tolist(), table.users[asked].tolist(), received)
        return received
    first_row, end_row = (np.searchsorted(table.users, table.users[asked], side) for side in ("left", "right"))
    low, high = np.maximum(asked - width + 1, first_row).tolist(), np.minimum(asked + width, end_row).tolist()
    choose_in_turn(np.concatenate(ranked), p_noise[asked], asked.tolist(), low, high, received)
    return received


def replace_in_histories(data: DataSet, file: str, ranker: Ranker, p_noise: np.ndarray, least: float = 0) -> np.ndarray:
    """(N, H) int64: one replacement for each place of the histories of a file whose P(noise), p_noise (N, H), is `least` or more.

    It is no item of the history, nor what another place of it received.
    """
    evaluated = data.evaluated[file]
    width, received = evaluated.histories.shape[1], np.zeros(evaluated.histories.size, dtype=np.int64)
    rows, places = np.nonzero((evaluated.histories != 0) & (np.nan_to_num(p_noise) >= least))
    by_user = np.argsort(evaluated.users[rows], kind="stable")
    rows, places = rows[by_user], places[by_user]
    ranked = [
        ranker.rank(context_of_histories(evaluated.users, evaluated.histories, p_noise, rows[part], places[part]))
        for part in row_chunks(len(rows), 1, AT_ONCE)
    ]
    if ranked:
        low = rows * width
        choose_in_turn(
            np.concatenate(ranked), p_noise[rows, places], (low + places).tolist(), low.tolist(), (low + width).tolist(), received
        )
    return received.reshape(evaluated.histories.shape)


def choose_in_turn(ranked: np.ndarray, p_noise: np.ndarray, cells: list, low: list, high: list, received: np.ndarray) -> None:
    """Give each of F cells the best of ranked (F, C) that no cell from its low to its high - 1 has received.

    cells, low, high: F numbers of cells; the highest p_noise (F,) chooses first.
    """
    given = [0] * len(received)
    for number in (-p_noise).argsort(kind="stable").tolist():
        taken = given[low[number] : high[number]]
        for item in ranked[number]:
            if item == 0 or item not in taken:
                given[cells[number]] = int(item)
                break
    received[:] = given


def choose_once_a_user(ranked: np.ndarray, p_noise: np.ndarray, cells: list, users: list, received: np.ndarray) -> None:
    """Give each of F cells the best of ranked (F, C) that no other cell of its user has received. The most probable noise chooses first."""
    received_by_user = defaultdict(set)  # {user: items}
    for number in (-p_noise).argsort(kind="stable").tolist():
        for item in ranked[number].tolist():
            if item == 0:  # none is left
                break
            if item not in received_by_user[users[number]]:
                received[cells[number]] = item
                received_by_user[users[number]].add(item)
                break
