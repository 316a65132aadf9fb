"""denoise_code/evidence/detector.py: it learns to mark what was planted, from other users, and nothing where there is nothing."""

import dataclasses

import numpy as np
import pytest
import torch
from made_up_logs import N_ITEMS, WIDTH, grouped_data, grouped_logs, rows_of, sliding, title_vectors

from denoise_code.data_set.interactions import build_data_set
from denoise_code.evidence import detector
from denoise_code.evidence.detection import auc
from denoise_code.evidence.detector import (
    DetectorSettings,
    detector_kind,
    learn_detector,
    learn_detectors,
    plant_items,
    planted_log_odds,
)

SETTINGS = DetectorSettings(width=32, layers=1, heads=2, dropout=0.1, steps=300, batch_size=64)
FEW_STEPS = dataclasses.replace(SETTINGS, steps=5)


def windows_of(seed, users=100, noise=0.0, width=WIDTH, length=20):
    """(N, W) items of the sliding windows of users who want one of four groups."""
    logs, _ = grouped_logs(seed, users=users, noise=noise, length=length)
    return np.array([items for _, _, items in sliding(logs, width)[0]])


def planted_in(windows, seed=0):
    """Windows with planted items, uniformly drawn, and where they stand."""
    rng = np.random.default_rng(seed)
    truth = rng.random(windows.shape) < 0.12
    return np.where(truth, rng.integers(1, N_ITEMS + 1, windows.shape), windows), truth


def auc_of_planted(learned, seed=9):
    """On users whom it never saw."""
    windows, truth = planted_in(windows_of(seed))
    return auc(truth.ravel(), planted_log_odds(learned, windows).ravel())


@pytest.mark.parametrize("vectors", [None, title_vectors()], ids=["items", "titles"])
def test_it_finds_what_was_planted_among_other_users(vectors):
    """A quarter of what is planted is of the same group by chance: 0.875 is the most there is."""
    learned = learn_detector(windows_of(0), N_ITEMS, vectors, SETTINGS)
    assert auc_of_planted(learned) > 0.75


def test_labels_at_random_teach_nothing(monkeypatch):
    """Nothing is planted, and any place is called so: what then is found would be found in any log."""

    def mark_at_random(windows, pools, settings, rng):
        return windows, (torch.rand(windows.shape, generator=rng) < settings.planted_share) & (windows != 0)

    monkeypatch.setattr(detector, "plant_items", mark_at_random)
    found = [auc_of_planted(learn_detector(windows_of(0), N_ITEMS, title_vectors(), SETTINGS, seed)) for seed in range(3)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)


def test_titles_tell_of_items_that_were_never_seen():
    """Items of the last third of the catalogue stand in no window that was learned from."""
    windows = windows_of(0)
    seen = np.where(windows > 40, windows - 20, windows)  # 20 is a multiple of the number of groups
    evaluated, truth = planted_in(windows_of(9))
    unseen = evaluated > 40
    found = []
    for vectors in (title_vectors(), None):
        log_odds = planted_log_odds(learn_detector(seen, N_ITEMS, vectors, SETTINGS), evaluated)
        found.append(auc(truth[unseen], log_odds[unseen]))
    assert found[0] > 0.75 and found[0] > found[1] + 0.1


def test_the_same_bytes_at_each_run():
    vectors, evaluated = title_vectors(), windows_of(3, users=10)
    first, again, other = (
        planted_log_odds(learn_detector(windows_of(0, users=20), N_ITEMS, vectors, FEW_STEPS, seed), evaluated)
        for seed in (0, 0, 1)
    )
    assert first.dtype == np.float32 and first.tobytes() == again.tobytes() != other.tobytes()


@pytest.mark.parametrize("width", [2, 60])
def test_windows_of_any_length(monkeypatch, width):
    """One place left of the first item is padding: it has no log-odds, and none of its kind changes those of others."""
    windows = windows_of(0, users=12, width=width, length=62)
    windows[0, 0] = 0
    learned = learn_detector(windows, N_ITEMS, title_vectors(), FEW_STEPS)
    log_odds = planted_log_odds(learned, windows)
    assert log_odds.shape == windows.shape and (np.isnan(log_odds) == (windows == 0)).all() and np.isnan(log_odds).sum() == 1
    wider = np.pad(windows, ((0, 0), (5, 0)))
    assert planted_log_odds(learned, wider)[:, 5:] == pytest.approx(log_odds, abs=1e-5, nan_ok=True)
    monkeypatch.setattr(detector, "PLACES_AT_ONCE", width)
    assert planted_log_odds(learned, windows) == pytest.approx(log_odds, abs=1e-5, nan_ok=True)


def test_an_item_twice_in_the_catalogue_of_one():
    """Where every drawn item is in the window already, nothing is planted, and learning goes on."""
    learned = learn_detector(np.ones((5, 3), dtype=np.int64), 1, None, FEW_STEPS)
    assert np.isfinite(planted_log_odds(learned, np.ones((2, 3), dtype=np.int64))).all()


def test_planting_by_the_settings():
    windows = torch.from_numpy(windows_of(0))
    windows[:50, :2] = 0
    pools = (torch.tensor([7, 50]), torch.tensor([3]))  # uniform, by popularity
    settings = DetectorSettings(planted_share=0.3, planted_by_popularity=0.25)
    noisy, planted = plant_items(windows, pools, settings, torch.Generator().manual_seed(0))
    assert not planted[windows == 0].any() and (noisy == windows)[~planted].all()
    assert not ((noisy[:, :, None] == windows[:, None, :]).any(2) & planted).any()  # none that the window had
    drawn = noisy[planted]
    assert set(drawn.tolist()) == {3, 7, 50}
    certain = ~(windows[:, :, None] == torch.tensor([3, 7, 50])).any(2).any(1)  # windows that hold none of the three
    real = (windows != 0)[certain]
    assert planted[certain].sum() / real.sum() == pytest.approx(0.3, abs=0.04)
    assert (noisy[certain][planted[certain]] == 3).float().mean() == pytest.approx(0.25, abs=0.06)


def test_items_behind_the_catalogue_are_read_by_their_titles():
    """A new item has a free vector of zeros: it says what an item of the same title would say that was never seen."""
    windows, titles = windows_of(0), title_vectors()
    learned = learn_detector(windows, N_ITEMS, titles, FEW_STEPS)
    more_titles = np.concatenate([titles, titles[5:6]])
    extended = learned.for_catalogue(N_ITEMS + 1, torch.from_numpy(more_titles.astype(np.float32)))
    assert planted_log_odds(extended, windows).tobytes() == planted_log_odds(learned, windows).tobytes()
    window = np.array([[1, 9, N_ITEMS + 1, 17]])
    by_title = planted_log_odds(extended, window)
    with torch.no_grad():
        learned.free_vectors.weight[5] = 0
    assert planted_log_odds(learned.finish(), np.array([[1, 9, 5, 17]])).tobytes() == by_title.tobytes()


def data_of(logs):
    rows, starts = sliding(logs, WIDTH)
    return build_data_set(rows_of(rows, starts, width=WIDTH), {}, N_ITEMS)


def kind_of(data, vectors, keys=None):
    """The kind `detector` of a data set, learned for a few steps."""
    table, halvings = data.interactions, data.interactions.halvings(keys)
    windows = data.train_items
    learned = learn_detectors(windows, halvings[:, table.users[data.train[:, -1]]], N_ITEMS, vectors, FEW_STEPS)
    return detector_kind(learned, halvings)


def test_a_user_is_judged_by_what_others_taught():
    """Other items of all users of one quarter, who share both halves, change what is said of all users but these."""
    logs, _ = grouped_logs(0, users=40)
    data = data_of(logs)
    quarters = (data.interactions.halvings() * [[1], [2]]).sum(0)
    names = data.interactions.user_names.tolist()
    changed = {
        user: items if quarters[names.index(user)] else [1 + item % N_ITEMS for item in items] for user, items in logs.items()
    }
    before, after = (kind_of(part, title_vectors()) for part in (data, data_of(changed)))
    windows, users = windows_of(5, users=4), np.arange(40)
    for quarter in range(4):
        user = users[quarters == quarter][:1].repeat(len(windows))
        is_same = before.features_of_windows(user, windows).tobytes() == after.features_of_windows(user, windows).tobytes()
        assert is_same == (quarter == 0), quarter
    assert before.columns == ("marked by the detector",)


def test_the_log_odds_are_the_mean_of_two_detectors():
    windows = windows_of(0, users=8)
    detectors = [[learn_detector(windows, N_ITEMS, None, FEW_STEPS, 2 * halving + half) for half in (0, 1)] for halving in (0, 1)]
    kind = detector_kind(detectors, np.array([[0, 1], [1, 1]]))
    single = [[planted_log_odds(detector, windows) for detector in of_halving] for of_halving in detectors]
    for user, expected in ((0, (single[0][0] + single[1][1]) / 2), (1, (single[0][1] + single[1][1]) / 2)):
        assert kind.features_of_windows(np.full(len(windows), user), windows)[..., 0] == pytest.approx(expected, abs=1e-6)


def test_halves_are_by_the_keys_of_the_log():
    data = grouped_data(users=20)
    keys = [f"key {number}" for number in range(20)]
    by_names, by_keys = data.interactions.halvings(), data.interactions.halvings(keys)
    user = np.flatnonzero((by_names != by_keys).any(0))[:1]
    windows = windows_of(5, users=1)
    kinds = [kind_of(data, None, user_keys) for user_keys in (None, keys)]
    said = [kind.features_of_windows(user.repeat(len(windows)), windows).tobytes() for kind in kinds]
    assert said[0] != said[1]


def test_detectors_learned_side_by_side_are_those_learned_one_after_another(monkeypatch):
    windows = windows_of(0, users=40)
    halvings = np.stack([np.resize([0, 1], len(windows)), np.resize([0, 0, 1], len(windows))])
    arguments = (windows, halvings, N_ITEMS, title_vectors(), FEW_STEPS)
    one_after_another = learn_detectors(*arguments)
    monkeypatch.setattr(detector, "STEPS_WORTH_A_PROCESS", 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        side_by_side = learn_detectors(*arguments)
    finally:
        torch.set_num_threads(threads)
    for of_halving, again in zip(one_after_another, side_by_side):
        for network, other in zip(of_halving, again):
            assert all(torch.equal(values, other.state_dict()[name]) for name, values in network.state_dict().items())
            assert torch.equal(network.item_vectors, other.item_vectors)
