"""SASRec_code/filter.py: the threshold filter against a slow version."""

import json
from pathlib import Path

import filter
import main as sasrec
import numpy as np
import pytest
from conftest import sasrec_arguments, sasrec_command, write_denoised
from experiment import read_rows
from filter import apply_edits, flag_probable
from hand_evidence import KINDS, SHARE, probabilities_by_hand, replacements_by_hand
from hypothesis import given, settings
from hypothesis import strategies as st
from options import CALIBRATED_LIMITS, RAW_LIMITS, EditLimits, FilterOptions, RowsOptions
from rows import LoadedRows, RowEvidence

from denoise_code.data_set import catalogue, padded_rows


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
    split = padded_rows.resize(padded_rows.read_split(folder / file, catalogue.read_catalogue(folder), "needed"), maxlen + 1)
    threshold = filter.percentile(split, share)
    flagged = filter.flag_suspects(split, threshold, most)
    edited, replaced, deleted = apply_edits(split.items, flagged, filter.suggested_replacements(split), split.noise_prob)
    assert (replaced == flagged).all() and not deleted.any()
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
    split = padded_rows.read_split(folder / "test.csv", ["", "a", "b", "c"], "needed")
    flagged = filter.flag_suspects(split, -2.0, 3)
    edited, _, _ = apply_edits(split.items, flagged, filter.suggested_replacements(split), split.noise_prob)
    assert edited[0, -3:].tolist() == [3, 1, 2]


def test_edit_and_delete_by_hand():
    items = np.array([[0, 1, 2, 3, 9], [0, 0, 0, 4, 9], [5, 6, 7, 8, 9]])
    prob = np.array([[np.nan, 0.9, 0.8, 0.1, np.nan], [np.nan] * 3 + [0.9, np.nan], [0.6, 0.7, 0.8, 0.9, np.nan]])
    flagged = flag_probable(prob, 0.5, 3)
    assert flagged.sum(1).tolist() == [2, 1, 3] and not flagged[2, 0]
    replacement = np.where(items == 1, 30, 0)
    edited, replaced, deleted = apply_edits(items, flagged, replacement, prob)
    assert edited.tolist() == [[0, 0, 30, 3, 9], [0, 0, 0, 4, 9], [0, 0, 0, 5, 9]]
    assert (replaced.sum(1).tolist(), deleted.sum(1).tolist()) == ([1, 0, 0], [1, 0, 3])
    edited, replaced, deleted = apply_edits(items, flagged, np.zeros_like(items), prob)
    assert edited.tolist() == [[0, 0, 0, 3, 9], [0, 0, 0, 4, 9], [0, 0, 0, 5, 9]]
    assert not replaced.any() and deleted.sum(1).tolist() == [2, 0, 3]  # two items of the second row stay
    everything, _, _ = apply_edits(items, items != 0, np.zeros_like(items), np.where(items != 0, items, np.nan) / 10.0)
    assert (everything != 0).sum(1).tolist() == [2, 2, 2]


def read(tmp_path, *options):
    args = sasrec_arguments(tmp_path, *options)
    return read_rows(RowsOptions.from_arguments(args), FilterOptions.from_arguments(args))


def windows_of(rows, draw=0):
    return {name: edits.windows for name, edits in rows.edited(draw).items()}


@pytest.mark.parametrize("reference", ["valid", "split"])
def test_thresholds_come_from_the_right_rows(tmp_path, reference):
    """Train from train; test from valid, or from itself as in the release."""
    write_denoised(tmp_path, rows=(60, 60, 60))
    shares = ["--train_noise_filter_threshold", 0.6, "--test_noise_filter_threshold", 0.7, "--denoise_category", "all"]
    rows = read(tmp_path, *shares, "--threshold_from", reference)
    splits, edited = rows.loaded.splits, windows_of(rows)
    by = {"train": splits["train"], "valid": splits["valid"], "test": splits["valid" if reference == "valid" else "test"]}
    for name, share in (("train", 0.6), ("valid", 0.7), ("test", 0.7)):
        assert (edited[name] == slow_filter(splits[name], np.nanquantile(by[name].noise_prob, share), 3)).all()


def slow_edits(split, prob, replacement, threshold):
    """The filter of calibrated evidence, one place at a time: whatever is above the threshold is replaced."""
    edited = split.items.copy()
    for row, place in np.ndindex(edited.shape):
        if prob[row, place] > threshold:  # NaN is not
            edited[row, place] = replacement[row, place]
    return edited


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_filtered_by_its_own_probability(tmp_path, kind):
    write_denoised(tmp_path, rows=(60, 40, 40))
    limits = ["--train_noise_filter_threshold", 0.3, "--test_noise_filter_threshold", 0.6]
    rows = read(tmp_path, "--denoise_category", "all", "--evidence", kind, *limits)
    edited = windows_of(rows)
    for name, threshold in (("train", 0.3), ("valid", 0.6), ("test", 0.6)):
        split = rows.loaded.splits[name]
        prob = probabilities_by_hand(split, kind)
        assert rows.probabilities[name] == pytest.approx(prob, rel=1e-4, nan_ok=True)
        assert (edited[name] == slow_edits(split, prob, replacements_by_hand(split, 30), threshold)).all()
        assert (edited[name] != split.items).any()
        assert name == "train" or (edited[name][:, -1] == split.items[:, -1]).all()


def test_limits_that_nobody_gives(tmp_path):
    """Of raw scores those of the release; of calibrated ones what is rather noise than not, however much that is in a row."""
    assert RAW_LIMITS == (0.9, 3) and CALIBRATED_LIMITS[0] == 0.5
    everything = ["--denoise_category", "all", "--evidence"]
    for kind, limits in (("raw", RAW_LIMITS), ("fused", CALIBRATED_LIMITS), ("random", CALIBRATED_LIMITS)):
        filtering = FilterOptions.from_arguments(sasrec_arguments(tmp_path, *everything, kind))
        assert [(of_part.threshold, of_part.max_edits) for of_part in (filtering.train, filtering.test)] == [limits] * 2
    given = FilterOptions.from_arguments(sasrec_arguments(tmp_path, *everything, "fused", "--train_max_denoise_num", 2))
    assert (given.train.threshold, given.train.max_edits, given.test.max_edits) == (0.5, 2, CALIBRATED_LIMITS[1])
    prob = np.full((1, 30), 0.6)
    assert flag_probable(prob, *CALIBRATED_LIMITS).all() and not flag_probable(prob - 0.1, *CALIBRATED_LIMITS).any()


def test_a_share_of_noise_moves_probabilities_and_no_replacement(tmp_path):
    write_denoised(tmp_path, rows=(60, 40, 40))
    options = ["--denoise_category", "all", "--evidence", "fused"]
    taken, less = read(tmp_path, *options), read(tmp_path, *options, "--noise_share", SHARE / 2)
    for name, prob in taken.probabilities.items():
        assert less.probabilities[name] == pytest.approx(prob / 2, rel=1e-5, nan_ok=True)
        assert (taken.loaded.evidence[name].replacements == less.loaded.evidence[name].replacements).all()
        many, few = taken.edited()[name], less.edited()[name]
        assert 0 <= few.n_flagged < many.n_flagged
        edited = few.windows != taken.loaded.splits[name].items
        assert (many.windows[edited] == few.windows[edited]).all()
    same = read(tmp_path, *options, "--noise_share", SHARE)
    assert all(np.array_equal(same.probabilities[name], prob, equal_nan=True) for name, prob in taken.probabilities.items())
    assert np.nanmax(read(tmp_path, *options, "--noise_share", 1.0).probabilities["train"]) == 1


def test_two_items_of_a_window_stay_and_that_is_counted(tmp_path, capsys):
    """The one exception by row: of what is flagged in a row all but two items are deleted."""
    write_denoised(tmp_path, rows=(60, 40, 40))
    everything = ["--train_noise_filter_threshold", 0.001, "--test_noise_filter_threshold", 0.001]
    rows = read(tmp_path, "--denoise_category", "all", "--evidence", "fused", "--edit", "delete", *everything)
    edits = rows.edited()
    printed = capsys.readouterr().out
    for name, split in rows.loaded.splits.items():
        lengths = (split.items != 0).sum(1)
        flagged = lengths - (name != "train")
        spared = int((flagged - (lengths - 2)).sum())
        assert ((edits[name].windows != 0).sum(1) == 2).all()
        assert (edits[name].n_flagged, edits[name].n_deleted) == (flagged.sum(), (lengths - 2).sum())
        assert f"{name}: {spared:,} of them stay, as two items of a window always do" in printed
        assert edits[name].n_replaced == 0


def test_a_run_says_what_it_rests_on_and_how_much_it_edited(tmp_path):
    """run.json of a run: the kind, its weights, the share, and interactions and positions by seed."""
    write_denoised(tmp_path, rows=(80, 40, 40))
    options = ["--denoise_category", "all", "--evidence", "detector", "--noise_share", 0.08, "--seeds", 2]
    run = sasrec.main(sasrec_command(tmp_path, *options, epochs=1))
    stored = json.loads(next((tmp_path / "out").rglob("run.json")).read_text())
    assert stored["evidence"] == run["evidence"]
    assert run["evidence"] == {
        "kind": "detector",
        "features": ["detector by hand"],
        "coefficients": {"detector by hand": 1.5},
        "share_bound": 0.25,
        "noise_share": 0.08,
        "noise_share_of_replacements": SHARE,
        "sources": "by hand",
    }
    split = read(tmp_path, *options).loaded.splits["train"]
    flagged = int((probabilities_by_hand(split, "detector") * 0.8 > 0.5).sum())
    train = {"flagged": flagged, "replaced": flagged, "deleted": 0, "interactions": flagged}
    assert [edits["train"] for edits in run["edits"]] == [train] * 2 and flagged > 0
    assert set(run["edits"][0]) == {"train", "valid", "test"}
    assert sasrec.main(sasrec_command(tmp_path, epochs=1))["evidence"] is None


def test_the_oracle_replaces_the_noise_and_nothing_else(tmp_path):
    write_denoised(tmp_path, rows=(60, 40, 40))
    rows = read(tmp_path, "--denoise_category", "all", "--evidence", "oracle")
    for name, windows in windows_of(rows).items():
        split = rows.loaded.splits[name]
        assert (windows == split.clean).all() and (windows != split.items).any()  # by hand the replacement is the true item


USERS_OF_WINDOWS = np.repeat([1, 0], 30)


def of_two_users():
    """Loaded rows with sliding windows (60, 8) of two users, in any order: interactions 0..36 of the first, then of the second.

    A train interaction has one probability, in whatever window it stands.
    """
    rng = np.random.default_rng(0)
    places = np.tile(np.arange(30), 2)[:, None] + np.arange(8)  # (60, 8)
    interactions = USERS_OF_WINDOWS[:, None] * 37 + places
    held = (USERS_OF_WINDOWS[:, None] == 0) | (places >= 3)
    order = rng.permutation(60)
    interactions = np.where(held, interactions, -1)[order]
    items = np.where(interactions >= 0, 1 + interactions, 0)
    prob = np.where(interactions >= 0, rng.uniform(0.05, 0.95, 74)[interactions], np.nan)
    nothing = np.zeros_like(items)
    evidence = RowEvidence({"fused": np.log(prob / SHARE)}, items + 100, interactions)
    split = padded_rows.Split(Path("train.csv"), USERS_OF_WINDOWS[order].astype(str), items, nothing, items)
    rows = LoadedRows({"train": split}, 200, {"train": evidence}, {"noise_share": SHARE}, np.repeat([0, 1], 37))
    return rows, prob


def by_interaction(rows, values):
    """{interaction: the values (…) of all places that are it}."""
    found = {}
    for row, place in np.argwhere(~np.isnan(values)):
        found.setdefault(int(rows.evidence["train"].interactions[row, place]), set()).add(values[row, place])
    return found


def test_random_places_are_interactions():
    """What evidence finds it finds in all rows that hold it; so must the control, or it would only thin out the rows.

    Among a user's interactions the same probabilities, each with one interaction, other ones for each seed.
    """
    rows, prob = of_two_users()
    before, moved, anew = (
        by_interaction(rows, values) for values in (prob, *(filter.shuffle_probabilities(rows, "train", prob, d) for d in (0, 1)))
    )
    assert len(before) == 37 + 34 and moved.keys() == before.keys() and all(len(values) == 1 for values in moved.values())
    for user in (0, 1):
        of_user = [sorted(values for number, (values,) in found.items() if number // 37 == user) for found in (before, moved)]
        assert of_user[0] == of_user[1] and len(of_user[0]) == (37, 34)[user]
    same = [np.mean([one[key] == other[key] for key in before]) for one, other in ((before, moved), (moved, anew))]
    assert max(same) < 0.2
    again = filter.shuffle_probabilities(rows, "train", prob, 1)
    assert by_interaction(rows, again) == anew


def test_replacements_stay_with_their_places_where_probabilities_move():
    """And of an interaction all its windows receive the same; what is counted are interactions and positions."""
    rows, prob = of_two_users()
    options = FilterOptions("train", evidence="random", train=EditLimits(0.5, 99))
    found = filter.edit_splits(rows, {"train": prob}, options, draw=3)["train"]
    moved = filter.shuffle_probabilities(rows, "train", prob, 3)
    items, flagged = rows.splits["train"].items, moved > 0.5
    assert (found.windows == np.where(flagged, items + 100, items)).all()
    interactions = rows.evidence["train"].interactions
    assert found.counts() == {
        "flagged": int(flagged.sum()),
        "replaced": int(flagged.sum()),
        "deleted": 0,
        "interactions": len(set(interactions[flagged].tolist())),
    }
    assert found.n_interactions < found.n_flagged / 3
    before = filter.edit_splits(rows, {"train": prob}, FilterOptions("train", train=options.train, evidence="fused"))["train"]
    assert before.n_interactions == found.n_interactions and (before.windows != found.windows).any()


def test_random_places_of_other_rows_stay_in_their_row():
    """A history's control stays in its row: elsewhere there are items that come after it."""
    rng = np.random.default_rng(3)
    prob = np.where(rng.random((500, 8)) < 0.3, np.nan, rng.random((500, 8)))
    rows = LoadedRows({}, 9, {"test": RowEvidence({}, np.zeros((500, 8), int), None)})
    moved, anew = (filter.shuffle_probabilities(rows, "test", prob, draw) for draw in (0, 1))
    assert 0.1 < (moved == anew)[~np.isnan(prob)].mean() < 0.4
    assert (np.isnan(moved) == np.isnan(prob)).all()
    assert np.array_equal(np.sort(moved, 1), np.sort(prob, 1), equal_nan=True)
    flagged, flagged_at_random = (flag_probable(values, 0.6, 2) for values in (prob, moved))
    assert (flagged.sum(1) == flagged_at_random.sum(1)).all()
    assert 0.2 < (flagged & flagged_at_random).sum() / flagged.sum() < 0.6


def test_random_takes_what_fused_says(tmp_path):
    write_denoised(tmp_path, rows=(60, 40, 40))
    options = ["--denoise_category", "all", "--train_noise_filter_threshold", 0.3, "--evidence"]
    fused, at_random = read(tmp_path, *options, "fused"), read(tmp_path, *options, "random")
    for name, prob in fused.probabilities.items():
        assert np.array_equal(prob, at_random.probabilities[name], equal_nan=True)
    found, moved, anew = fused.edited()["train"], at_random.edited(0)["train"], at_random.edited(1)["train"]
    assert found.n_interactions == moved.n_interactions == anew.n_interactions > 0
    assert len({edits.windows.tobytes() for edits in (found, moved, anew)}) == 3
