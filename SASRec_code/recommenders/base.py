"""What a recommender is to this stage, and the parts that several share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from denoise_code.common.dropout import Dropout


class Attention(nn.Module):
    """Multi-head attention of a query (in SASRec normalised beforehand) to a window."""

    def __init__(self, hidden_units: int, num_heads: int, dropout_rate: float):
        super().__init__()
        self.num_heads, self.dropout = num_heads, Dropout(dropout_rate)
        self.query = nn.Linear(hidden_units, hidden_units)
        self.key_value = nn.Linear(hidden_units, 2 * hidden_units)
        self.output = nn.Linear(hidden_units, hidden_units)

    def forward(self, query: Tensor, x: Tensor, allowed: Tensor) -> Tensor:
        """query, x (B, L, D); allowed (B, 1, L or 1, L) is True where a row may look at a column."""
        batch, length, width = x.shape
        key, value = self.key_value(x).chunk(2, dim=-1)  # (B, L, D) each
        q, k, v = (self.by_head(tensor) for tensor in (self.query(query), key, value))  # (B, H, L, D / H)
        # The library's kernel draws slower dropout.
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)  # (B, H, L, L)
        weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
        mixed = self.dropout(weights) @ v  # (B, H, L, D / H)
        return self.output(mixed.transpose(1, 2).reshape(batch, length, width))

    def by_head(self, tensor: Tensor) -> Tensor:
        """(B, L, D) -> (B, H, L, D / H)"""
        batch, length, width = tensor.shape
        return tensor.reshape(batch, length, self.num_heads, width // self.num_heads).transpose(1, 2)


def initialise(module: nn.Module) -> None:
    """Normal weights of deviation 0.02, no bias, a zero row of padding."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx])


class Recommender(nn.Module):
    """Scores of the next item from a left-padded history; more padding on the left must change nothing.

    A model has `items`, an embedding (n_items + 1, D) whose row of padding (item 0) is zero, and either `encode` or, as BERT4Rec,
    `scores` and a loss of its own. A loss that it lacks is left out of LOSSES in options.py.
    Windows (B, L + 1) int64 hold a history (B, L) and its target.
    """

    items: nn.Embedding

    def encode(self, history: Tensor, embedded: Tensor) -> Tensor:
        """Hidden states (B, L, D) after each item of history (B, L), 0 on the left where it is shorter.

        embedded (B, L, D): the rows of `items` for the history.
        """
        raise NotImplementedError

    def forward(self, history: Tensor) -> Tensor:
        """Hidden states (B, L, D) after each item of history (B, L)."""
        return self.encode(history, self.items(history))

    def scores(self, history: Tensor) -> Tensor:
        """Score (B, n_items + 1) of every item as the next one after history (B, L); the padding item's is -inf."""
        last_hidden_state = self(history)[:, -1]  # (B, D)
        return self.scores_of_items(last_hidden_state)

    def scores_of_items(self, hidden_state: Tensor, bias: Tensor | float = 0.0) -> Tensor:
        """Score (B, n_items + 1) of every item where hidden_state (B, D) calls for one; the padding item's is -inf."""
        scores = hidden_state @ self.items.weight.T + bias
        scores[:, 0] = -torch.inf
        return scores

    def bce_loss(self, windows: Tensor, negatives: Tensor) -> Tensor:
        """Binary cross-entropy of each next item of windows (B, L + 1) against one negative (B, L).

        The mean over positions of -log sigmoid(positive score), plus that of -log(1 - sigmoid(negative score)).
        """
        history, length = windows[:, :-1], negatives.shape[1]
        # One look-up for history, positives and negatives: its gradient is as large as the catalogue.
        embedded = self.items(torch.cat([windows, negatives], dim=1))  # (B, L + 1 + L, D)
        positive_vectors = embedded[:, 1 : length + 1]  # (B, L, D) of the item after each of the history
        negative_vectors = embedded[:, length + 1 :]  # (B, L, D)
        hidden_states = self.encode(history, embedded[:, :length])  # (B, L, D)
        is_item = history != 0  # (B, L)
        positive_scores = (hidden_states * positive_vectors).sum(-1)[is_item]
        negative_scores = (hidden_states * negative_vectors).sum(-1)[is_item]
        return F.softplus(-positive_scores).mean() + F.softplus(negative_scores).mean()

    def ce_loss(self, windows: Tensor) -> Tensor:
        """Cross-entropy of each next item of windows (B, L + 1) over the whole catalogue; its logits exist a part at a time."""
        history = windows[:, :-1]
        is_item = history != 0  # (B, L)
        hidden_states = self(history)[is_item]  # (positions, D)
        targets = windows[:, 1:][is_item] - 1  # (positions,) without padding items count from 0
        in_parts = nn.LinearCrossEntropyOptions()
        return F.linear_cross_entropy(hidden_states, self.items.weight[1:], targets, options=in_parts)


def sample_negatives(windows: Tensor, n_items: int, generator: torch.Generator) -> Tensor:
    """One item (B, L) int64 per position of windows (B, L + 1), uniform over 1..n_items less the window's own items."""

    def draw(*size: int) -> Tensor:
        return torch.randint(1, n_items + 1, size, generator=generator, device=windows.device)

    def in_window(negatives: Tensor) -> Tensor:
        return (negatives[:, :, None] == windows[:, None, :]).any(-1)  # (B, L)

    batch, width = windows.shape
    negatives = draw(batch, width - 1)
    rejected = in_window(negatives)
    while rejected.any():  # each round accepts all but about width / n_items of what was drawn anew
        negatives[rejected] = draw(int(rejected.sum()))
        rejected = in_window(negatives)
    return negatives
