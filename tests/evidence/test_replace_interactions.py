"""denoise_code/replacement.py: one replacement for an interaction, from what other users have beside it."""

import numpy as np
import pytest
from made_up_logs import GROUPS, grouped_data, is_noise, some_windows, title_vectors

from denoise_code import replacement
from denoise_code.evidence import cooccurrence
from denoise_code.evidence.features import TrainWindows
from denoise_code.replacement import choose_in_turn, context_of_histories, context_of_interactions


def fitted(data, vectors=None):
    return replacement.fit_ranker(data, vectors, data.interactions.halvings()[0])


def some_noise(data, seed=0):
    """P(noise) (n,), NaN where no train window holds an interaction."""
    noise = np.random.default_rng(seed).random(len(data.interactions))
    return np.where(data.interactions.in_train, noise, np.nan)


@pytest.fixture(scope="module")
def data():
    return grouped_data(users=80)


@pytest.mark.parametrize("seed", range(3))
def test_what_a_replacement_is_chosen_by(seed):
    """Shares of windows that hold both, against a loop over windows."""
    data = some_windows(seed)
    rows = np.flatnonzero(data.interactions.in_train)
    noise = some_noise(data)
    context = context_of_interactions(data, TrainWindows(data.train), rows, noise)
    windows = [[row for row in window if row >= 0] for window in data.train.tolist()]
    for number, row in enumerate(rows.tolist()):
        holding = [window for window in windows if row in window]
        expected = []
        for other in sorted({other for window in holding for other in window} - {row}):
            share = sum(other in window for window in holding) / len(holding)
            expected.append((int(data.interactions.items[other]), round(share, 5), round(1 - noise[other], 5)))
        found = zip(context.others[number].tolist(), context.shares[number].tolist(), context.trust[number].tolist())
        found = sorted((item, round(share, 5), round(trust, 5)) for item, share, trust in found if item)
        assert np.array(found) == pytest.approx(np.array(sorted(expected)), abs=1e-4)
        held = {int(data.interactions.items[other]) for window in holding for other in window}
        assert set(context.banned[number].tolist()) - {0} == held


def test_the_context_of_a_history_is_the_history():
    histories, noise = np.array([[0, 3, 4, 5]]), np.array([[np.nan, 0.5, 0.25, 0]])
    context = context_of_histories(np.array([7]), histories, noise, np.array([0, 0]), np.array([1, 3]))
    assert [sorted(zip(*pair)) for pair in zip(context.others.tolist(), context.trust.tolist())] == [
        [(0, 0), (4, 0.75), (5, 1)],
        [(0, 0), (3, 0.5), (4, 0.75)],
    ]
    assert context.banned.tolist() == [[0, 3, 4, 5]] * 2 and context.users.tolist() == [7, 7]


def slow_scores(ranker, context, number):
    """{item: score} of all items by the formulas in words."""
    counts, user = ranker.counts, context.users[number]
    scores = {}
    others = [
        (item, share, trust)
        for item, share, trust in zip(*(part[number] for part in (context.others, context.shares, context.trust)))
        if item
    ]
    for item in range(1, counts.n_items + 1):
        single = counts.items_of_others(np.array([user]), np.array([item]))[0]
        lift = 0.0
        for other, share, trust in others:
            cells = np.array([item, other])
            lift += share * trust * counts.lift(np.array([user, user]), cells, np.array([0]), np.array([1]))[0]
        features = [lift, np.log1p(single)]
        if ranker.vectors is not None:
            table = ranker.vectors.astype(np.float32)
            cosines = [table[item] @ table[other] for other, _, _ in others]
            weights = [share * trust for _, share, trust in others]
            features += [
                max(cosine * trust for cosine, (_, _, trust) in zip(cosines, others)),
                np.dot(cosines, weights) / sum(weights),
            ]
        scores[item] = float(np.dot(features, ranker.weights))
    return scores


@pytest.mark.parametrize("with_titles", [False, True])
def test_ranking_is_that_of_a_slow_version(data, with_titles):
    ranker = fitted(data, title_vectors() if with_titles else None).ranker
    rows = np.flatnonzero(data.interactions.in_train)[::37]
    context = context_of_interactions(data, TrainWindows(data.train), rows, some_noise(data))
    ranked = ranker.rank(context)
    for number in range(len(rows)):
        scores = slow_scores(ranker, context, number)
        items = [item for item in ranked[number].tolist() if item]
        found = [scores[item] for item in items]
        assert found == pytest.approx(sorted(found, reverse=True), abs=1e-3)
        assert len(set(items)) == len(items) > 10 and not set(items) & set(context.banned[number].tolist())
        assert not ranked[number, len(items) :].any()


def test_the_fitted_weights_find_what_was_held_out(data):
    """Items of the user's group are right; popularity alone would have one in sixty."""
    for vectors in (None, title_vectors()):
        found = fitted(data, vectors)
        assert list(found.coefficients) == list(replacement.COLUMNS[: 2 if vectors is None else 4])
        assert found.coefficients["co-occurrence"] > 0 and found.held_out["among ten"] > 0.4


@pytest.mark.parametrize("with_titles", [False, True])
def test_in_a_log_of_ones_own_a_replacement_is_new_to_its_user(data, with_titles):
    """No item that the user has anywhere, and none twice; what has one has the best that is left."""
    table = data.interactions
    ranker = fitted(data, title_vectors() if with_titles else None).ranker
    p_noise = some_noise(data)
    received = replacement.replace_interactions(data, ranker, p_noise, new_to_user=True)
    own = {user: set(table.items[table.users == user].tolist()) for user in np.unique(table.users).tolist()}
    for user in own:
        given = received[(table.users == user) & (received != 0)].tolist()
        assert not own[user] & set(given) and len(set(given)) == len(given)
    with_one = (received != 0)[table.in_train]
    assert 0.9 < with_one.mean() <= 1
    # The most probable noise has the first of its ranking that the user does not have.
    first = int(np.flatnonzero(table.in_train)[p_noise[table.in_train].argmax()])
    context = context_of_interactions(data, TrainWindows(data.train), np.array([first]), p_noise)
    ranked = ranker.rank(context)[0].tolist()
    assert received[first] == next(item for item in ranked if item not in own[int(table.users[first])])


def test_one_replacement_for_an_interaction_and_none_twice_within_a_window(data):
    noise = some_noise(data)
    ranker = fitted(data).ranker
    received = replacement.replace_interactions(data, ranker, noise)
    table = data.interactions
    assert (received[table.in_train] > 0).mean() > 0.95 and not received[~table.in_train].any()
    for window in data.train.tolist():
        given = [int(received[row]) for row in window if row >= 0 and received[row]]
        assert len(set(given)) == len(given)
        assert not set(given) & set(table.items[window].tolist())
    best = ranker.rank(context_of_interactions(data, TrainWindows(data.train), np.arange(len(table))[table.in_train], noise))[
        :, 0
    ]
    highest = np.nanargmax(noise)  # the first to choose has its best
    assert received[highest] == best[np.flatnonzero(table.in_train).tolist().index(highest)]
    few = replacement.replace_interactions(data, ranker, noise, least=0.9)
    assert ((few > 0) == (np.nan_to_num(noise) >= 0.9)).mean() > 0.99


def test_one_replacement_for_a_place_of_a_history(data):
    test = data.evaluated["test"]
    noise = np.where(test.histories != 0, np.random.default_rng(0).random(test.histories.shape), np.nan)
    received = replacement.replace_in_histories(data, "test", fitted(data).ranker, noise)
    for history, given in zip(test.histories.tolist(), received.tolist()):
        items = [item for item in given if item]
        assert len(set(items)) == len(items) > 0 and not set(items) & set(history)
        assert all(item == 0 for item, held in zip(given, history) if held == 0)


def test_noise_beside_an_interaction_counts_less():
    """With all others certain noise but those of one group the replacement is of that group."""
    data = grouped_data(users=120, noise=0.4)
    table = data.interactions
    noise = is_noise(data, users=120, noise=0.4)
    true_noise = np.where(table.in_train, noise * 1.0, np.nan)
    ranker = fitted(data).ranker
    told, untold = (replacement.replace_interactions(data, ranker, noise) for noise in (true_noise, true_noise * 0))
    replaced = table.in_train & noise
    groups = (table.items - 1) % GROUPS
    own = np.array([np.bincount(groups[(table.users == user) & ~noise]).argmax() for user in range(120)])
    right = [((received - 1) % GROUPS == own[table.users])[replaced].mean() for received in (told, untold)]
    assert right[0] > right[1] > 0.5


def test_the_most_probable_noise_chooses_first():
    ranked = np.array([[5, 6, 7], [5, 6, 0], [5, 0, 0]])
    received = np.zeros(3, dtype=np.int64)
    choose_in_turn(ranked, np.array([0.1, 0.9, 0.2]), [0, 1, 2], [0, 0, 1], [2, 3, 3], received)
    assert received.tolist() == [6, 5, 0]  # the third is beside the second, whose 5 was its only one


def test_targets_and_truth_change_no_replacement(data):
    noise = some_noise(data)
    test = data.evaluated["test"]
    in_test = np.where(test.histories != 0, 0.5, np.nan)
    results = []
    for changed in (data, grouped_data(users=80, change_targets=True), grouped_data(users=80, change_truth=True)):
        ranker = fitted(changed, title_vectors()).ranker
        parts = (
            replacement.replace_interactions(changed, ranker, noise),
            replacement.replace_in_histories(changed, "test", ranker, in_test),
        )
        results.append(b"".join(part.tobytes() for part in parts))
    assert results[0] == results[1] == results[2]


def test_neighbours_by_counts_by_hand():
    data = some_windows(2)
    counts = cooccurrence.count(data.interactions, 15, 5)
    table = replacement.neighbours_by_counts(counts).toarray()
    assert (table == table.T).all() and not table.diagonal().any() and (table >= 0).all()
    for a in range(1, 16):
        for b in range(a + 1, 16):
            lift = np.log1p(counts.pairs[a, b]) - np.log1p(counts.expected(counts.item_counts[a], counts.item_counts[b]))
            assert table[a, b] == pytest.approx(max(lift, 0), abs=1e-5)


def test_neighbours_by_titles_against_all_pairs(monkeypatch):
    """In chunks of a few rows; an item is no neighbour of itself, nor is padding."""
    monkeypatch.setattr(replacement, "NEIGHBOURS", 4)
    monkeypatch.setattr(replacement, "CHUNK_BYTES", 2 * 4 * 31 * 7)  # seven rows
    vectors = np.random.default_rng(0).normal(size=(31, 8)).astype(np.float32)
    vectors[0] = 0
    table = replacement.neighbours_by_titles(vectors).toarray()
    similar = vectors @ vectors.T
    for item in range(1, 31):
        others = [other for other in range(1, 31) if other != item]
        nearest = sorted(others, key=lambda other: -similar[item, other])[:4]
        assert np.flatnonzero(table[item]).tolist() == sorted(nearest)
        np.testing.assert_allclose(table[item, nearest], similar[item, nearest], rtol=1e-5)
    assert not table[0].any()


def test_too_few_rows_to_replace_from():
    few = grouped_data(users=1)
    with pytest.raises(replacement.NothingToReplaceFrom):
        replacement.fit_ranker(few, None, np.ones(1, dtype=np.int64))
