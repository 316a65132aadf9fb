"""denoise_code/data_set/interactions.py: rows of any order as one table, and what of it may be learned from."""

import numpy as np
import pytest
from made_up_logs import random_logs, rows_of, sliding, split_by_time

from denoise_code.data_set.interactions import build_data_set, place_windows, train_pairs


def contents(data):
    """What a table holds, by names."""
    table = data.interactions
    columns = (table.user_names[table.users], table.places, table.items, table.reach)
    return list(zip(*(column.tolist() for column in columns)))


def test_the_table_and_its_windows_by_hand():
    train = rows_of([("b", 3, [1, 2, 3]), ("a", 5, [7, 8])], starts=[0, 0])
    test = rows_of([("b", 4, [2, 9, 5])], starts=[1], masks=[[0, 1, 0]])
    data = build_data_set(train, {"test": test}, 10)
    # a: places 0, 1. b: places 0..3; at place 2 the train row has 3 and the test row 9; nothing else holds the target.
    assert contents(data) == [
        ("a", 0, 7, 1),
        ("a", 1, 8, 1),
        ("b", 0, 1, 2),
        ("b", 1, 2, 2),
        ("b", 2, 3, 2),
        ("b", 3, 5, 2),
    ]
    assert data.train.tolist() == [[2, 3, 4], [-1, 0, 1]]
    assert data.train_items.tolist() == [[1, 2, 3], [0, 7, 8]]
    rows = data.evaluated["test"]
    assert rows.histories.tolist() == [[2, 9]] and rows.history_masks.tolist() == [[0, 1]]
    assert data.disagreements == 1
    assert data.interactions.in_train.tolist() == [True] * 5 + [False]


def test_a_longer_row_keeps_its_last_items():
    data = build_data_set(rows_of([("a", 0, [1, 2, 3, 4])], starts=[6], width=3), {}, 4)
    assert data.interactions.places.tolist() == [7, 8, 9] and data.interactions.items.tolist() == [2, 3, 4]


@pytest.mark.parametrize("seed", range(6))
def test_pairs_by_lags_are_those_of_the_train_windows(seed):
    """reach against a loop over windows, some of which are missing."""
    rng = np.random.default_rng(seed)
    rows, starts = sliding(random_logs(seed), width=6)
    kept = np.flatnonzero(rng.random(len(rows)) < 0.6)
    train = rows_of([rows[row] for row in kept], starts=[starts[row] for row in kept], width=6)
    rest = [row for row in range(len(rows)) if row not in set(kept)]
    test = rows_of([rows[row] for row in rest], starts=[starts[row] for row in rest], width=6)
    data = build_data_set(train, {"test": test}, 40)
    expected = set()
    for window in data.train.tolist():
        held = [row for row in window if row >= 0]
        expected |= {(a, b) for a in held for b in held if a < b}
    table = data.interactions
    earlier, later = np.triu_indices(len(table), 1)
    together = table.in_one_window(earlier, later)
    assert set(zip(earlier[together].tolist(), later[together].tolist())) == expected
    found = [(row, row + lag) for lag in range(1, 8) for row in train_pairs(table.users, table.places, table.reach, lag).tolist()]
    assert len(found) == len(set(found)) and set(found) == expected
    assert table.in_train.tolist() == [row in set(data.train.ravel().tolist()) for row in range(len(table))]


@pytest.mark.parametrize("seed", range(6))
def test_rows_without_starts_make_the_same_table_in_any_order(seed):
    """All windows of each user: their overlaps alone give what `start` gives."""
    rows, starts = sliding(random_logs(seed, n_items=1000), width=6)
    (train, train_starts), (test, test_starts) = split_by_time(rows, starts)
    given = build_data_set(rows_of(train, train_starts, width=6), {"test": rows_of(test, test_starts, width=6)}, 1000)
    for shuffle in range(3):
        rng = np.random.default_rng([seed, shuffle])
        train_order, test_order = rng.permutation(len(train)), rng.permutation(len(test))
        found = build_data_set(
            rows_of([train[row] for row in train_order], width=6),
            {"test": rows_of([test[row] for row in test_order], width=6)},
            1000,
        )
        assert contents(found) == contents(given)
        assert (found.train == given.train[train_order]).all()
        assert (found.evaluated["test"].histories == given.evaluated["test"].histories[test_order]).all()
        assert found.disagreements == 0


@pytest.mark.parametrize("seed", range(4))
def test_shuffled_rows_of_tied_times_and_repeated_items_make_the_same_table(seed):
    """Few items and one time for all: overlaps are ambiguous, but what comes out hangs on what the rows hold alone."""
    rows, _ = sliding(random_logs(seed, n_items=4), width=5)
    rows = [(user, 0, items) for user, _, items in rows]
    tables = set()
    for shuffle in range(4):
        order = np.random.default_rng([seed, shuffle]).permutation(len(rows))
        tables.add(tuple(contents(build_data_set(rows_of([rows[row] for row in order], width=5), {}, 4))))
    assert len(tables) == 1


def test_what_continues_nothing_stands_behind_a_gap():
    one, other = list(range(1, 7)), list(range(11, 17))
    rows = rows_of([("u", 2, other), ("u", 1, one), ("u", 3, [*other[2:], 21, 22])])
    data = build_data_set(rows, {}, 30)
    assert data.interactions.places.tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14]
    assert data.train[0].tolist() == [6, 7, 8, 9, 10, 11] and data.train[2].tolist() == [8, 9, 10, 11, 12, 13]
    table = data.interactions
    pairs = sum(len(train_pairs(table.users, table.places, table.reach, lag)) for lag in range(1, 9))
    assert pairs == 15 + 15 + (15 - 6)  # none across the gap; the last row shares four items, six pairs, with the one before


def test_an_overlap_of_less_than_half_is_chance():
    joined = place_windows([(1, 2, 3, 4), (3, 4, 5, 6)], [0, 1], [4, 4])
    apart = place_windows([(1, 2, 3, 4), (4, 5, 6, 7)], [0, 1], [4, 4])
    assert joined.tolist() == [0, 2] and apart.tolist() == [0, 5]


def test_an_overlap_against_the_time_is_chance():
    assert place_windows([(1, 2, 3, 4), (3, 4, 5, 6)], [1, 0], [4, 4]).tolist() == [5, 0]


def test_the_longest_overlap_is_joined_first():
    """By two items the last row continues the first, by three the second."""
    windows = [(1, 2, 8, 9), (5, 7, 8, 9), (7, 8, 9, 6)]
    assert place_windows(windows, [0, 1, 2], [4, 4, 4]).tolist() == [0, 5, 6]


def test_disagreements_are_counted():
    """The last row overlaps the second and contradicts the first, which counts less because it is later (REVIEW 10)."""
    rows = [("u", 2, list(range(1, 11))), ("u", 0, [3, 4, 5]), ("u", 1, [4, 5, 99])]
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        data = build_data_set(rows_of([rows[row] for row in order]), {}, 99)
        assert data.disagreements == 1 and data.interactions.items.tolist() == [1, 2, 3, 4, 5, 99, 7, 8, 9, 10]


@pytest.mark.parametrize("with_starts", [True, False])
def test_targets_of_evaluated_rows_place_nothing(with_starts):
    """With other targets all but the targets themselves is as it was."""
    rows, starts = sliding(random_logs(3, n_items=30), width=6)
    (train, train_starts), (test, test_starts) = split_by_time(rows, starts)
    built = []
    for targets in (lambda item: item, lambda item: 31 - item):
        changed = [(user, time, [*items[:-1], targets(items[-1])]) for user, time, items in test]
        built.append(
            build_data_set(
                rows_of(train, train_starts if with_starts else None, width=6),
                {"test": rows_of(changed, test_starts if with_starts else None, width=6)},
                30,
            )
        )
    one, other = built
    for name in ("users", "places", "reach"):
        assert (getattr(one.interactions, name) == getattr(other.interactions, name)).all()
    assert (one.train == other.train).all()
    assert (one.evaluated["test"].histories == other.evaluated["test"].histories).all()
    changed = one.interactions.items != other.interactions.items
    assert changed.any() and not (changed & one.interactions.in_train).any()


def test_released_rows_agree(released):
    """The authors' Toy rows: 5,000 of train, valid and test, without starts."""
    import json

    import pandas as pd

    def read(name):
        table = pd.read_csv(released / f"{name}.csv", dtype=str, keep_default_na=False)
        items = [json.loads(cell) for cell in table["item_ids"]]
        masks = [json.loads(cell) for cell in table["mask"]]
        return rows_of(list(zip(table["user_id"], table["timestamp"], items)), masks=masks)

    train, test = read("train_5000"), read("test_5000")
    data = build_data_set(train, {"valid": read("valid_5000"), "test": test}, 11_758)
    assert data.disagreements == RELEASED_DISAGREEMENTS
    assert (data.interactions.items[data.train[data.train >= 0]] == train.items[train.items != 0]).mean() > 0.999
    assert len(data.interactions) == RELEASED_INTERACTIONS


RELEASED_DISAGREEMENTS, RELEASED_INTERACTIONS = 0, 83_272
