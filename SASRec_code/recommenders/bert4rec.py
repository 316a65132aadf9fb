"""BERT4Rec (Sun et al., CIKM 2019): items are masked, and told by what stands on both sides of them."""

import torch
import torch.nn.functional as F
from recommenders.base import Attention, Dropout, Recommender, initialise
from torch import Tensor, nn

MASKED = 0.2  # share of the items in training (the paper's for MovieLens; 0.4 and 0.6 for sparser data)
LAST_ONLY = 0.2  # share of the windows in which the last item alone is masked, as in ranking


class Block(nn.Module):
    """Attention to both sides, then the point-wise feed-forward network, each with dropout, its residual and a norm after it."""

    def __init__(self, hidden_units: int, num_heads: int, dropout_rate: float):
        super().__init__()
        self.attention, self.attention_norm = Attention(hidden_units, num_heads, dropout_rate), nn.LayerNorm(hidden_units)
        self.inner, self.outer = nn.Linear(hidden_units, 4 * hidden_units), nn.Linear(4 * hidden_units, hidden_units)
        self.forward_norm, self.dropout = nn.LayerNorm(hidden_units), Dropout(dropout_rate)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attention(x, x, allowed)))
        return self.forward_norm(x + self.dropout(self.outer(F.gelu(self.inner(x)))))


class BERT4Rec(Recommender):
    """A bidirectional transformer over a window and a mask in place of what is asked for; positions count from the end."""

    def __init__(self, n_items: int, maxlen=10, hidden_units=64, num_blocks=2, num_heads=2, dropout_rate=0.2):
        super().__init__()
        self.items = nn.Embedding(n_items + 1, hidden_units, padding_idx=0)
        self.mask = nn.Parameter(torch.randn(hidden_units) * 0.02)
        self.positions = nn.Embedding(maxlen + 1, hidden_units)
        self.first_norm, self.dropout = nn.LayerNorm(hidden_units), Dropout(dropout_rate)
        self.blocks = nn.ModuleList(Block(hidden_units, num_heads, dropout_rate) for _ in range(num_blocks))
        self.output, self.last_norm = nn.Linear(hidden_units, hidden_units), nn.LayerNorm(hidden_units)
        self.bias = nn.Parameter(torch.zeros(n_items + 1))
        self.apply(initialise)

    def predict(self, windows: Tensor, asked: Tensor) -> Tensor:
        """What items (B, W, D) the places of windows (B, W) call for, those where asked (B, W) being masked."""
        places = torch.arange(len(self.positions.weight) - windows.shape[1], len(self.positions.weight), device=windows.device)
        x = torch.where(asked[..., None], self.mask, self.items(windows)) + self.positions(places)
        x, allowed = self.dropout(self.first_norm(x)), ((windows != 0) | asked)[:, None, None]  # (B, 1, 1, W)
        for block in self.blocks:
            x = block(x, allowed)
        return self.last_norm(F.gelu(self.output(x)))

    def scores(self, history: Tensor) -> Tensor:
        windows = F.pad(history, (0, 1))  # what comes next: a mask at the end
        asked = torch.zeros_like(windows, dtype=torch.bool)
        asked[:, -1] = True
        return self.score(self.predict(windows, asked)[:, -1], self.bias)

    def ce_loss(self, windows: Tensor) -> Tensor:
        """Cross-entropy of the masked items of windows (B, W) over the whole catalogue."""
        drawn = torch.rand(windows.shape, device=windows.device)
        asked = drawn < MASKED
        asked[torch.rand(len(windows), device=windows.device) < LAST_ONLY] = False
        asked[:, -1] |= ~(asked & (windows != 0)).any(1)
        asked &= windows != 0
        hidden, targets = self.predict(windows, asked)[asked], windows[asked] - 1
        parts = nn.LinearCrossEntropyOptions()
        return F.linear_cross_entropy(hidden, self.items.weight[1:], targets, linear_bias=self.bias[1:], options=parts)
