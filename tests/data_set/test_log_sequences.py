"""denoise_code/data_set/log/sequences.py: distinct interactions against a slow loop, windows against those of rows."""

import numpy as np
import pytest
from made_up_logs import rows_of

from denoise_code.data_set.interactions import build_data_set
from denoise_code.data_set.log.log import Log
from denoise_code.data_set.log.sequences import data_set_of_log, distinct_interactions, places_of, window_bounds


def random_log(seed, n_records=300, n_users=40, n_items=20, n_times=30):
    """Records in file order; many repeat another one."""
    rng = np.random.default_rng(seed)
    users, items, times = (rng.integers(count, size=n_records) for count in (n_users, n_items, n_times))
    used, items = np.unique(items, return_inverse=True)
    names, users = np.unique(users, return_inverse=True)
    return Log(
        users,
        items,
        times,
        titles=[f"title {item}" for item in used],
        rows=np.arange(n_records),
        user_keys=[f"u{name}" for name in names],
        item_keys=[f"i{item}" for item in used],
    )


@pytest.mark.parametrize("seed", range(5))
def test_each_interaction_counts_once(seed):
    log = random_log(seed, n_times=4)
    result = distinct_interactions(log)
    seen, n_duplicates = {}, 0
    for record, triple in enumerate(zip(log.users.tolist(), log.items.tolist(), log.times.tolist())):
        row = result.interaction_of_record[record]
        assert result.log.user_keys[result.log.users[row]] == log.user_keys[triple[0]]
        assert result.log.item_keys[result.log.items[row]] == log.item_keys[triple[1]]
        assert result.log.titles[result.log.items[row]] == log.titles[triple[1]]
        assert result.log.times[row] == triple[2] and result.log.rows[row] == seen.setdefault(triple, record)
        assert result.is_duplicate[record] == (seen[triple] != record)
        n_duplicates += seen[triple] != record
    assert n_duplicates >= 5 and len(result.log.users) == len(seen)
    by_user = [(user, time) for user, time in zip(result.log.users.tolist(), result.log.times.tolist())]
    assert by_user == sorted(by_user)


@pytest.mark.parametrize(("seed", "window"), [(0, 5), (1, 11), (2, 2)])
def test_windows_of_a_log_are_those_of_its_rows(seed, window):
    log = distinct_interactions(random_log(seed, n_records=120)).log
    data = data_set_of_log(log, window)
    first, last = window_bounds(log.users, window)
    places = places_of(log.users)
    lists = [log.items[head : tail + 1].tolist() for head, tail in zip(first, last)]
    users = [f"{log.users[head]:05}" for head in first]
    rows = rows_of(list(zip(users, log.times[last], lists)), places[first])
    expected = build_data_set(rows, {}, len(log.titles) - 1)
    in_windows = np.bincount(log.users)[log.users] > 1
    assert in_windows.sum() < len(in_windows)  # some users have one interaction
    for name in ("places", "items", "reach"):
        assert (getattr(data.interactions, name)[in_windows] == getattr(expected.interactions, name)).all(), name
    assert (data.interactions.in_train == in_windows).all()
    assert data.train.shape == expected.train.shape
    held = data.train >= 0
    assert (held == (expected.train >= 0)).all()
    assert (data.interactions.items[data.train[held]] == expected.interactions.items[expected.train[held]]).all()
    assert (data.interactions.places[data.train[held]] == expected.interactions.places[expected.train[held]]).all()
