"""BERT4Rec (Sun et al., CIKM 2019): items are masked, and told by what stands on both sides of them."""

import torch
import torch.nn.functional as F
from recommenders.base import Attention, Recommender, initialise
from torch import Tensor, nn

from denoise_code.common.dropout import Dropout

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

    def predict(self, windows: Tensor, masked: Tensor) -> Tensor:
        """What items (B, W, D) the places of windows (B, W) call for, those where masked (B, W) being hidden."""
        width, n_positions = windows.shape[1], len(self.positions.weight)
        places = torch.arange(n_positions - width, n_positions, device=windows.device)  # (W,) counted from the end
        embedded = torch.where(masked[..., None], self.mask, self.items(windows))  # (B, W, D)
        x = self.dropout(self.first_norm(embedded + self.positions(places)))
        allowed = ((windows != 0) | masked)[:, None, None]  # (B, 1, 1, W)
        for block in self.blocks:
            x = block(x, allowed)
        return self.last_norm(F.gelu(self.output(x)))

    def scores(self, history: Tensor) -> Tensor:
        windows = F.pad(history, (0, 1))  # (B, L + 1) what comes next: a mask at the end
        masked = torch.zeros_like(windows, dtype=torch.bool)
        masked[:, -1] = True
        last_hidden_state = self.predict(windows, masked)[:, -1]  # (B, D)
        return self.scores_of_items(last_hidden_state, self.bias)

    def ce_loss(self, windows: Tensor) -> Tensor:
        """Cross-entropy of the masked items of windows (B, W) over the whole catalogue."""
        masked = self.draw_mask(windows)
        hidden_states = self.predict(windows, masked)[masked]  # (masked items, D)
        targets = windows[masked] - 1  # (masked items,) without padding items count from 0
        in_parts = nn.LinearCrossEntropyOptions()
        return F.linear_cross_entropy(hidden_states, self.items.weight[1:], targets, linear_bias=self.bias[1:], options=in_parts)

    def draw_mask(self, windows: Tensor) -> Tensor:
        """Which items to mask (B, W) bool: each with MASKED; in LAST_ONLY of the windows the last alone, and where none was drawn."""
        is_item = windows != 0
        masked = torch.rand(windows.shape, device=windows.device) < MASKED
        last_only = torch.rand(len(windows), device=windows.device) < LAST_ONLY  # (B,)
        masked[last_only] = False
        masked[:, -1] |= ~(masked & is_item).any(1)
        return masked & is_item
