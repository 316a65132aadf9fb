"""SASRec (Kang and McAuley, ICDM 2018) as the LLM4DSR release configures it."""

import torch
import torch.nn.functional as F
from recommenders.base import Attention, Recommender, initialise
from torch import Tensor, nn

from denoise_code.common.dropout import Dropout


class Block(nn.Module):
    """Attention, then the point-wise feed-forward network, each with its residual."""

    def __init__(self, hidden_units: int, num_heads: int, dropout_rate: float):
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden_units, eps=1e-8)
        self.attention = Attention(hidden_units, num_heads, dropout_rate)
        self.forward_norm = nn.LayerNorm(hidden_units, eps=1e-8)
        self.inner, self.outer = nn.Linear(hidden_units, hidden_units), nn.Linear(hidden_units, hidden_units)
        self.dropout = Dropout(dropout_rate)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        query = self.attention_norm(x)
        x = self.forward_norm(query + self.attention(query, x, allowed))
        return x + self.dropout(self.outer(self.dropout(F.relu(self.inner(x)))))


class SASRec(Recommender):
    """Item 0 is padding: its rows are zeroed after every block and no row attends to it. Positions count from the end."""

    def __init__(self, n_items: int, maxlen=10, hidden_units=64, num_blocks=2, num_heads=1, dropout_rate=0.5):
        super().__init__()
        self.maxlen = maxlen
        self.items = nn.Embedding(n_items + 1, hidden_units, padding_idx=0)
        self.positions = nn.Embedding(maxlen, hidden_units)
        self.dropout = Dropout(dropout_rate)
        self.blocks = nn.ModuleList(Block(hidden_units, num_heads, dropout_rate) for _ in range(num_blocks))
        self.last_norm = nn.LayerNorm(hidden_units, eps=1e-8)
        self.apply(initialise)

    def encode(self, history: Tensor, embedded: Tensor) -> Tensor:
        length = history.shape[1]
        is_item = history != 0  # (B, L)
        places = torch.arange(self.maxlen - length, self.maxlen, device=history.device)  # (L,) counted from the end
        x = embedded * self.items.embedding_dim**0.5 + self.positions(places)
        x = self.dropout(x) * is_item[..., None]
        causal = torch.ones(length, length, dtype=torch.bool, device=history.device).tril()  # (L, L)
        itself = torch.eye(length, dtype=torch.bool, device=history.device)  # else a row of padding attends to nothing
        allowed = ((causal & is_item[:, None, :]) | itself)[:, None]  # (B, 1, L, L)
        for block in self.blocks:
            x = block(x, allowed) * is_item[..., None]
        return self.last_norm(x)
