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

MOST_LOGITS = 4 * 2**30  # bytes on a GPU, of one pass


def tokens_at_once(model) -> int:
    """How many tokens a GPU reads in a pass: many, as passes of a small model wait for launches, but their logits must fit."""
    logits_of_a_token = model.config.get_text_config().vocab_size * model.dtype.itemsize  # bytes
    return min(16_384, MOST_LOGITS // logits_of_a_token)


class Reader:
    """What the model has read so far, for a batch of texts: its key-value cache and which of its columns each text has read.

    Texts that begin alike are branches of one row of the cache: what they share is kept, and read by attention, once.
    Columns that a text has not read are masked and do not count as positions, so each text is read as if it were alone.
    The cache is one buffer a layer that is written into, where a concatenating one would copy all of it at each step.
    """

    def __init__(self, model, buffers: list[tuple[torch.Tensor, torch.Tensor]], rows: list[int], mask: torch.Tensor):
        """buffers: (keys, values) of each layer, (R, H, capacity, D). rows: of N texts, the row of each, ascending.

        mask (N, T) bool: the columns of its row that each text has read.
        """
        self.model, self.buffers = model, buffers
        self.rows, self.mask = rows, mask
        self.copy_buffers = None  # the buffers that `copies` of this text are read in
        self.tokens_at_once = tokens_at_once(model) if mask.is_cuda else 1536  # about; on a CPU more are no faster

    @classmethod
    def start(cls, model, prefix: list[int]) -> "Reader":
        """One text that is the tokens all prompts begin with."""
        ids = torch.tensor([prefix], device=model.device)  # (1, T)
        layers = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values.layers
        return cls(model, [(layer.keys, layer.values) for layer in layers], [0], torch.ones_like(ids, dtype=torch.bool))

    def copies(self, count: int, room: int) -> "Reader":
        """A reader of `count` texts that begin as this one's only text, with room for `room` more columns.

        Its memory is that of the copies made before, as fresh memory costs more than reading: those must be done with.
        They never wrote where this text stands.
        """
        width = self.mask.shape[1]
        if self.copy_buffers:
            rows, _, capacity, _ = self.copy_buffers[0][0].shape
        if not self.copy_buffers or rows < count or capacity < width + room:
            self.copy_buffers = None  # frees it before there is a larger one
            self.copy_buffers = self.larger_buffers(count, width + room)
        buffers = [(keys[:count], values[:count]) for keys, values in self.copy_buffers]
        return Reader(self.model, buffers, list(range(count)), self.mask[[0] * count])

    def free_copies(self) -> None:
        """Give the memory of the copies back; none of them can be read on."""
        self.copy_buffers = None

    def larger_buffers(self, rows: int, capacity: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """What was read, in buffers of so many rows (a single row goes into each) and columns; the rest is zero.

        What is masked must still be a number.
        """
        width, larger = self.mask.shape[1], []
        for layer in self.buffers:
            larger.append(tuple(old.new_zeros(rows, old.shape[1], capacity, old.shape[3]) for old in layer))
            for old, new in zip(layer, larger[-1]):
                new[:, :, :width] = old[:, :, :width]
        return larger

    def branch(self, texts: list[int]) -> "Reader":
        """A reader of these texts, ascending and possibly repeated, in the rows of this reader.

        This reader may go on when its branches are done.
        """
        return Reader(self.model, self.buffers, [self.rows[text] for text in texts], self.mask[texts])

    def keep(self, texts: list[int]) -> None:
        """Leave all texts out but these, ascending."""
        self.rows, self.mask = [self.rows[text] for text in texts], self.mask[texts]

    def forget(self, counts: list[int]) -> None:
        """Take back the last tokens that each text read, so many of each (N,)."""
        number_from_end = self.mask.flip(1).cumsum(1).flip(1)  # (N, T): 1 at the last token that a text has read
        self.mask &= number_from_end > torch.tensor(counts, device=self.mask.device)[:, None]

    def read(self, pieces: list[list[int]]) -> torch.Tensor:
        """Read one more piece (of at least one token) in each text; returns the next token's log-probabilities (N, V)."""
        return torch.cat(list(self.forward(pieces, [1] * len(pieces)))).float().log_softmax(-1)

    def forward(self, pieces: list[list[int]], tails: list[int]):
        """Read one more piece in each text; yields each text's logits (tail, V) after the last `tail` tokens of its piece."""
        for texts, logits in self.forward_slices(pieces, tails):
            yield from logits.split(tails[texts])

    def forward_slices(self, pieces: list[list[int]], tails: list[int]):
        """The same, some texts at a time: yields (the slice of them, their logits (K, V) in a line, K the sum of their tails).

        Attention pads the texts of a slice to the longest row among them.
        """
        lengths = [len(piece) for piece in pieces]
        packed = self.pack(pieces, tails)
        stops = torch.tensor(lengths).cumsum(0).tolist()  # (N,) behind the last packed token of each text
        width = self.append_columns(packed)
        columns = torch.arange(width, device=self.mask.device)
        for texts in slices(lengths, self.tokens_at_once):
            tokens = slice(stops[texts.start] - lengths[texts.start], stops[texts.stop - 1])  # those of these texts
            # A token attends to what its text has read up to itself; columns behind it are its text's later tokens.
            is_seen = self.mask[packed.text[tokens]] & (columns <= packed.column[tokens, None])  # (n, T) bool
            in_tail = packed.is_in_tail[tokens].nonzero()[:, 0].to(self.mask.device)  # (K,) places in the n
            row, column = packed.row[tokens], packed.column[tokens]
            yield texts, read_packed(self.model, packed.ids[tokens], row, column, is_seen, self.buffers, in_tail)

    def pack(self, pieces: list[list[int]], tails: list[int]) -> "PackedTokens":
        """The tokens of all pieces in a line, and where each goes in the cache: behind all columns that there are, side by side.

        Branches of one row are neighbours, so their pieces follow each other in that row: a token's column is counted from
        the first token of the first of its row's texts.
        """
        lengths, rows = torch.tensor([len(piece) for piece in pieces]), torch.tensor(self.rows)  # (N,) each
        stops = lengths.cumsum(0)
        starts = stops - lengths  # (N,) the first packed token of each text
        text = torch.arange(len(pieces)).repeat_interleave(lengths)  # (n,) of each token
        number = torch.arange(len(text))  # (n,)
        first_text_of_row = torch.searchsorted(rows, rows)  # (N,) as rows ascend, the first place where the same row stands
        row_start = starts[first_text_of_row]  # (N,) the first packed token of the text's row
        column = self.mask.shape[1] + number - row_start[text]
        is_in_tail = number >= (stops - torch.tensor(tails))[text]
        ids = torch.tensor([token for piece in pieces for token in piece])
        on_device = (values.to(self.mask.device) for values in (ids, text, rows[text], column))
        return PackedTokens(*on_device, is_in_tail)

    def append_columns(self, packed: "PackedTokens") -> int:
        """Make room for packed tokens in buffers and mask, and mark them as read; returns how many columns there are then."""
        width = int(packed.column.max()) + 1
        rows, _, capacity, _ = self.buffers[0][0].shape
        if width > capacity:
            self.buffers = self.larger_buffers(rows, 3 * width // 2)
        self.mask = torch.nn.functional.pad(self.mask, (0, width - self.mask.shape[1]))
        self.mask[packed.text, packed.column] = True
        return width


@dataclass(frozen=True)
class PackedTokens:
    """n tokens of many texts in a line, each text's side by side. All are (n,), int64 on the model's device but the last.

    ids: the tokens. text: the number of each one's text. row, column: its place in the cache.
    is_in_tail: whether the logits after it are asked for; bool, on the CPU, where their number is known without waiting.
    """

    ids: torch.Tensor
    text: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    is_in_tail: torch.Tensor


@dataclass(frozen=True)
class CacheRows:
    """Where attention finds what n packed tokens may see.

    buffers: (keys, values) of each layer, (R, H, capacity, D). row, column (n,): a token's place in the cache.
    slot (n,): its place in the padded (rows, t) queries. rows: those of the cache that take part.
    attention: the name of what the model attends with otherwise.
    """

    buffers: list
    row: torch.Tensor
    column: torch.Tensor
    slot: torch.Tensor
    rows: slice | torch.Tensor
    attention: str


# Of the pass that runs; not all models hand keyword arguments of their forward pass down to attention (StableLM does not).
CACHE_ROWS: ContextVar[CacheRows] = ContextVar("cache_rows")


def read_packed(model, tokens, row, column, seen, buffers, in_tail) -> torch.Tensor:
    """Logits (K, V) after `in_tail` (K,) of n tokens of many texts, which are one sequence to the model, without padding.

    All layers but attention treat each token by itself. Attention takes each to its own row of a cache, which gets its
    keys and values: buffers, (keys, values) of each layer, (R, H, capacity, D). row, column (n,): where they go, the
    tokens of a row side by side. seen (n, T) bool: the columns of its row that a token attends to.
    """
    rows, row_number, counts = row.unique(return_inverse=True, return_counts=True)  # (R',), (n,), (R',)
    t, dtype = int(counts.max()), buffers[0][0].dtype
    first_token = counts.cumsum(0) - counts  # (R',) of each row, in the n
    number_in_row = torch.arange(len(row), device=row.device) - first_token[row_number]  # (n,)
    slot = row_number * t + number_in_row  # (n,) in (R', t), flat
    mask = torch.full((len(rows) * t, seen.shape[1]), torch.finfo(dtype).min, dtype=dtype, device=row.device)
    mask[slot] = mask[slot].masked_fill(seen, 0)  # (R' * t, T), added to attention's scores
    if rows[-1] - rows[0] == len(rows) - 1:
        rows = slice(int(rows[0]), int(rows[-1]) + 1)  # neighbours need no copy
    attention = model.config._attn_implementation
    cache_rows = CacheRows(buffers, row, column, slot, rows, attention)
    model.config._attn_implementation, before = in_rows(), CACHE_ROWS.set(cache_rows)
    try:
        out = model(
            input_ids=tokens[None],
            attention_mask=mask.view(len(counts), 1, t, -1),
            position_ids=seen.sum(-1)[None] - 1,
            use_cache=False,
            logits_to_keep=in_tail,
        )
    finally:
        model.config._attn_implementation = attention
        CACHE_ROWS.reset(before)
    return out.logits[0]


@cache
def in_rows() -> str:
    """The name under which transformers finds `attend_in_rows`."""
    AttentionInterface.register("in_rows", attend_in_rows)
    return "in_rows"


def attend_in_rows(module, query, key, value, attention_mask, **kwargs):
    """An attention function of transformers: query (1, H, n, D), attention_mask (R', 1, t, T) -> (1, n, H, D)."""
    cache_rows = CACHE_ROWS.get()
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)  # each model has its own
    attention = AttentionInterface().get_interface(cache_rows.attention, eager)
    keys, values = cache_rows.buffers[module.layer_idx]
    keys[cache_rows.row, :, cache_rows.column] = key[0].transpose(0, 1)  # (n, H, D)
    values[cache_rows.row, :, cache_rows.column] = value[0].transpose(0, 1)

    count, _, t, width = attention_mask.shape
    slots = query.new_zeros(count * t, query.shape[1], query.shape[3])  # (R' * t, H, D)
    slots.index_copy_(0, cache_rows.slot, query[0].transpose(0, 1))
    query = slots.unflatten(0, (count, t)).transpose(1, 2)  # (R', H, t, D)
    rows = cache_rows.rows
    out, _ = attention(module, query, keys[rows, :, :width], values[rows, :, :width], attention_mask, **kwargs)
    return out.flatten(0, 1)[cache_rows.slot][None], None  # (1, n, H, D) of (R', t, H, D)
