"""Seconds per epoch and per evaluation of SASRec_code beside a plain version of the release's way, in one run.

python tests/benchmarks/bench_sasrec.py                  # Toy size: 38,000 rows, 11,758 items
python tests/benchmarks/bench_sasrec.py --growth         # and 10^4..10^6 items, 10^4..10^5 rows
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "SASRec_code"))
from options import TrainingOptions
from ranking import metrics, rank_targets
from recommenders.sasrec import SASRec
from training import train_epoch

from denoise_code.common.dropout import Dropout

EVAL_ROWS = 4794


class Rows(torch.utils.data.Dataset):
    """The plain way: a row at a time through a DataLoader."""

    def __init__(self, windows):
        self.windows = windows.tolist()

    def __len__(self):
        return len(self.windows)

    def __getitem__(self, row):
        return torch.tensor(self.windows[row])


def plain_epoch(model, windows, optimiser, n_items, batch_size):
    """Negatives from a (batch, items) table of ones with the window's own items set to zero, by multinomial."""
    model.train()
    for batch in torch.utils.data.DataLoader(Rows(windows), batch_size, shuffle=True):
        allowed = torch.ones(len(batch), n_items + 1)
        allowed[:, 0] = 0
        allowed.scatter_(1, batch, 0)
        negatives = torch.multinomial(allowed, batch.shape[1] - 1)
        hidden, real = model(batch[:, :-1]), batch[:, :-1] != 0
        scores = [(hidden * model.items(items)).sum(-1)[real] for items in (batch[:, 1:], negatives)]
        wanted = [torch.ones_like(scores[0]), torch.zeros_like(scores[1])]
        loss = sum(map(F.binary_cross_entropy_with_logits, scores, wanted))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@torch.no_grad()
def plain_evaluation(model, windows, batch_size):
    """Two full sorts a row give the target's rank."""
    model.eval()
    ranks = []
    for batch in torch.utils.data.DataLoader(Rows(windows), batch_size):
        order = (-model.scores(batch[:, :-1])).argsort(1).argsort(1)
        ranks.append(order.gather(1, batch[:, -1:])[:, 0])
    ranks = torch.cat(ranks)
    return torch.stack([ranks, torch.ones_like(ranks)], dim=1).numpy()  # (N, 2): this way breaks ties as the order comes


def plain_model(n_items):
    """The same network with the library's own dropout."""
    model = SASRec(n_items)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Dropout):
                setattr(parent, name, torch.nn.Dropout(child.rate))
    return model


def random_windows(rows, n_items, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(1, n_items + 1, size=(rows, 11)))


def timed(action):
    started = time.perf_counter()
    result = action()
    return time.perf_counter() - started, result


def ours(rows, n_items, batch_size):
    """Seconds an epoch, seconds an evaluation, and the share of the epoch that is forward, backward and optimiser."""
    torch.manual_seed(0)
    model, windows, test = SASRec(n_items), random_windows(rows, n_items), random_windows(EVAL_ROWS, n_items, 1)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3, betas=(0.9, 0.98), fused=True)
    options, generator = TrainingOptions(batchsize=batch_size, loss="bce"), torch.Generator().manual_seed(0)
    train_epoch(model, windows[: 4 * batch_size], optimiser, options, generator)
    epoch, _ = timed(lambda: train_epoch(model, windows, optimiser, options, generator))
    negatives = random_windows(batch_size, n_items, 2)[:, 1:]

    def bare():
        for batch in windows.split(batch_size):
            optimiser.zero_grad(set_to_none=True)
            model.bce_loss(batch, negatives[: len(batch)]).backward()
            optimiser.step()

    core, _ = timed(bare)
    rank_targets(model, test[:200, :-1], test[:200, -1])
    evaluation, ranks = timed(lambda: rank_targets(model, test[:, :-1], test[:, -1]))
    return model, test, epoch, evaluation, min(core / epoch, 1.0), ranks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--growth", action="store_true")
    args = parser.parse_args()
    rows, n_items, batch_size = 38_000, 11_758, 256
    model, test, epoch, evaluation, share, ranks = ours(rows, n_items, batch_size)
    plain_evaluated, plain_ranks = timed(lambda: plain_evaluation(model, test, batch_size))
    assert abs(metrics(plain_ranks)["NDCG@20"] - metrics(ranks)["NDCG@20"]) < 1e-6, "the two evaluations differ"
    model = plain_model(n_items)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    plain, _ = timed(lambda: plain_epoch(model, random_windows(rows, n_items), optimiser, n_items, batch_size))
    print(f"{rows:,} rows, {n_items:,} items, batch {batch_size}, {torch.get_num_threads()} threads")
    print(f"epoch       {epoch:7.2f} s, the release's way {plain:7.2f} s: {plain / epoch:.1f}x; {share:.0%} model and optimiser")
    print(f"evaluation  {evaluation:7.2f} s, the release's way {plain_evaluated:7.2f} s: {plain_evaluated / evaluation:.1f}x")
    if args.growth:
        print("      rows      items   s/epoch  s/evaluation  model and optimiser")
        for rows, n_items in ((10_000, 10_000), (10_000, 100_000), (10_000, 1_000_000), (30_000, 10_000), (100_000, 10_000)):
            _, _, epoch, evaluation, share, _ = ours(rows, n_items, batch_size)
            print(f"{rows:>10,} {n_items:>10,} {epoch:>9.2f} {evaluation:>13.2f} {share:>20.0%}", flush=True)


if __name__ == "__main__":
    main()
