"""GRU4Rec (Hidasi et al., ICLR 2016): a recurrent network reads the history item by item."""

import torch
from recommenders.base import Recommender, initialise
from torch import Tensor, nn

from denoise_code.common.dropout import Dropout


class GRU4Rec(Recommender):
    """Embedding, `num_blocks` layers of gated recurrent units, dropout between them; maxlen and num_heads mean nothing here."""

    def __init__(self, n_items: int, maxlen=10, hidden_units=100, num_blocks=1, num_heads=1, dropout_rate=0.5):
        super().__init__()
        self.items = nn.Embedding(n_items + 1, hidden_units, padding_idx=0)
        self.dropout = Dropout(dropout_rate)
        dropout_between_layers = dropout_rate if num_blocks > 1 else 0.0
        self.layers = nn.GRU(hidden_units, hidden_units, num_blocks, batch_first=True, dropout=dropout_between_layers)
        self.output = nn.Linear(hidden_units, hidden_units)
        self.apply(initialise)

    def encode(self, history: Tensor, embedded: Tensor) -> Tensor:
        """The state starts at the first item: rows are read from the left, and put back to the right."""
        length = history.shape[1]
        padding = (history == 0).sum(1, keepdim=True)  # (B, 1)
        places = torch.arange(length, device=history.device)  # (L,)
        # Turning each row by its padding brings its items to the left end, in their order, and its padding behind them.
        to_left = ((places + padding) % length)[..., None].expand_as(embedded)  # (B, L, D)
        items_first = embedded.gather(1, to_left)
        states, _ = self.layers(self.dropout(items_first))  # (B, L, D)
        to_right = ((places - padding) % length)[..., None].expand_as(states)
        return self.output(self.dropout(states)).gather(1, to_right)
