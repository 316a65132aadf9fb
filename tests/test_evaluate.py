"""SASRec_code/evaluate.py: ranks and metrics against slow versions."""

import evaluate
import numpy as np
import pytest
import torch
from model import SASRec


def test_ranks_by_hand():
    scores = torch.tensor([[-torch.inf, 3.0, 2.0, 2.0, 2.0, 1.0], [-torch.inf, 1.0, 1.0, 1.0, 1.0, 1.0]])
    for target, ranks in ((1, [0, 2]), (2, [2, 2]), (5, [4, 2])):
        assert evaluate.ranks_of(scores, torch.tensor([[target], [target]])).tolist() == ranks
    result = evaluate.metrics(np.array([0.0, 4.0, 5.0, 30.0]))
    assert result["HR@1"] == 0.25 and result["HR@5"] == 0.5 and result["HR@10"] == 0.75 and result["HR@50"] == 1
    assert result["NDCG@5"] == pytest.approx((1 + 1 / np.log2(6)) / 4)
    assert result["MRR"] == pytest.approx((1 + 1 / 5 + 1 / 6 + 1 / 31) / 4)
    assert evaluate.metrics(np.array([0.5]))["NDCG@1"] == pytest.approx(1 / np.log2(2.5))  # a tie for first place


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
        expected.append(sum(s > scores[target] for s in others) + sum(s == scores[target] for s in others) / 2)
    at_once, evaluate.SCORES_AT_ONCE = evaluate.SCORES_AT_ONCE, 20 * 7
    try:
        assert evaluate.rank_targets(Fixed(table), histories, targets).tolist() == expected
    finally:
        evaluate.SCORES_AT_ONCE = at_once


def test_bootstrap_draws_whole_users():
    users = np.repeat(np.arange(50), 4)
    values = np.repeat(np.random.default_rng(0).normal(0.1, 1, 50), 4)
    drawn = evaluate.bootstrap(users, {"before": values[None], "after": values[None] + 0.5})
    assert drawn["after"] - drawn["before"] == pytest.approx(np.full(2000, 0.5))  # the same users for both
    spread = values[::4].std() / 50**0.5  # four equal rows a user carry the information of one
    assert drawn["before"].mean() == pytest.approx(values.mean(), abs=0.01) and drawn["before"].std() == pytest.approx(
        spread, rel=0.1
    )


def test_bootstrap_knows_that_seeds_differ():
    """Rows that are all alike, seeds that are not: the spread is that of a mean of five seeds, and none between equal runs."""
    runs = np.repeat(np.array([0.0, 1.0, 2.0, 3.0, 4.0])[:, None], 30, 1)
    drawn = evaluate.bootstrap(np.arange(30), {"one": runs, "same": runs, "single": runs[:1]})
    assert drawn["one"].mean() == pytest.approx(2, abs=0.1) and (drawn["one"] == drawn["same"]).all()
    assert drawn["one"].std() == pytest.approx(np.std([0, 1, 2, 3, 4], ddof=1) / 5**0.5, rel=0.1) and not drawn["single"].any()


def test_a_share_of_no_gap_is_not_reported():
    users, ranks = np.arange(200), np.random.default_rng(0).integers(0, 40, size=(3, 200)).astype(float)
    better = np.maximum(ranks - 15, 0)
    rows = {row["rows"]: row for row in evaluate.compare(users, {"noisy": ranks, "a": better, "clean": better})}
    assert rows["a"]["gap won back"] == {"mean": 1.0, "interval_95": [1.0, 1.0]}
    rows = {row["rows"]: row for row in evaluate.compare(users, {"noisy": ranks, "a": better, "clean": ranks})}
    assert "gap won back" not in rows["a"] and rows["clean"]["difference"] == {"mean": 0.0, "interval_95": [0.0, 0.0]}
    assert "gap won back" not in evaluate.compare(users, {"clean": better, "noisy": ranks})[1]


def test_million_items_stay_in_memory(monkeypatch):
    """Evaluation holds a bounded batch of scores whatever the catalogue."""
    model, sizes, scores = SASRec(1_000_000, hidden_units=4).eval(), [], SASRec.scores
    monkeypatch.setattr(SASRec, "scores", lambda self, history: sizes.append(len(history)) or scores(self, history))
    histories, targets = torch.randint(1, 10**6, (40, 10)), torch.randint(1, 10**6, (40,))
    assert evaluate.rank_targets(model, histories, targets).shape == (40,) and max(sizes) <= 16


def test_a_draw_without_a_gap_has_no_share():
    """Where the users drawn all have the same in noisy and clean rows there is nothing to have a share of: no NaN, no infinity."""
    drawn = {"noisy": np.array([1.0, 2, 3]), "a": np.array([1.5, 2, 3.5]), "clean": np.array([2.0, 2, 4])}
    assert evaluate.share_of_gap(drawn, "a", "noisy").tolist() == [0.5, 0.5]
