"""SASRec_code/training.py: it learns, and never reads test."""

import filter as threshold_filter
import pytest
import ranking
import rows
import torch
import training
from conftest import sasrec_arguments, write_denoised
from options import RecommenderOptions, RowsOptions, TrainingOptions

from denoise_code.common import errors


def test_learns_a_cycle(tmp_path):
    """The next item comes first; with bce of all that is not in the history, whose own items are never its negatives."""
    n_items = 20
    windows = torch.tensor([[(start + step) % n_items + 1 for step in range(11)] for start in range(n_items)]).repeat(40, 1)
    quick = "--maxlen 10 --num_epochs 100 --patience 12 --dropout_rate 0.1 --batchsize 64 --lr 0.002".split()
    for model, loss in (("SASRec", "bce"), ("SASRec", "ce"), ("GRU4Rec", "ce"), ("BERT4Rec", "ce")):
        args = sasrec_arguments(tmp_path, "--model", model, "--loss", loss, *quick)
        model = training.make_model(n_items, RecommenderOptions.from_arguments(args, args.model), 0, "cpu")
        training.fit(model, windows, windows[:n_items], TrainingOptions.from_arguments(args), 0)
        history, targets = windows[:n_items, :-1], windows[:n_items, -1]
        if loss == "ce":
            assert ranking.metrics(ranking.rank_targets(model, history, targets))["HR@1"] > 0.99, args.model
        assert (model.eval().scores(history).scatter(1, history, -torch.inf).argmax(1) == targets).all(), (args.model, loss)


def test_selection_never_reads_test(tmp_path):
    write_denoised(tmp_path)
    loaded = rows.load(RowsOptions.from_arguments(sasrec_arguments(tmp_path)))
    splits, n_items = loaded.splits, loaded.n_items
    without_test = {name: splits[name] for name in ("train", "valid")}
    selection = threshold_filter.selection_windows(without_test, {}, "valid", clean=False)
    assert (selection == splits["valid"].items).all() and (selection != splits["valid"].clean).any()
    model = training.make_model(n_items, RecommenderOptions(), 0, "cpu")
    train, selection = map(torch.from_numpy, (splits["train"].items, selection))
    training.fit(model, train, selection, TrainingOptions(num_epochs=2), 0)


def test_weights_that_are_no_numbers_lose():
    scores = torch.full((1, 4), torch.nan)
    assert ranking.ranks_of(scores, torch.tensor([[2]])).tolist() == [[0, 4]]  # one of four at random
    with pytest.raises(errors.InputError, match="smaller --lr"):
        windows = torch.randint(1, 30, (64, 11))
        model = training.make_model(30, RecommenderOptions(), 0, "cpu")
        training.fit(model, windows, windows, TrainingOptions(lr=1e30), 0)
