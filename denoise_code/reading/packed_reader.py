"""Reading many texts at once with a causal language model: packed passes without padding, one cache row a text.

Knows nothing of titles, windows and what the log-probabilities are for: texts are token ids here.
"""

import sys
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache

import torch
from transformers import AttentionInterface

from denoise_code.language_model.batches import slices


class Reader:
    """What the model has read so far, for a batch of texts: its key-value cache and which of its columns each text has read.

    Texts that begin alike are branches of one row of the cache: what they share is kept, and read by attention, once.
    Columns that a text has not read are masked and do not count as positions, so each text is read as if it were alone.
    The cache is one buffer a layer that is written into, where a concatenating one would copy all of it at each step.
    """

    def __init__(self, model, buffers, rows: list[int], mask: torch.Tensor):
        self.model = model
        self.buffers = buffers  # [(keys, values)] a layer, each (rows, H, capacity, D)
        self.rows, self.mask = rows, mask  # of N texts: the row of each, ascending; (N, T) what it has read
        self.spare = None  # buffers of the copies of this text
        self.tokens_at_once = 4096 if mask.is_cuda else 1536  # about; more are no faster and their logits take memory

    @classmethod
    def start(cls, model, prefix: list[int]) -> "Reader":
        """One text that is the tokens all prompts begin with."""
        ids = torch.tensor([prefix], device=model.device)
        layers = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values.layers
        return cls(model, [(layer.keys, layer.values) for layer in layers], [0], torch.ones_like(ids, dtype=torch.bool))

    def copies(self, count: int, room: int) -> "Reader":
        """A reader of that many texts that begin as this one's only text, with room for so many more columns.

        The memory is that of the copies made before, as fresh memory costs more than reading: those must be done. They
        never wrote where this text stands.
        """
        width = self.mask.shape[1]
        if not self.spare or len(self.spare[0][0]) < count or self.spare[0][0].shape[2] < width + room:
            self.spare = None  # frees it before there is a larger one
            self.spare = self.larger_buffers(count, width + room)
        buffers = [(keys[:count], values[:count]) for keys, values in self.spare]
        return Reader(self.model, buffers, list(range(count)), self.mask[[0] * count])

    def larger_buffers(self, rows: int, capacity: int):
        """What was read, in buffers of so many rows (a single row goes into each) and columns; the rest is zero.

        What is masked must still be a number.
        """
        width, larger = self.mask.shape[1], []
        for layer in self.buffers:
            larger.append(tuple(read.new_zeros(rows, read.shape[1], capacity, read.shape[3]) for read in layer))
            for read, buffer in zip(layer, larger[-1]):
                buffer[:, :, :width] = read[:, :, :width]
        return larger

    def branch(self, texts: list[int]) -> "Reader":
        """These texts, ascending, again and again where one repeats, in the rows of this reader; it may go on when they are done."""
        return Reader(self.model, self.buffers, [self.rows[text] for text in texts], self.mask[texts])

    def keep(self, texts: list[int]) -> None:
        """Leave all texts out but these, ascending."""
        self.rows, self.mask = [self.rows[text] for text in texts], self.mask[texts]

    def forget(self, counts: list[int]) -> None:
        """Take back what each text read last, so many tokens."""
        from_end = self.mask.flip(1).cumsum(1).flip(1)
        self.mask &= from_end > torch.tensor(counts, device=self.mask.device)[:, None]

    def read(self, pieces: list[list[int]]) -> torch.Tensor:
        """Read one more piece (of at least one token) in each text; returns the next token's log-probabilities (N, V)."""
        return torch.cat(list(self.forward(pieces, [1] * len(pieces)))).float().log_softmax(-1)

    def forward(self, pieces: list[list[int]], tails: list[int]):
        """Read one more piece in each text; yields each text's logits (tail, V) after the last `tail` tokens of its piece.

        A few texts at a time; attention pads them to the longest row among them.
        """
        device, width = self.mask.device, self.mask.shape[1]
        lengths, rows = torch.tensor(list(map(len, pieces))), torch.tensor(self.rows)
        ends = lengths.cumsum(0)
        starts = ends - lengths
        text = torch.arange(len(pieces)).repeat_interleave(lengths)  # of each token; its row, and its column in there:
        row, column = rows[text], width + torch.arange(len(text)) - starts[torch.searchsorted(rows, rows)][text]
        wanted = torch.arange(len(text)) >= (ends - torch.tensor(tails))[text]
        tokens = torch.tensor([token for piece in pieces for token in piece])
        tokens, text, row, column = (values.to(device) for values in (tokens, text, row, column))

        end = int(column.max()) + 1
        if end > self.buffers[0][0].shape[2]:
            self.buffers = self.larger_buffers(len(self.buffers[0][0]), 3 * end // 2)
        self.mask = torch.nn.functional.pad(self.mask, (0, end - width))
        self.mask[text, column] = True
        for texts in slices(lengths.tolist(), self.tokens_at_once):
            at = slice(starts[texts.start], ends[texts.stop - 1])
            seen = self.mask[text[at]] & (torch.arange(end, device=device) <= column[at, None])
            places = wanted[at].nonzero()[:, 0].to(device)
            logits = read_packed(self.model, tokens[at], row[at], column[at], seen, self.buffers, places)
            yield from logits.split(tails[texts])


@dataclass(frozen=True)
class CacheRows:
    """Where attention finds what the packed tokens may see: the cache, and each token's row and column in it.

    buffers: [(keys, values)] a layer, each (R, H, capacity, D). row, column, slot (n,): a token's place in the cache, and
    in the padded (rows, t) queries. rows: those of the cache that take part. usual: what the model attends with otherwise.
    """

    buffers: list
    row: torch.Tensor
    column: torch.Tensor
    slot: torch.Tensor
    rows: slice | torch.Tensor
    usual: str


# Of the pass that runs; not all models hand keyword arguments of their forward pass down to attention (StableLM does not).
CACHE_ROWS: ContextVar[CacheRows] = ContextVar("cache_rows")


def read_packed(model, tokens, row, column, seen, buffers, wanted) -> torch.Tensor:
    """Logits (wanted, V) of n tokens of many texts, which are one sequence to the model, without padding.

    All layers but attention treat each token by itself. Attention takes each to its own row of a cache, which gets its
    keys and values: buffers, [(keys, values)] a layer, each (R, H, capacity, D). row, column: (n,), where they go, the
    tokens of a row side by side. seen: (n, T), the columns of its row that a token attends to. wanted: places in the n.
    """
    rows, place, counts = row.unique(return_inverse=True, return_counts=True)
    t, dtype = int(counts.max()), buffers[0][0].dtype
    slot = place * t + torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[place]  # in (rows, t)
    mask = torch.full((len(rows) * t, seen.shape[1]), torch.finfo(dtype).min, dtype=dtype, device=row.device)
    mask[slot] = mask[slot].masked_fill(seen, 0)  # what is added to attention's scores
    if rows[-1] - rows[0] == len(rows) - 1:
        rows = slice(int(rows[0]), int(rows[-1]) + 1)  # neighbours need no copy
    usual = model.config._attn_implementation
    model.config._attn_implementation, before = in_rows(), CACHE_ROWS.set(CacheRows(buffers, row, column, slot, rows, usual))
    try:
        out = model(
            input_ids=tokens[None],
            attention_mask=mask.view(len(counts), 1, t, -1),
            position_ids=seen.sum(-1)[None] - 1,
            use_cache=False,
            logits_to_keep=wanted,
        )
    finally:
        model.config._attn_implementation = usual
        CACHE_ROWS.reset(before)
    return out.logits[0]


@cache
def in_rows() -> str:
    """The name under which transformers finds `attend_in_rows`."""
    AttentionInterface.register("in_rows", attend_in_rows)
    return "in_rows"


def attend_in_rows(module, query, key, value, attention_mask, **kwargs):
    """An attention function of transformers: query (1, H, n, D), attention_mask (R, 1, t, T) -> (1, n, H, D)."""
    at = CACHE_ROWS.get()
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)  # each model has its own
    attention = AttentionInterface().get_interface(at.usual, eager)
    keys, values = at.buffers[module.layer_idx]
    keys[at.row, :, at.column], values[at.row, :, at.column] = key[0].transpose(0, 1), value[0].transpose(0, 1)
    count, _, t, end = attention_mask.shape
    slots = query.new_zeros(count * t, query.shape[1], query.shape[3]).index_copy_(0, at.slot, query[0].transpose(0, 1))
    query = slots.unflatten(0, (count, t)).transpose(1, 2)
    out, _ = attention(module, query, keys[at.rows, :, :end], values[at.rows, :, :end], attention_mask, **kwargs)
    return out.flatten(0, 1)[at.slot][None], None
