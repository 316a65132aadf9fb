"""denoise_code/evidence/similarity.py: the loss against a plain loop, learning, and nothing from a user's own windows."""

from pathlib import Path

import numpy as np
import pytest
import torch

from denoise_code.data_set.padded_rows import Split, half_of
from denoise_code.evidence import similarity
from denoise_code.evidence.similarity import TEMPERATURE, contrast_loss

N_ITEMS = 200


def test_contrast_loss_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    vectors = torch.nn.functional.normalize(torch.tensor(rng.normal(size=(9, 4))), dim=1)
    log_counts = torch.tensor(rng.normal(size=9))
    windows = [[0, 1, 2], [3, 4], [5, 2, 6, 6], [7, 8, 0]]  # items 0 and 2 stand in two windows, 6 twice in one
    losses = []
    for window in windows:
        for i in window:
            for j in window:
                if i != j:
                    rated = {k: float(vectors[i] @ vectors[k]) / TEMPERATURE - float(log_counts[k]) for k in range(9)}
                    others = sum(np.exp(rated[k]) for k in range(9) if k not in window)
                    losses.append(-np.log(np.exp(rated[j]) / (np.exp(rated[j]) + others)))
    padded = torch.tensor([[-1] * (4 - len(window)) + window for window in windows])
    assert contrast_loss(vectors, padded, log_counts).item() == pytest.approx(np.mean(losses))


def rows(n=600, seed=0):
    """Windows of even items, or of odd ones."""
    rng = np.random.default_rng(seed)
    items = np.stack([1 + row % 2 + 2 * rng.choice(N_ITEMS // 2, size=6, replace=False) for row in range(n)])
    return Split(Path("train.csv"), np.array([f"user {row // 3}" for row in range(n)]), items, np.zeros_like(items), items)


def told(vectors):
    """How much more alike items of one kind are than of two."""
    alike = vectors[1:].astype(np.float32) @ vectors[1:].astype(np.float32).T
    numbers = np.arange(len(alike))
    same = numbers[:, None] % 2 == numbers % 2
    return alike[same & ~np.eye(len(alike), dtype=bool)].mean() - alike[~same].mean()


def test_learns_which_part_of_a_title_matters():
    """One of 16 dimensions tells even from odd, little beside the others; the map finds it, for items that no window holds too."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(N_ITEMS + 1, 16))
    vectors[:, 0] = np.where(np.arange(N_ITEMS + 1) % 2, 0.5, -0.5)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    vectors[0] = 0
    train = rows(4000)
    train.items[train.items > N_ITEMS * 3 // 4] -= N_ITEMS // 2  # the last quarter is never seen
    learned = similarity.learn(train, vectors)
    assert learned.vectors.shape == (2, N_ITEMS + 1, 16) and not learned.vectors[:, 0].any()
    assert np.linalg.norm(learned.vectors[:, 1:].astype(np.float32), axis=2) == pytest.approx(1, abs=0.01)
    unseen = np.r_[0, N_ITEMS * 3 // 4 + 1 : N_ITEMS + 1]
    for table in learned.vectors:
        assert told(table) > told(vectors) + 0.05
        own = table[unseen[1:]].astype(np.float32)
        same = unseen[1:, None] % 2 == unseen[1:] % 2
        before = vectors[unseen[1:]].astype(np.float32)
        assert (own @ own.T)[same].mean() - (own @ own.T)[~same].mean() > (before @ before.T)[same].mean() - (before @ before.T)[
            ~same
        ].mean()


def test_gradients_are_added_in_one_order():
    """Else threads that add side by side would write another file at each run."""
    rng, gradients, threads = np.random.default_rng(0), set(), torch.get_num_threads()
    vectors = torch.tensor(rng.normal(size=(500, 16)), dtype=torch.float32, requires_grad=True)
    windows = torch.tensor(rng.integers(500, size=(64, 11)))
    torch.set_num_threads(2)
    try:
        for _ in range(10):
            (gradient,) = torch.autograd.grad(contrast_loss(vectors, windows, torch.zeros(500)), vectors)
            gradients.add(gradient.numpy().tobytes())
    finally:
        torch.set_num_threads(threads)
    assert len(gradients) == 1


def test_a_users_rows_are_seen_by_what_others_taught():
    """Other windows of the users of one half: what is said of that half's rows stays as it is."""
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(N_ITEMS + 1, 8)).astype(np.float16)
    train = rows()
    half, changed = half_of(train.users), rows(seed=5).items
    before = similarity.learn(train, vectors)
    train.items[half == 0] = changed[half == 0]
    after = similarity.learn(train, vectors)
    for which in (0, 1):
        users, items = train.users[half == which], rows(seed=7).items[half == which]
        assert np.array_equal(before.of(users, items), after.of(users, items)) == (which == 0)
    assert 0.4 < half.mean() < 0.6 and np.array_equal(half_of(train.users[::-1]), half[::-1])
