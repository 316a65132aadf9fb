"""denoise_code/evidence: counts and features against loops over windows, whatever windows there are."""

import numpy as np
import pytest
from made_up_logs import nothing_unseen, rows_of, some_windows

from denoise_code.data_set.interactions import build_data_set
from denoise_code.evidence.calibration import plant
from denoise_code.evidence.cooccurrence import Collaborative, count
from denoise_code.evidence.features import Planted, WindowKind
from denoise_code.evidence.title_similarity import Semantic

N_ITEMS = 15


def windows_of(data):
    """[(user, row numbers)] of the train windows."""
    rows = [[row for row in window if row >= 0] for window in data.train.tolist()]
    return [(int(data.interactions.users[window[0]]), window) for window in rows]


def slow_counts(data, user):
    """{item: count}, {(smaller, larger): count} of interactions that train windows of other users hold, each pair once."""
    items, singles, pairs = data.interactions.items, {}, {}
    rows = {row for owner, window in windows_of(data) for row in window if owner != user}
    together = {(a, b) for owner, window in windows_of(data) for a in window for b in window if a < b and owner != user}
    for row in rows:
        singles[items[row]] = singles.get(items[row], 0) + 1
    for a, b in together:
        key = tuple(sorted((items[a], items[b])))
        pairs[key] = pairs.get(key, 0) + 1
    return singles, pairs


@pytest.mark.parametrize("seed", range(8))
def test_counts_by_lags_are_those_of_the_windows(seed, monkeypatch):
    monkeypatch.setattr("denoise_code.evidence.cooccurrence.PAIRS_AT_ONCE", [2**25, 10][seed % 2])  # in one go, in many
    data = some_windows(seed)
    counts = count(data.interactions, N_ITEMS, 5)
    items = np.tile(np.arange(1, N_ITEMS + 1), 1)
    first, second = (part.ravel() for part in np.meshgrid(np.arange(N_ITEMS), np.arange(N_ITEMS)))
    for user in [*range(len(data.interactions.user_names)), 99]:  # the last has no train row
        singles, pairs = slow_counts(data, user)
        users = np.full(N_ITEMS, user)
        assert counts.items_of_others(users, items).tolist() == [singles.get(item, 0) for item in items]
        expected = [pairs.get(tuple(sorted((items[a], items[b]))), 0) for a, b in zip(first, second)]
        assert counts.pairs_of_others(users, items, first, second).tolist() == expected
    assert counts.n_pairs == sum(slow_counts(data, -1)[1].values())


def test_counts_of_several_users_at_once():
    """The users asked for need not follow each other in the table."""
    data = some_windows(3)
    counts = count(data.interactions, N_ITEMS, 5)
    items = np.array([1, 2, 3, 4, 5, 6] * 3)
    users = np.repeat([7, 0, 4], 6)
    first, second = np.array([0, 1, 6, 7, 12, 13]), np.array([3, 4, 9, 10, 15, 16])
    asked = counts.pairs_of_others(users, items, first, second)
    single = [
        counts.pairs_of_others(users[[a, b]], items[[a, b]], np.array([0]), np.array([1]))[0] for a, b in zip(first, second)
    ]
    assert asked.tolist() == single


def test_counts_of_half_the_users():
    data = some_windows(5)
    kept = np.arange(len(data.interactions.user_names)) % 2 == 0
    counts = count(data.interactions, N_ITEMS, 5, users=kept)
    rows = {row for owner, window in windows_of(data) for row in window if kept[owner]}
    assert counts.item_counts.tolist() == np.bincount(data.interactions.items[sorted(rows)], minlength=N_ITEMS + 1).tolist()


def slow_features(counts, user, items):
    """[(co-occurrence, co-occurrence of the rest, rarity)] of a window, by the formulas in words."""

    def lift(a, b):
        cells = np.array([items[a], items[b]])
        together = counts.pairs_of_others(np.full(2, user), cells, np.array([0]), np.array([1]))[0]
        single = counts.items_of_others(np.full(2, user), cells)
        expected = single[0] * single[1] * 2 * counts.n_pairs / len(counts.items) ** 2
        return np.log((together + 1) / (expected + 1))

    result = []
    for place in range(len(items)):
        others = [other for other in range(len(items)) if other != place]
        own = [lift(place, other) for other in others]
        rest = [lift(a, b) for a in others for b in others if a < b]
        single = counts.items_of_others(np.array([user]), np.array([items[place]]))[0]
        result.append([np.mean(own) if own else 0, np.mean(rest) if rest else 0, -np.log(single + 1)])
    return np.array(result)


def slow_pooled(data, counts, row, item=None):
    """Means over the windows that hold a row, `item` standing there."""
    found = []
    for user, window in windows_of(data):
        if row in window:
            items = [item if item and other == row else int(data.interactions.items[other]) for other in window]
            found.append(slow_features(counts, user, items)[window.index(row)])
    return np.mean(found, axis=0) if found else np.full(3, np.nan)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("chunk_bytes", [2**28, 1])
def test_collaborative_features_are_means_over_windows(seed, chunk_bytes):
    data = some_windows(seed)
    counts = count(data.interactions, N_ITEMS, 5)
    kind = Collaborative(counts)
    kind.chunk_bytes = chunk_bytes
    planted = plant(data, counts, nothing_unseen(N_ITEMS), 30, 0.5, np.random.default_rng(seed))
    of_log, of_planted = kind.of_interactions(data, planted)
    assert of_log.dtype == of_planted.dtype == np.float32
    for row in range(len(data.interactions)):
        assert of_log[row] == pytest.approx(slow_pooled(data, counts, row), abs=1e-4, nan_ok=True)
    for number, (row, item) in enumerate(zip(planted.rows.tolist(), planted.items.tolist())):
        assert of_planted[number] == pytest.approx(slow_pooled(data, counts, row, item), abs=1e-4)
    test = data.evaluated["test"]
    of_histories = kind.of_histories(data, "test")
    for row, (user, history) in enumerate(zip(test.users.tolist(), test.histories.tolist())):
        items = [item for item in history if item]
        assert np.isnan(of_histories[row, : len(history) - len(items)]).all()
        assert of_histories[row, len(history) - len(items) :] == pytest.approx(slow_features(counts, user, items), abs=1e-4)


def circle(n_items=N_ITEMS):
    """(2, n_items + 1, 4) vectors of length 1, different for the two halves."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2, n_items + 1, 4))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    vectors[:, 0] = 0
    return vectors.astype(np.float16)


@pytest.mark.parametrize("seed", range(3))
def test_semantic_features_by_lags_are_those_of_whole_windows(seed):
    """A kind that compares pairs says the same as a function of whole windows that is averaged: of log, planted ones and histories."""
    data = some_windows(seed)
    halving = data.interactions.halvings()[0]
    assert set(halving.tolist()) == {0, 1}
    kind = Semantic(circle(), halving)

    def features_of_windows(users, items):
        table = kind.vectors[halving[users]].astype(np.float32)
        result = np.zeros((*items.shape, 3))
        for row, window in enumerate(items):
            held = np.flatnonzero(window)
            for place in held:
                others = [other for other in held if other != place]
                own = [table[row, window[place]] @ table[row, window[other]] for other in others]
                rest = [table[row, window[a]] @ table[row, window[b]] for a in others for b in others if a < b]
                result[row, place] = [max(own, default=0), np.mean(own) if own else 0, np.mean(rest) if rest else 0]
        return result

    slow = WindowKind(kind.columns, features_of_windows)
    slow.at_once = 7
    rows = np.flatnonzero(data.interactions.in_train)
    planted = Planted(np.r_[rows, rows[:5]][::-1], np.random.default_rng(seed).integers(1, N_ITEMS + 1, len(rows) + 5))
    for fast_part, slow_part in zip(kind.of_interactions(data, planted), slow.of_interactions(data, planted)):
        assert fast_part == pytest.approx(slow_part, abs=1e-3, nan_ok=True)
    assert kind.of_histories(data, "test") == pytest.approx(slow.of_histories(data, "test"), abs=1e-3, nan_ok=True)


def test_a_user_alone_has_no_evidence():
    """All that a user's own windows say of themselves is left out."""
    data = build_data_set(rows_of([("u", 0, [1, 2, 3]), ("u", 1, [2, 3, 1])], starts=[0, 1]), {}, 3)
    counts = count(data.interactions, 3, 3)
    of_log, _ = Collaborative(counts).of_interactions(data, Planted(np.zeros(0, int), np.zeros(0, int)))
    assert counts.n_pairs == 5 and not of_log.any()  # places 0..3 less the pair (0, 3)
