"""denoise_code/cleaning/continued.py by hand: numbers of old and new users and items, windows over both, what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from denoise_code.cleaning import continued
from denoise_code.cleaning.continued import Taught, continue_log
from denoise_code.cleaning.judges import JudgeLike, Settings, continue_cleaned_log
from denoise_code.common.errors import InputError
from denoise_code.data_set.log.log import Log
from denoise_code.data_set.log.stored_log import write_interactions, write_keys


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
    both = continue_log(old_log(), new_log(records), 3, where, in_order=False)
    log = both.prepared.log
    assert log.user_keys == ["", "ann", "bob", "eve"] and log.item_keys == ["", "a", "b", "c", "d", "x"]
    assert log.titles == ["", "A", "B", "C", "new title of d", "new title of x"]  # an old item keeps the title it had, if any
    rows = [(log.user_keys[user], log.item_keys[item], time, record) for user, item, time, record in
            zip(log.users, log.items, log.times.tolist(), log.rows.tolist())]  # fmt: skip
    assert rows == [  # bob has no new record; of equal times the old one comes first
        ("ann", "a", 1, -1), ("ann", "b", 2, -1), ("ann", "d", 2, 1), ("ann", "c", 3, -1), ("ann", "x", 9, 2),
        ("eve", "a", 1, 4), ("eve", "x", 9, 0),
    ]  # fmt: skip
    distinct = both.prepared.distinct
    assert distinct.interaction_of_record.tolist() == [6, 2, 4, 2, 5]
    assert distinct.is_duplicate.tolist() == [False, False, False, True, False]
    data = both.prepared.data
    assert data.train.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [-1, 5, 6]] and data.n_items == 5
    assert set(data.interactions.users.tolist()) == {0, 2}
    old = both.old
    assert old.interactions.users.tolist() == [0, 0, 0, 1, 1] and old.n_items == 5
    assert both.prepared.halvings.shape == (2, 3)
    assert (both.prepared.halvings[0, :2] == old.interactions.halvings(["ann", "bob"])[0]).all()


def test_times_of_more_digits():
    new = new_log([("bob", "b", 1050), ("bob", "c", 4999)], decimals=3)
    log = continue_log(old_log(), new, 3, where, in_order=False).prepared.log
    assert log.times.tolist() == [1000, 1050, 4999, 5000] and log.decimals == 3


@pytest.mark.parametrize("sign", [1, -1])
def test_times_that_64_bits_do_not_hold_together_are_refused(sign):
    """Milliseconds in the old log, seconds with nine decimals in the new one."""
    old = replace(old_log(), times=sign * np.array([1, 2, 3, 4, 9_999_999_999_999]))
    new = new_log([("bob", "b", 1_800_000_000_123_456_789)], decimals=9)
    message = r"^new.csv:2: the times here \(up to 1800000000, 9 decimals\) and those .* \(up to 9999999999999, 0 decimals\)"
    with pytest.raises(InputError, match=message):
        continue_log(old, new, 3, where, in_order=False)


def write_folder(folder, log):
    """What --like reads of the folder of a log before anything is judged."""
    write_interactions(folder / "interactions.csv", log, log.items, np.zeros(len(log.items)))
    write_keys(folder / "users.csv", folder / "items.csv", log)
    (folder / "run.json").write_text('{"times_are_dates": false}')
    return folder


def judge_like(folder, log, in_order):
    continued_log = continue_cleaned_log(folder, log, 3, where, in_order)
    return JudgeLike(folder / "out", Settings(3, 0.1, None, 0), folder, None, continued_log)


def test_without_times_new_records_follow_the_old_ones(tmp_path):
    """Both logs number their records from 0; a new record may be what an old one of the same number was."""
    old = replace(old_log(), times=np.array([0, 1, 2, 3, 4]))
    new = new_log([("ann", "a", 0), ("bob", "x", 1), ("ann", "a", 2)])
    log = judge_like(write_folder(tmp_path, old), new, in_order=True).prepared.log
    assert [log.item_keys[item] for item in log.items] == ["a", "b", "c", "a", "a", "a", "d", "x"]
    assert log.rows.tolist() == [-1, -1, -1, 0, 2, -1, -1, 1]


def test_users_of_items_are_counted_over_old_and_new_interactions(tmp_path):
    """Of an old user and a new one, of a user who has it in both, of a user without new interactions, of items new to both."""
    new = new_log([("eve", "b", 9), ("ann", "c", 9), ("ann", "x", 9), ("eve", "x", 10), ("eve", "y", 11)])
    judge = judge_like(write_folder(tmp_path, old_log()), new, in_order=False)
    expected = {"a": 2, "b": 2, "c": 1, "d": 1, "x": 2, "y": 1}
    assert dict(zip(judge.prepared.log.item_keys[1:], judge.users_of_item()[1:].tolist())) == expected


@pytest.mark.parametrize("reads_titles", [False, True])
def test_an_item_without_a_title_is_replaced_by_the_probability_that_is_shown(monkeypatch, reads_titles):
    """By co-occurrence alone where titles are read: in a large log, what is shown as noise gets a replacement."""
    continued_log = continue_log(
        old_log(), new_log([("bob", "b", 6)]), 3, where, in_order=False
    )  # bob has a, d without a title, b
    r_by_kind = {"collaborative": np.array([0.0, 1, 2]), "fused": np.array([-5.0, -6, -7])}
    asked = []
    monkeypatch.setattr(continued, "apply_learned", lambda *_: r_by_kind)
    monkeypatch.setattr(continued, "replace_interactions", lambda data, *what, new_to_user: asked.append((*what, new_to_user)))
    vectors = np.zeros((5, 2)) if reads_titles else None
    weights = [0.5, 0.25, 1.0, 2.0][: 4 if reads_titles else 2]
    continued.judge_continued(continued_log, Taught(None, None, np.array(weights), 0.1), vectors)
    ((ranker, p_noise, least, new_to_user),) = asked
    assert np.allclose(p_noise, 0.1 * np.exp([-5, 1, -7] if reads_titles else [-5, -6, -7]))
    assert ranker.weights.tolist() == weights  # those that the old log taught
    assert least == 0 and new_to_user


def test_what_the_old_log_has_is_refused_by_its_line():
    with pytest.raises(InputError, match=r"^new.csv:3: .* already \(2 such\)$"):
        continue_log(old_log(), new_log([("ann", "a", 9), ("bob", "d", 5), ("ann", "c", 3)]), 3, where, in_order=False)
