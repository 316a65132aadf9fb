"""SASRec_code/ranking.py, comparison.py: ranks and metrics against slow versions."""

import comparison
import numpy as np
import pytest
import ranking
import torch
from recommenders.sasrec import SASRec


def untied(ranks):
    """(..., 2) of ranks that no other item shares."""
    return np.stack([np.array(ranks), np.ones_like(ranks)], axis=-1)


def test_ranks_by_hand():
    scores = torch.tensor([[-torch.inf, 3.0, 2.0, 2.0, 2.0, 1.0], [-torch.inf, 1.0, 1.0, 1.0, 1.0, 1.0]])
    for target, ranks in ((1, [[0, 1], [0, 5]]), (2, [[1, 3], [0, 5]]), (5, [[4, 1], [0, 5]])):
        assert ranking.ranks_of(scores, torch.tensor([[target], [target]])).tolist() == ranks
    result = ranking.metrics(untied([0, 4, 5, 30]))
    assert result["HR@1"] == 0.25 and result["HR@5"] == 0.5 and result["HR@10"] == 0.75 and result["HR@50"] == 1
    assert result["NDCG@5"] == pytest.approx((1 + 1 / np.log2(6)) / 4)
    assert result["MRR"] == pytest.approx((1 + 1 / 5 + 1 / 6 + 1 / 31) / 4)
    tie_for_first = ranking.metrics(np.array([[0, 2]]))
    assert tie_for_first["HR@1"] == tie_for_first["NDCG@1"] == 0.5 and tie_for_first["HR@5"] == 1
    assert tie_for_first["NDCG@5"] == pytest.approx((1 + 1 / np.log2(3)) / 2) and tie_for_first["MRR"] == 0.75


@pytest.mark.parametrize("tied", [1, 2, 19, 20, 21, 60])
def test_ties_are_broken_at_random(tied):
    """Every place of a tie is as likely as the other: 21 tied items have 10 of 21 of HR@10, where their mean rank, 10, has none."""
    for better in (0, 4, 9, 30):
        places = np.arange(better, better + tied)
        found = ranking.metrics(np.array([[better, tied]]))
        for k in ranking.CUTOFFS:
            assert found[f"HR@{k}"] == pytest.approx((places < k).mean())
            assert found[f"NDCG@{k}"] == pytest.approx(((places < k) / np.log2(places + 2)).mean())
            assert ranking.ndcg_per_row(np.array([[better, tied]]), k) == pytest.approx([found[f"NDCG@{k}"]])
        assert found["MRR"] == pytest.approx((1 / (places + 1)).mean())


def test_metrics_without_ties_are_what_they_were_to_the_last_bit():
    ranks = np.random.default_rng(0).integers(0, 3000, size=(5, 997)) // np.array([[1], [2], [10], [50], [300]])
    for of_seed in ranks:
        gains, found = 1 / np.log2(of_seed.astype(float) + 2), ranking.metrics(untied(of_seed))
        for k in ranking.CUTOFFS:
            assert found[f"HR@{k}"] == float((of_seed < k).mean())
            assert found[f"NDCG@{k}"] == float((gains * (of_seed < k)).mean())
        assert found["MRR"] == float((1 / (of_seed.astype(float) + 1)).mean())
        assert (ranking.ndcg_per_row(untied(of_seed)) == (of_seed < 20) * gains).all()


class Fixed(torch.nn.Module):
    """A model whose scores are a table by the last item of the history."""

    def __init__(self, table):
        super().__init__()
        self.items, self.table = torch.nn.Embedding(table.shape[1], 1), table

    def scores(self, history):
        return self.table[history[:, -1]].clone()


def test_rank_targets_against_a_slow_version():
    rng = np.random.default_rng(0)
    table = torch.from_numpy(rng.integers(0, 6, size=(20, 20))).float()  # many ties
    table[:, 0] = -torch.inf
    histories, targets = torch.from_numpy(rng.integers(1, 20, size=(300, 5))), torch.from_numpy(rng.integers(1, 20, size=300))
    histories[:100, :2] = 0
    expected = []
    for history, target in zip(histories.tolist(), targets.tolist()):
        scores = table[history[-1]].tolist()
        others = [s for item, s in enumerate(scores) if item and item != target]
        expected.append([sum(s > scores[target] for s in others), 1 + sum(s == scores[target] for s in others)])
    at_once, ranking.SCORES_AT_ONCE = ranking.SCORES_AT_ONCE, 20 * 7
    try:
        assert ranking.rank_targets(Fixed(table), histories, targets).tolist() == expected
    finally:
        ranking.SCORES_AT_ONCE = at_once


def test_bootstrap_draws_whole_users():
    users = np.repeat(np.arange(50), 4)
    values = np.repeat(np.random.default_rng(0).normal(0.1, 1, 50), 4)
    drawn = comparison.bootstrap(users, {"before": values[None], "after": values[None] + 0.5})
    assert drawn["after"] - drawn["before"] == pytest.approx(np.full(2000, 0.5))  # the same users for both
    spread = values[::4].std() / 50**0.5  # four equal rows a user carry the information of one
    assert drawn["before"].mean() == pytest.approx(values.mean(), abs=0.01) and drawn["before"].std() == pytest.approx(
        spread, rel=0.1
    )


def test_bootstrap_knows_that_seeds_differ():
    """Rows that are all alike, seeds that are not: the spread is that of a mean of five seeds, and none between equal runs."""
    runs = np.repeat(np.array([0.0, 1.0, 2.0, 3.0, 4.0])[:, None], 30, 1)
    drawn = comparison.bootstrap(np.arange(30), {"one": runs, "same": runs, "single": runs[:1]})
    assert drawn["one"].mean() == pytest.approx(2, abs=0.1) and (drawn["one"] == drawn["same"]).all()
    assert drawn["one"].std() == pytest.approx(np.std([0, 1, 2, 3, 4], ddof=1) / 5**0.5, rel=0.1) and not drawn["single"].any()


def test_a_share_of_no_gap_is_not_reported():
    users, ranks = np.arange(200), np.random.default_rng(0).integers(0, 40, size=(3, 200))
    ranks, better = untied(ranks), untied(np.maximum(ranks - 15, 0))
    _, edited, _ = comparison.compare(users, {"noisy": ranks, "a": better, "clean": better})
    assert edited.gap_won_back == {"mean": 1.0, "interval_95": [1.0, 1.0]}
    assert comparison.ComparedRun.of_row({"model": "SASRec"} | edited.as_row()) == edited
    _, edited, clean = comparison.compare(users, {"noisy": ranks, "a": better, "clean": ranks})
    assert edited.gap_won_back is None and clean.difference == {"mean": 0.0, "interval_95": [0.0, 0.0]}
    assert comparison.compare(users, {"clean": better, "noisy": ranks})[1].gap_won_back is None


def test_million_items_stay_in_memory(monkeypatch):
    """Evaluation holds a bounded batch of scores whatever the catalogue."""
    model, sizes, scores = SASRec(1_000_000, hidden_units=4).eval(), [], SASRec.scores
    monkeypatch.setattr(SASRec, "scores", lambda self, history: sizes.append(len(history)) or scores(self, history))
    histories, targets = torch.randint(1, 10**6, (40, 10)), torch.randint(1, 10**6, (40,))
    assert ranking.rank_targets(model, histories, targets).shape == (40, 2) and max(sizes) <= 16


def test_a_draw_without_a_gap_has_no_share():
    """Where the users drawn all have the same in noisy and clean rows there is nothing to have a share of: no NaN, no infinity."""
    drawn = {"noisy": np.array([1.0, 2, 3]), "a": np.array([1.5, 2, 3.5]), "clean": np.array([2.0, 2, 4])}
    assert comparison.share_of_gap(drawn, "a", "noisy").tolist() == [0.5, 0.5]


def bootstrap_at_once(users, runs, draws):
    """`comparison.bootstrap` with all draws in one array, as it was."""
    codes = np.unique(users, return_inverse=True)[1]
    counts, rng, result, seeds = np.bincount(codes), np.random.default_rng(0), {}, {}
    drawn = rng.integers(len(counts), size=(draws, len(counts)))
    rows = counts[drawn].sum(1)
    for name, values in runs.items():
        size = len(values)
        means = np.stack([np.bincount(codes, per_row)[drawn].sum(1) / rows for per_row in values], axis=1)
        chosen = seeds.setdefault(size, rng.integers(size, size=means.shape))
        centre = means.mean(1)
        of_seeds = np.take_along_axis(means, chosen, 1).mean(1) - centre
        result[name] = centre + of_seeds * (size / max(size - 1, 1)) ** 0.5
    return result


@pytest.mark.parametrize("cells", [1, 1000, 10**6])
def test_bootstrap_in_blocks_gives_the_same_numbers(monkeypatch, cells):
    rng = np.random.default_rng(0)
    users = rng.integers(301, size=900)  # an odd number of random numbers a draw
    runs = {"one": rng.random((3, 900)), "two": rng.random((1, 900)), "three": rng.random((3, 900))}
    monkeypatch.setattr(comparison, "DRAWN_AT_ONCE", cells)
    monkeypatch.setattr(comparison, "DRAWS", 200)
    expected, found = bootstrap_at_once(users, runs, draws=200), comparison.bootstrap(users, runs)
    assert {name: values.tobytes() for name, values in found.items()} == {name: v.tobytes() for name, v in expected.items()}


def test_bootstrap_of_many_users_stays_in_memory():
    """2,000 draws of 50,000 users: 0.8 GB an array of draws x users."""
    import tracemalloc

    users = np.arange(50_000)
    runs = {name: np.random.default_rng(0).random((2, 50_000)) for name in ("noisy", "clean")}
    tracemalloc.start()
    comparison.bootstrap(users, runs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6
