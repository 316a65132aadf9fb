"""denoise_code/cleaning/continued.py by hand: numbers of old and new users and items, windows over both, what is refused."""

import numpy as np
import pytest

from denoise_code.cleaning.continued import continue_log
from denoise_code.common.errors import InputError
from denoise_code.data_set.log.log import Log


def old_log():
    """ann has a, b, c at 1, 2, 3; bob has a, d at 1, 5. As a folder keeps it."""
    return Log(
        users=np.array([1, 1, 1, 2, 2]),
        items=np.array([1, 2, 3, 1, 4]),
        times=np.array([1, 2, 3, 1, 5]),
        titles=["", "A", "B", "C", ""],
        rows=np.arange(5),
        user_keys=["", "ann", "bob"],
        item_keys=["", "a", "b", "c", "d"],
    )


def new_log(records, decimals=0):
    """Records (user, item, time) in file order, numbered as they first appear."""
    users, items, times = zip(*records)
    user_keys, item_keys = list(dict.fromkeys(users)), list(dict.fromkeys(items))
    return Log(
        users=np.array([user_keys.index(user) for user in users]),
        items=np.array([item_keys.index(item) for item in items]),
        times=np.array(times),
        titles=[f"new title of {key}" for key in item_keys],
        decimals=decimals,
        rows=np.arange(len(records)),
        user_keys=user_keys,
        item_keys=item_keys,
    )


def where(record):
    return f"new.csv:{record + 2}"


def test_new_records_stand_between_the_old_ones_of_their_users():
    records = [("eve", "x", 9), ("ann", "d", 2), ("ann", "x", 9), ("ann", "d", 2), ("eve", "a", 1)]
    continued = continue_log(old_log(), new_log(records), 3, where)
    log = continued.prepared.log
    assert log.user_keys == ["", "ann", "bob", "eve"] and log.item_keys == ["", "a", "b", "c", "d", "x"]
    assert log.titles == ["", "A", "B", "C", "", "new title of x"]  # an old item keeps the title it had
    rows = [(log.user_keys[user], log.item_keys[item], time, record) for user, item, time, record in
            zip(log.users, log.items, log.times.tolist(), log.rows.tolist())]  # fmt: skip
    assert rows == [  # bob has no new record; of equal times the old one comes first
        ("ann", "a", 1, -1), ("ann", "b", 2, -1), ("ann", "d", 2, 1), ("ann", "c", 3, -1), ("ann", "x", 9, 2),
        ("eve", "a", 1, 4), ("eve", "x", 9, 0),
    ]  # fmt: skip
    distinct = continued.prepared.distinct
    assert distinct.interaction_of_record.tolist() == [6, 2, 4, 2, 5]
    assert distinct.is_duplicate.tolist() == [False, False, False, True, False]
    data = continued.prepared.data
    assert data.train.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [-1, 5, 6]] and data.n_items == 5
    assert set(data.interactions.users.tolist()) == {0, 2}
    old = continued.old
    assert old.interactions.users.tolist() == [0, 0, 0, 1, 1] and old.n_items == 5
    assert continued.prepared.halves.shape == (2, 3) and len(continued.old_halving) == 2
    assert (continued.old_halving == old.interactions.halves(["ann", "bob"])[0]).all()


def test_times_of_more_digits():
    log = continue_log(old_log(), new_log([("bob", "b", 1050), ("bob", "c", 4999)], decimals=3), 3, where).prepared.log
    assert log.times.tolist() == [1000, 1050, 4999, 5000] and log.decimals == 3


def test_what_the_old_log_has_is_refused_by_its_line():
    with pytest.raises(InputError, match=r"^new.csv:3: .* already \(2 such\)$"):
        continue_log(old_log(), new_log([("ann", "a", 9), ("bob", "d", 5), ("ann", "c", 3)]), 3, where)
