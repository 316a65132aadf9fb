"""SASRec_code/filter.py: the threshold filter against a slow version."""

import dataclasses
from pathlib import Path

import filter
import numpy as np
import pytest
import rows
from conftest import sasrec_arguments, write_denoised
from filter import apply_edits, flag_probable
from hypothesis import given, settings
from hypothesis import strategies as st
from options import FilterOptions, RowsOptions

from denoise_code.data_set import catalogue, folder, padded_rows
from denoise_code.evidence.fit import Evidence, Sources


def slow_filter(split, threshold, most):
    """The filter of the paper, one row and one suspect at a time."""
    edited = split.items.copy()
    for row in range(len(edited)):
        places = [p for p in range(edited.shape[1]) if split.items[row, p]]
        places = places if split.path.name.startswith("train") else places[:-1]
        done = set()
        for k, (item, prob) in enumerate(zip(split.suspects[row], split.suspect_prob[row])):
            if k < most and item and prob > threshold and item not in done:
                done.add(item)
                for place in places:
                    if split.items[row, place] == item:
                        edited[row, place] = split.suggestions[row, k]
    return edited


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1), st.integers(0, 4), st.booleans(), st.integers(4, 12))
def test_filter_against_a_slow_version(tmp_path_factory, seed, share, most, train, maxlen):
    file = "train.csv" if train else "test_5000.csv"
    folder = write_denoised(tmp_path_factory.mktemp("filter"), n_items=12, rows=(25, 25, 25), seed=seed)
    split = padded_rows.read_split(folder / file, catalogue.read_titles(folder), maxlen, "needed")
    threshold = filter.percentile(split, share)
    flagged = filter.flag_suspects(split, threshold, most)
    edited = filter.apply_edits(split.items, flagged, filter.suggested_replacements(split), split.noise_prob)
    assert (edited == slow_filter(split, threshold, most)).all()
    above = [set(items[known & (prob > threshold)]) for items, known, prob in zip(split.items, split.editable, split.noise_prob)]
    listed = (split.suspect_prob > threshold).sum(1)
    short = sum(min(len(items), most) > count for items, count in zip(above, listed))
    assert filter.rows_with_unlisted(split, threshold, most) == short
    if not train:
        assert (edited[:, -1] == split.items[:, -1]).all()


def test_a_test_target_in_the_history_is_not_edited(tmp_path):
    folder = tmp_path / "T_denoise_user0.1_8_1"
    folder.mkdir()
    (folder / "id2name4Rec.json").write_text('{"1": "a", "2": "b", "3": "c"}')
    header = "user_id,item_ids,mask,noise_prob,noise_items,noise_items_prob,suggest_item_ids\n"
    row = '1,"[2, 1, 2]","[0, 0, 0]","[-1.0, -5.0]","[2]","[-1.0]","[3]"\n'
    (folder / "test.csv").write_text(header + row)
    split = padded_rows.read_split(folder / "test.csv", ["", "a", "b", "c"], 10, "needed")
    flagged = filter.flag_suspects(split, -2.0, 3)
    edited = filter.apply_edits(split.items, flagged, filter.suggested_replacements(split), split.noise_prob)
    assert edited[0, -3:].tolist() == [3, 1, 2]


def test_edit_and_delete_by_hand():
    items = np.array([[0, 1, 2, 3, 9], [0, 0, 0, 4, 9], [5, 6, 7, 8, 9]])
    prob = np.array([[np.nan, 0.9, 0.8, 0.1, np.nan], [np.nan] * 3 + [0.9, np.nan], [0.6, 0.7, 0.8, 0.9, np.nan]])
    flagged = flag_probable(prob, 0.5, 3)
    assert flagged.sum(1).tolist() == [2, 1, 3] and not flagged[2, 0]
    replacement = np.where(items == 1, 30, 0)
    assert apply_edits(items, flagged, replacement, prob).tolist() == [[0, 0, 30, 3, 9], [0, 0, 0, 4, 9], [0, 0, 0, 5, 9]]
    deleted = apply_edits(items, flagged, np.zeros_like(items), prob)
    assert deleted.tolist() == [[0, 0, 0, 3, 9], [0, 0, 0, 4, 9], [0, 0, 0, 5, 9]]
    everything = apply_edits(items, items != 0, np.zeros_like(items), np.where(items != 0, items, np.nan) / 10.0)
    assert (everything != 0).sum(1).tolist() == [2, 2, 2]


@pytest.mark.parametrize("reference", ["valid", "split"])
def test_thresholds_come_from_the_right_rows(tmp_path, reference):
    """Train from train; test from valid, or from itself as in the release."""
    write_denoised(tmp_path, rows=(60, 60, 60))
    shares = ["--train_noise_filter_threshold", 0.6, "--test_noise_filter_threshold", 0.7, "--denoise_category", "all"]
    args = sasrec_arguments(tmp_path, *shares, "--threshold_from", reference)
    rows_options, options = RowsOptions.from_arguments(args), FilterOptions.from_arguments(args)
    splits, n_items = rows.load(rows_options)
    edited = filter.denoise(splits, filter.weigh(splits, n_items, options, rows_options.folder), options)
    by = {"train": splits["train"], "valid": splits["valid"], "test": splits["valid" if reference == "valid" else "test"]}
    for name, share in (("train", 0.6), ("valid", 0.7), ("test", 0.7)):
        assert (edited[name] == slow_filter(splits[name], np.nanquantile(by[name].noise_prob, share), 3)).all()


def rows_of(users, items, places=None):
    nothing = np.zeros_like(items)
    return padded_rows.Split(Path("train.csv"), users, items, nothing, items, places=places)


def test_random_places_are_as_many_in_each_row():
    rng = np.random.default_rng(3)
    prob = np.where(rng.random((500, 8)) < 0.3, np.nan, rng.random((500, 8)))
    rows = rows_of(np.arange(500), np.ones((500, 8), dtype=int))
    moved, anew = (filter.shuffle_probabilities(rows, prob, draw) for draw in (0, 1))
    assert 0.1 < (moved == anew)[~np.isnan(prob)].mean() < 0.4
    assert (np.isnan(moved) == np.isnan(prob)).all()
    assert np.array_equal(np.sort(moved, 1), np.sort(prob, 1), equal_nan=True)
    here, there = (flag_probable(values, 0.6, 2) for values in (prob, moved))
    assert (here.sum(1) == there.sum(1)).all() and 0.2 < (here & there).sum() / here.sum() < 0.6


def of_two_users(rng):
    """Sliding windows (60, 8) of two users, in any order, and a probability for each place."""
    users, start = np.repeat(["b", "a"], 30), np.tile(np.arange(30), 2)
    places = start[:, None] + np.arange(8)
    items = np.where((users[:, None] == "a") & (places < 3), 0, 1 + places)
    order = rng.permutation(60)
    rows = rows_of(users[order], items[order], places[order])
    return rows, np.where(rows.items != 0, rng.uniform(0.05, 0.95, items.shape), np.nan)


def by_interaction(rows, prob):
    """{(user, place): what its rows say}."""
    found = {}
    for row, place in np.argwhere(~np.isnan(prob)):
        found.setdefault((str(rows.users[row]), int(rows.places[row, place])), []).append(prob[row, place])
    return found


def test_an_interaction_is_judged_by_all_rows_that_hold_it():
    rows, prob = of_two_users(np.random.default_rng(0))
    said, pooled = (by_interaction(rows, values) for values in (prob, filter.pooled(rows, prob)))
    assert len(said) == 37 + 34 and pooled.keys() == said.keys()
    for interaction, probs in said.items():
        log_odds = np.mean([np.log(p / (1 - p)) for p in probs])
        assert pooled[interaction] == pytest.approx([1 / (1 + np.exp(-log_odds))] * len(probs))
    untold = rows_of(rows.users, rows.items)
    assert filter.pooled(untold, prob) is prob


def test_what_is_weighed_is_pooled_in_train_rows_alone():
    """A valid or test row is judged by its own history: what other rows hold may come after it."""
    rng = np.random.default_rng(0)
    rows, _ = of_two_users(rng)
    rows = dataclasses.replace(rows, items=np.where(rows.items != 0, rng.integers(1, 90, rows.items.shape), 0))
    splits = {name: dataclasses.replace(rows, path=Path(f"{name}.csv")) for name in folder.SPLITS}
    options = FilterOptions(evidence="collaborative", denoise_category="all")
    sources = Sources(rows, 90)
    weights, alone = filter.weigh(splits, 90, options, Path("nowhere"), sources), Evidence("collaborative", sources)
    assert np.array_equal(weights["train"], filter.pooled(rows, alone.probabilities(rows)), equal_nan=True)
    assert not np.allclose(weights["train"], alone.probabilities(rows), rtol=1e-4, atol=0, equal_nan=True)
    for name in ("valid", "test"):
        assert np.array_equal(weights[name], alone.probabilities(splits[name]), equal_nan=True)


def test_random_places_are_interactions_where_these_are_known():
    """What evidence finds it finds in all rows that hold it; so must the control, or it would only thin out the rows."""
    rows, prob = of_two_users(np.random.default_rng(0))
    prob = filter.pooled(rows, prob)
    known, moved, anew = (
        by_interaction(rows, values) for values in (prob, *(filter.shuffle_probabilities(rows, prob, d) for d in (0, 1)))
    )
    assert moved.keys() == known.keys() and all(len(set(probs)) == 1 for probs in moved.values())
    for user in "ab":
        of_user = [sorted(probs[0] for (name, _), probs in found.items() if name == user) for found in (known, moved)]
        assert of_user[0] == of_user[1]
    same = [np.mean([one[key] == other[key] for key in known]) for one, other in ((known, moved), (moved, anew))]
    assert max(same) < 0.2
    history = dataclasses.replace(rows, path=Path("test.csv"))
    prob[:, -1] = np.nan
    # a history's control stays in its row: elsewhere there are items that come after it
    there = filter.shuffle_probabilities(history, prob, 0)
    assert np.array_equal(np.sort(there, 1), np.sort(prob, 1), equal_nan=True) and not np.array_equal(there, prob, equal_nan=True)
