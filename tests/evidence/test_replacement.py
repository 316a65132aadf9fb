"""denoise_code/neighbours.py: against brute force, nothing of a target or a window's own items, by titles too."""

from dataclasses import replace
from pathlib import Path

import filter as threshold_filter
import numpy as np
import pytest
from conftest import sasrec_arguments
from hypothesis import given, settings
from hypothesis import strategies as st
from options import FilterOptions, RowsOptions
from rows import load

from denoise_code import neighbours
from denoise_code.data_set.padded_rows import Split
from denoise_code.evidence.counts import Counts

N_ITEMS = 25


def random_rows(seed, n=60, name="train.csv"):
    """Windows of two groups of items, so that there is something to find."""
    rng = np.random.default_rng(seed)
    items = np.zeros((n, 6), dtype=np.int64)
    for row in range(n):
        length, group = int(rng.integers(3, 7)), rng.integers(2)
        items[row, 6 - length :] = 1 + 2 * rng.integers(12, size=length) + group * (rng.random(length) < 0.9)
    return Split(Path(name), rng.integers(20, size=n).astype(str), items, np.zeros_like(items), items)


def circle():
    angle = 2 * np.pi * np.arange(N_ITEMS + 1) / N_ITEMS
    vectors = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float16)
    vectors[0] = 0
    return vectors


def brute_force(replacer, train, user, rest, banned):
    """The best item of the catalogue by the same score, with counts of all windows of other users counted one by one."""
    rows = train.items[train.users != user]
    everyone = Counts.of(train, N_ITEMS)
    partners = 2 * everyone.pairs[1].sum() / everyone.items.sum() ** 2
    others = Counts.of(replace(train, users=train.users[train.users != user], items=rows, mask=rows, clean=rows), N_ITEMS)
    pairs = dict(zip(*(values.tolist() for values in others.pairs)))
    scores = {}
    for item in set(range(1, N_ITEMS + 1)) - set(banned.tolist()):
        lift = 0.0
        for other in rest[rest != 0].tolist():
            together = pairs.get(min(item, other) * (N_ITEMS + 1) + max(item, other), 0)
            lift += np.log1p(together) - np.log1p(others.items[item] * others.items[other] * partners)
        features = [lift, np.log1p(others.items[item])]
        if replacer.vectors is not None:
            table = replacer.vectors.astype(np.float32)
            similar = [float(table[item] @ table[other]) for other in rest[rest != 0]]
            features += [max(similar), np.mean(similar)]
        scores[item] = float(np.dot(features, replacer.weights))
    return scores


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_ranking_equals_brute_force(seed, with_titles):
    train = random_rows(seed)
    replacer = neighbours.Replacer(train, N_ITEMS, circle() if with_titles else None)
    place = np.random.default_rng(seed).integers(3, 6, size=10)
    rest = train.items[:10].copy()
    rest[np.arange(10), place] = 0
    candidates = replacer.candidates(rest, train.items[:10])
    found = replacer.rank(train.users[:10], rest, train.items[:10], 5)
    for row in range(10):
        scores = brute_force(replacer, train, train.users[row], rest[row], train.items[row])
        there = sorted(candidates[row][candidates[row] != 0].tolist(), key=lambda item: (-scores[item], item))
        best = [item for item in found[row].tolist() if item]
        assert [scores[item] for item in best] == pytest.approx([scores[item] for item in there[:5]], abs=1e-3)
        assert not set(best) & set(train.items[row].tolist()) and len(set(best)) == len(best)
        assert len(best) == min(5, len(there)) and not found[row][len(best) :].any()


def test_neighbours_of_a_catalogue_by_hand():
    table = neighbours.nearest_by_titles(circle()).toarray()
    assert table.shape == (N_ITEMS + 1, N_ITEMS + 1) and not table[0].any() and not table[:, 0].any()
    assert table[3].argmax() in (2, 4) and table[3, 4] == pytest.approx(np.cos(2 * np.pi / N_ITEMS), abs=1e-3)
    assert not np.diag(table).any()


def test_flagged_places_of_a_row_get_its_best_items_in_turn():
    train = random_rows(0, n=200)
    replacer = neighbours.Replacer(train, N_ITEMS, circle())
    flagged = (np.random.default_rng(1).random(train.items.shape) < 0.2) & (train.items != 0)
    put = replacer.replacements(train, flagged)
    assert (put != 0)[flagged].mean() > 0.9 and not put[~flagged].any()
    items = replacer.rank(train.users, np.where(flagged, 0, train.items), train.items, 6)
    for row in range(200):
        assert put[row][flagged[row]].tolist() == items[row, : flagged[row].sum()].tolist()
        there = put[row][put[row] != 0]
        assert len(set(there)) == len(there)  # two places of a row never get the same item


def test_weights_say_what_predicts_the_held_out_item():
    """Two groups of items that never meet: co-occurrence finds what stood there, titles of random angles do not."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(N_ITEMS + 1, 8)).astype(np.float16)
    vectors[0] = 0
    weights = neighbours.Replacer(random_rows(0, n=400), N_ITEMS, vectors).coefficients()
    assert weights["co-occurrence"] > 0.2 and abs(weights["mean similarity"]) < 0.2 * weights["co-occurrence"]


ARMS = [("fused", "neighbours"), ("collaborative", "neighbours"), ("semantic", "neighbours"), ("fused", "suggested"),
        ("raw", "suggested"), ("llm", "neighbours"), ("random", "neighbours"), ("oracle", "neighbours")]  # fmt: skip


def test_hits_against_a_loop():
    train, test = random_rows(0), random_rows(1, name="test.csv")
    clean, mask = test.items.copy(), np.zeros_like(test.items)
    mask[:, 3] = test.items[:, 3] != 0
    clean[:, 3] = np.where(mask[:, 3], 1 + np.arange(len(clean)) % N_ITEMS, 0)
    test = replace(test, mask=mask, clean=clean)
    replacer = neighbours.Replacer(train, N_ITEMS, None)
    by_count = sorted(range(1, N_ITEMS + 1), key=lambda item: -replacer.counts.items[item])
    hits = {"neighbours": [], "popularity": []}
    for row in np.flatnonzero(mask[:, 3] & (clean[:, 3] != test.items[:, 3])):  # the rest drew what stood there
        history, rest = test.items[row : row + 1, :-1].copy(), test.items[row : row + 1].copy()
        rest[0, [3, -1]] = 0
        ranked = {"popularity": [item for item in by_count if item not in history[0]][:10]}
        ranked["neighbours"] = replacer.rank(test.users[row : row + 1], rest, history, 10)[0].tolist()
        for kind, items in ranked.items():
            hits[kind].append([items[0] == clean[row, 3], clean[row, 3] in items])
    measured = neighbours.hits(replacer, test)
    assert 0 < measured.pop("held out of train")["among ten"] < 1
    for kind, found in measured.items():
        assert list(found.values()) == pytest.approx(np.mean(hits[kind], axis=0).tolist())
        assert 0 < found["among ten"] < 1


@pytest.mark.parametrize("evidence, source", ARMS)
def test_nothing_of_an_edited_history_knows_the_target(denoised, evidence, source):
    """All targets of valid and test exchanged: the edited histories stay as they are, for every evidence and replacement."""
    options = ["--denoise_category", "all", "--evidence", evidence, "--replace_with", source]
    options += ["--train_noise_filter_threshold", 0.3, "--test_noise_filter_threshold", 0.3]
    args = sasrec_arguments(denoised.parent, *options)
    rows_options, filtering = RowsOptions.from_arguments(args), FilterOptions.from_arguments(args)
    splits, n_items = load(rows_options)

    def edited(splits):
        weights = threshold_filter.weigh(splits, n_items, filtering, rows_options.folder)
        replacer = threshold_filter.make_replacer(splits, n_items, filtering, rows_options.folder)
        return threshold_filter.denoise(splits, weights, filtering, replacer)

    def with_other_targets(split):
        changed = {}
        for name in ("items", "clean"):
            changed[name] = getattr(split, name).copy()
            changed[name][:, -1] = changed[name][:, -1] % n_items + 1
        return replace(split, **changed)

    before = edited(splits)
    after = edited({name: split if name == "train" else with_other_targets(split) for name, split in splits.items()})
    for name in ("valid", "test"):
        assert (before[name][:, :-1] == after[name][:, :-1]).all() and (before[name][:, -1] != after[name][:, -1]).any()
        if evidence != "raw":
            assert (before[name] != splits[name].items).any()
