"""denoise_code/evidence/unseen_items.py: noise may be an item that the log does not show."""

import numpy as np
import pytest
from made_up_logs import rows_of

from denoise_code.data_set.interactions import build_data_set
from denoise_code.evidence.calibration import plant, plant_in_histories
from denoise_code.evidence.cooccurrence import Collaborative, count
from denoise_code.evidence.unseen_items import unseen_items
from denoise_code.judging import judge_interactions


def data_of(logs, n_items):
    """One window a user."""
    return build_data_set(rows_of([(f"u{user}", 0, log) for user, log in enumerate(logs)], starts=[0] * len(logs)), {}, n_items)


def sparse_data(seed=0, users=400, n_items=3000, shown=None):
    """Users with eight items each, drawn uniformly from many: most items of the log have one user or two."""
    rng = np.random.default_rng(seed)
    logs = [rng.choice(n_items, size=8, replace=False) + 1 for _ in range(users)]
    names = np.unique(np.concatenate(logs))  # the catalogue of a log is what it shows
    return data_of([(np.searchsorted(names, log) + 1).tolist() for log in logs], len(names))


def test_chao_by_hand():
    """Items 1 to 4 have one user each, 5 and 6 two, 7 three (who has it twice is one), 8 has none."""
    data = data_of([[1, 2, 5, 7], [3, 5, 6, 7, 7], [4, 6, 7]], 8)
    unseen = unseen_items(data)
    missing = 4 * 3 / (2 * 3) - 1
    assert unseen.originals.tolist() == [1, 2, 3, 4] and unseen.share == pytest.approx(missing / (missing + 8))
    assert unseen.n_items_and_stand_ins == 12
    assert unseen.originals_of(np.array([[1, 8], [9, 12]])).tolist() == [[1, 8], [1, 4]]
    assert unseen.with_stand_ins(np.arange(9) * 10).tolist() == [0, 10, 20, 30, 40, 50, 60, 70, 80, 10, 20, 30, 40]


def test_nothing_is_unseen_where_every_item_has_several_users():
    data = data_of([[1, 2, 3], [1, 2, 3], [3, 2, 1]], 3)
    unseen = unseen_items(data)
    assert unseen.share == 0 and unseen.n_items_and_stand_ins == 3 and len(unseen.originals) == 0
    assert set(unseen.draw(100, np.random.default_rng(0)).tolist()) == {1, 2, 3}


def test_the_share_of_what_is_unseen_is_about_right():
    """Of 3,000 items the log shows some two thirds."""
    data = sparse_data()
    share = unseen_items(data).share
    assert share == pytest.approx(1 - data.n_items / 3000, abs=0.05) and 0.25 < share < 0.45


def test_planted_items_are_had_by_others_as_often_as_those_of_the_log():
    """Where all items are as likely as any, how many others have one tells nothing. Without what is unseen it would: no planted item would
    be had by nobody."""
    data = sparse_data()
    unseen = unseen_items(data)
    counts = count(data.interactions, unseen.n_items_and_stand_ins, 8)
    planted = plant(data, counts, unseen, 3000, 0.0, np.random.default_rng(0))
    of_planted = counts.items_of_others(data.interactions.users[planted.rows], planted.items)
    of_log = counts.items_of_others(data.interactions.users, data.interactions.items)
    for others in range(4):
        assert (of_planted == others).mean() == pytest.approx((of_log == others).mean(), abs=0.03), others
    popular = plant(data, counts, unseen, 3000, 1.0, np.random.default_rng(0))
    of_popular = counts.items_of_others(data.interactions.users[popular.rows], popular.items)
    assert of_popular.mean() == pytest.approx(of_log.mean(), rel=0.05)


def test_a_stand_in_stands_in_no_window_of_its_original():
    data = data_of([[1, 2, 3, 4], [1, 2, 5, 6], [1, 2, 7, 8]], 8)
    unseen = unseen_items(data)
    assert unseen.originals.tolist() == [3, 4, 5, 6, 7, 8] and unseen.share > 0.5
    counts = count(data.interactions, unseen.n_items_and_stand_ins, 4)
    planted = plant(data, counts, unseen, 200, 0.5, np.random.default_rng(0))
    users, histories, _, in_histories = plant_in_histories(data, unseen, 200, np.random.default_rng(0))
    assert (planted.items > 8).any() and (in_histories > 8).any()
    held = [set(data.interactions.items[data.interactions.users == user].tolist()) for user in range(3)]
    for row, item in zip(planted.rows.tolist(), unseen.originals_of(planted.items).tolist()):
        assert item not in held[data.interactions.users[row]]
    for history, item in zip(histories.tolist(), unseen.originals_of(in_histories).tolist()):
        assert item not in history
    of_planted = Collaborative(counts).of_interactions(data, planted)[1]
    assert (of_planted[planted.items > 8][:, [0, 2]] == 0).all()  # nobody has it, nor with anything
    assert (of_planted[planted.items <= 2][:, 2] < 0).all()


@pytest.mark.usefixtures("quick_evidence")
def test_an_item_that_nobody_else_has_is_neither_cleared_nor_condemned():
    """A log of uniform draws has nothing to tell by: P(noise) is the share that is taken, whoever has the item."""
    data = sparse_data(users=600)
    judged = judge_interactions(data, None, None, data.interactions.halvings(), seed=0)
    counts = count(data.interactions, data.n_items, 8)
    others = counts.items_of_others(data.interactions.users, data.interactions.items)
    by_others = [float(np.exp(judged.train["collaborative"][others == number]).mean()) for number in range(3)]
    assert by_others == pytest.approx([1, 1, 1], abs=0.3)
