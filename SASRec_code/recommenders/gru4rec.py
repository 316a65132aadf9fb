"""GRU4Rec (Hidasi et al., ICLR 2016): a recurrent network reads the history item by item."""

import torch
from recommenders.base import Dropout, Recommender, initialise
from torch import Tensor, nn


class GRU4Rec(Recommender):
    """Embedding, `num_blocks` layers of gated recurrent units, dropout between them; maxlen and num_heads mean nothing here."""

    def __init__(self, n_items: int, maxlen=10, hidden_units=100, num_blocks=1, num_heads=1, dropout_rate=0.5):
        super().__init__()
        self.items = nn.Embedding(n_items + 1, hidden_units, padding_idx=0)
        self.dropout = Dropout(dropout_rate)
        between = dropout_rate if num_blocks > 1 else 0.0
        self.layers = nn.GRU(hidden_units, hidden_units, num_blocks, batch_first=True, dropout=between)
        self.output = nn.Linear(hidden_units, hidden_units)
        self.apply(initialise)

    def encode(self, history: Tensor, embedded: Tensor) -> Tensor:
        """The state starts at the first item: rows are read from the left, and put back to the right."""
        length = history.shape[1]
        padding = (history == 0).sum(1, keepdim=True)
        places = torch.arange(length, device=history.device)
        to_left = ((places + padding) % length)[..., None].expand_as(embedded)  # (B, L, D)
        states, _ = self.layers(self.dropout(embedded.gather(1, to_left)))
        to_right = ((places - padding) % length)[..., None].expand_as(states)
        return self.output(self.dropout(states)).gather(1, to_right)
