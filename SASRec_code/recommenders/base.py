"""What a recommender is to this stage, and the parts that several share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """nn.Dropout whose mask costs a quarter of the random numbers: 16 bits an element, so the rate is exact to 2^-16.

    On a CPU drawing the masks of nn.Dropout is a quarter of a training step.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device).random_(-(2**63), None)
        kept = words.view(torch.int16)[: x.numel()].reshape(x.shape) >= round(self.rate * 2**16) - 2**15
        return x * kept.to(x.dtype).mul_(1 / (1 - self.rate))


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
        heads = (batch, length, self.num_heads, width // self.num_heads)
        key, value = self.key_value(x).chunk(2, dim=-1)
        q, k, v = (part.reshape(heads).transpose(1, 2) for part in (self.query(query), key, value))  # (B, H, L, D / H)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)  # (B, H, L, L); the library's kernel draws slower dropout
        mixed = self.dropout(scores.masked_fill(~allowed, -torch.inf).softmax(-1)) @ v
        return self.output(mixed.transpose(1, 2).reshape(batch, length, width))


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

    A model has `items`, an embedding (n_items + 1, D) whose row of padding (item 0) is zero, and `encode`.
    """

    items: nn.Embedding

    def encode(self, history: Tensor, embedded: Tensor) -> Tensor:
        """Hidden states (B, L, D) after each item of history (B, L), 0 on the left where it is shorter; embedded (B, L, D)."""
        raise NotImplementedError

    def forward(self, history: Tensor) -> Tensor:
        return self.encode(history, self.items(history))

    def scores(self, history: Tensor) -> Tensor:
        """Score (B, n_items + 1) of every item as the next one; the padding item's is -inf."""
        return self.score(self(history)[:, -1])

    def score(self, hidden: Tensor, bias: Tensor | float = 0.0) -> Tensor:
        """The same from what is called for (B, D)."""
        scores = hidden @ self.items.weight.T + bias
        scores[:, 0] = -torch.inf
        return scores

    def bce_loss(self, windows: Tensor, negatives: Tensor) -> Tensor:
        """Binary cross-entropy of each next item of windows (B, L + 1) against one negative (B, L), mean over both parts."""
        history, length = windows[:, :-1], negatives.shape[1]
        embedded = self.items(torch.cat([windows, negatives], dim=1))  # one look-up: its gradient is as large as the catalogue
        hidden, real = self.encode(history, embedded[:, :length]), history != 0
        positive = (hidden * embedded[:, 1 : length + 1]).sum(-1)[real]
        negative = (hidden * embedded[:, length + 1 :]).sum(-1)[real]
        return F.softplus(-positive).mean() + F.softplus(negative).mean()

    def ce_loss(self, windows: Tensor) -> Tensor:
        """Cross-entropy of each next item of windows (B, L + 1) over the whole catalogue; its logits exist a part at a time."""
        real, parts = windows[:, :-1] != 0, nn.LinearCrossEntropyOptions()
        hidden, targets = self(windows[:, :-1])[real], windows[:, 1:][real] - 1
        return F.linear_cross_entropy(hidden, self.items.weight[1:], targets, options=parts)


def sample_negatives(windows: Tensor, n_items: int, generator: torch.Generator) -> Tensor:
    """One item (B, L) per position of windows (B, L + 1), uniform over 1..n_items less the window's own items."""
    batch, width = windows.shape
    negatives = torch.randint(1, n_items + 1, (batch, width - 1), generator=generator, device=windows.device)
    clash = (negatives[:, :, None] == windows[:, None, :]).any(-1)
    while clash.any():  # each round keeps all but about width / n_items of what is left
        negatives[clash] = torch.randint(1, n_items + 1, (int(clash.sum()),), generator=generator, device=windows.device)
        clash = (negatives[:, :, None] == windows[:, None, :]).any(-1)
    return negatives
