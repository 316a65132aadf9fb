"""Stage 2: a noise probability for every item of every window, and replacements for the most suspicious ones.

The fine-tuned model reads each window as it is; the log-probability with which it starts to name a title is that
item's noise probability (LLM4DSR, arXiv 2408.08208, section 3.3). For the top suspects it then says what fits better.

Reads   an adapter folder of train_denoise_model.py and a data set folder data/<Name>_noise_user<rate>/
Writes  data/<Name>_denoise_user<rate>_<sample>[_<step>]/: the same rows with noise_prob, noise_items, noise_items_prob,
        suggest_item_titles, suggest_item_ids (see data/README.md), planted.csv, the title maps and run.json

    python generate_denoised.py --denoise_model_path save_denoise_model/ML100K_noise_user0.1/batch4_sample2400_epoch1/checkpoint-600 \
        --noise_dataset_path data/ML100K_noise_user0.1 --denoise_data test_5000 --limit 64
    accelerate launch generate_denoised.py --noise_dataset_path data/Movie_noise_user0.0 \
        --denoise_model_path save_denoise_model/Movie_noise_user0.0/batch128_sample5000_epoch50/checkpoint-2000

Every process takes each WORLD_SIZE-th batch (RANK and WORLD_SIZE alone decide, so array jobs on one file system work
too), appends what it finished to a file of its own, and the last one to finish puts the rows together. Started again
after a kill, it goes on where it was.
"""  # noqa: E501

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from train_denoise_model import (
    InputError,
    Parser,
    Prompt,
    Question,
    check_attention,
    check_length,
    choose_dtype,
    clean_title,
    continue_tokens,
    data_fingerprint,
    find_train_file,
    fingerprint,
    load_base_model,
    load_tokenizer,
    pad_left,
    partial_path,
    peak_memory_gib,
    plant,
    positive,
    quiet_libraries,
    read_catalogue,
    read_windows,
    share,
    split_rows,
    title_log_likelihoods,
    tokenize_question,
    write_json,
)

DIGITS = 5  # of a noise probability; the arithmetic is good to about 1e-5
PLANTED = "planted"
PILOT_BATCHES = 8  # batches that estimate --min_percentile
PERCENTILES = (0.5, 0.6, 0.7, 0.8, 0.9)  # at which precision and recall are reported
NEW_COLUMNS = ["noise_prob", "noise_items", "noise_items_prob", "suggest_item_titles", "suggest_item_ids"]


# ---------------------------------------------------------------- where things go


def output_name(dataset: str, model_path: Path, sample: int) -> str:
    """The output-folder rule: Toy_noise_user0.1 + …sample5000…/checkpoint-2000 -> Toy_denoise_user0.1_5000_2000."""
    if "_noise_" not in dataset:
        raise InputError(f"--noise_dataset_path {dataset}: expected a folder named <Name>_noise_user<rate>")
    named = re.search(r"sample(\d+)", "/".join(model_path.parts[-2:]))
    step = re.search(r"checkpoint-(\d+)", model_path.name)
    parts = [dataset.replace("_noise_", "_denoise_"), named[1] if named else str(sample), *([step[1]] if step else [])]
    return "_".join(parts)


@dataclass(frozen=True)
class Window:
    """A row as the model sees it: the scored items, oldest first. The target of a valid or test row is not among them."""

    row: int
    items: tuple[int, ...]


def read_split(folder: Path, split: str, catalogue: list[str], limit: int | None, planted: int, adapter_run: dict):
    """(table, windows) of a split; the table's rows are those that will be written, in the order of the input.

    `--limit` keeps that many rows, evenly spaced.
    """
    if split == PLANTED:
        table = planted_rows(folder, catalogue, planted, adapter_run)
    else:
        table = read_windows(folder / f"{split}.csv", len(catalogue) - 1)
    if limit is not None and limit < len(table) and split != PLANTED:
        table = table.iloc[np.linspace(0, len(table) - 1, limit).astype(int)].reset_index(drop=True)
    hidden = 0 if split.startswith("train") or split == PLANTED else 1
    return table, [Window(row, tuple(items[: len(items) - hidden])) for row, items in enumerate(table["item_ids"])]


def planted_rows(folder: Path, catalogue: list[str], count: int, adapter_run: dict) -> pd.DataFrame:
    """`count` train rows that fine-tuning did not see, one random item put into each, with mask 2 at its place."""
    path, n_items = find_train_file(folder), len(catalogue) - 1
    table = read_windows(path, n_items)
    arguments, seen = adapter_run.get("arguments", {}), np.array([], dtype=int)
    if adapter_run.get("data_fingerprint") == data_fingerprint(folder) and not (folder / "TDMD" / "train.json").exists():
        seen = np.concatenate(split_rows(len(table), *(arguments[key] for key in ("sample", "eval_sample", "seed"))))
    else:
        print(f"{folder} is not what the adapter was trained on: planted rows may be among its training windows")
    seed = arguments.get("seed", 0)
    unseen = np.setdiff1d(np.arange(len(table)), seen)
    if count > len(unseen):
        raise InputError(f"--planted {count}: {path} has {len(unseen)} rows that fine-tuning did not use")
    rng = np.random.default_rng([seed, 3])
    table = table.iloc[np.sort(rng.choice(unseen, size=count, replace=False))].reset_index(drop=True)
    for row in range(count):
        for position, item in plant(table.at[row, "item_ids"], n_items, rng).items():
            table.at[row, "item_ids"][position] = item
            table.at[row, "mask"][position] = 2
    if "item_titles" in table:
        table["item_titles"] = [
            json.dumps([catalogue[item] for item in items], ensure_ascii=False) for items in table["item_ids"]
        ]
    return table


# ---------------------------------------------------------------- the model


def check_adapter(folder: Path, base_model: str | None) -> dict:
    """The record of an adapter folder; refuses one that is not an adapter or belongs to another base model."""
    for name in ("adapter_config.json", "adapter_model.safetensors", "prompt.json"):
        if not (folder / name).exists():
            raise InputError(f"--denoise_model_path {folder}: no {name}; expected a checkpoint of train_denoise_model.py")
    run = json.loads((folder / "run.json").read_text()) if (folder / "run.json").exists() else {}
    trained_on = json.loads((folder / "adapter_config.json").read_text()).get("base_model_name_or_path")
    if base_model and base_model != trained_on:
        raise InputError(f"--base_model {base_model}: the adapter in {folder} belongs to {trained_on}")
    return run | {"base_model": trained_on}


def load_model(folder: Path, base_model: str, args):
    """Base model with the adapter, in evaluation mode on this process's device; refuses an adapter without effect."""
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if torch.cuda.is_available():
        device = f"cuda:{int(os.environ.get('LOCAL_RANK', 0))}"
        torch.cuda.set_device(device)
    else:
        device = "cpu"
        os.environ.setdefault("TRANSFORMERS_SDPA_FORCE_GQA", "1")  # no copies of keys
    base = load_base_model(base_model, args.dtype, args.load_in_8bit)
    check_attention(base_model, base)
    try:
        model = PeftModel.from_pretrained(base, folder)
        expected, found = (
            get_peft_model_state_dict(model, save_embedding_layers=False),
            load_file(folder / "adapter_model.safetensors"),
        )
    except (RuntimeError, ValueError, SafetensorError) as error:
        raise InputError(f"{folder}: does not fit {base_model} ({' '.join(str(error).split())[:200]})") from None
    wrong = expected.keys() ^ found.keys()
    if wrong:
        raise InputError(
            f"{folder}/adapter_model.safetensors: {len(wrong)} tensors are missing or not wanted, first {min(wrong)}"
        )
    if not any(tensor.any() for name, tensor in found.items() if "lora_B" in name):
        raise InputError(f"{folder}/adapter_model.safetensors: all zero, the adapter changes nothing")
    return (model if args.load_in_8bit else model.to(device)).eval()


class Reader:
    """What the model has read so far, for a batch of texts: its key-value cache and which of its columns each text has read.

    Texts that begin alike are branches of one row of the cache: what they share is kept, and read by attention, once.
    Columns that a text has not read are masked and do not count as positions, so each text is read as if it were alone.
    The cache is one buffer a layer that is written into, where a concatenating one would copy all of it at each step.
    """

    def __init__(self, model, buffers, rows: list[int], mask):
        self.model = model
        self.buffers = buffers  # [(keys, values)] a layer, each (rows, H, capacity, D)
        self.rows, self.mask = rows, mask  # of N texts: the row of each, ascending; (N, T) what it has read
        self.spare = None  # buffers of the copies of this text
        self.tokens_at_once = 4096 if mask.is_cuda else 1536  # about; more are no faster and their logits take memory

    @classmethod
    def start(cls, model, prefix: list[int]) -> "Reader":
        """One text that is the tokens all prompts begin with."""
        import torch

        ids = torch.tensor([prefix], device=model.device)
        layers = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values.layers
        return cls(model, [(layer.keys, layer.values) for layer in layers], [0], torch.ones_like(ids, dtype=bool))

    def copies(self, count: int, room: int) -> "Reader":
        """A reader of that many texts that begin as this one's only text, with room for so many more columns.

        The memory is that of the copies made before, as fresh memory costs more than copying: those must be done.
        """
        width = self.mask.shape[1]
        if not self.spare or len(self.spare[0][0]) < count or self.spare[0][0].shape[2] < width + room:
            self.spare = None  # frees it before there is a larger one
            self.spare = self.empty_buffers(count, width + room)
        buffers = [(keys[:count], values[:count]) for keys, values in self.spare]
        self.copy_to(buffers)
        return Reader(self.model, buffers, list(range(count)), self.mask[[0] * count])

    def empty_buffers(self, rows: int, capacity: int):
        """Zeros, as what is masked must still be a number."""
        return [tuple(read.new_zeros(rows, read.shape[1], capacity, read.shape[3]) for read in layer) for layer in self.buffers]

    def copy_to(self, buffers) -> None:
        """Write what was read into buffers of as many rows; a single row goes into each of theirs."""
        width = self.mask.shape[1]
        for mine, others in zip(self.buffers, buffers):
            for read, buffer in zip(mine, others):
                buffer[:, :, :width] = read[:, :, :width]

    def make_room(self, columns: int) -> None:
        if columns > self.buffers[0][0].shape[2]:
            larger = self.empty_buffers(len(self.buffers[0][0]), 3 * columns // 2)
            self.copy_to(larger)
            self.buffers = larger

    def branch(self, texts: list[int]) -> "Reader":
        """These texts, ascending, again and again where one repeats, in the rows of this reader; it may go on when they are done."""
        return Reader(self.model, self.buffers, [self.rows[text] for text in texts], self.mask[texts])

    def keep(self, texts: list[int]) -> None:
        """Leave all texts out but these, ascending."""
        self.rows, self.mask = [self.rows[text] for text in texts], self.mask[texts]

    def forget(self, counts: list[int]) -> None:
        """Take back what each text read last, so many tokens."""
        import torch

        from_end = self.mask.flip(1).cumsum(1).flip(1)
        self.mask &= from_end > torch.tensor(counts, device=self.mask.device)[:, None]

    def read(self, pieces: list[list[int]]):
        """Read one more piece (of at least one token) in each text; returns the next token's log-probabilities (N, V)."""
        import torch

        return torch.cat(list(self.forward(pieces, [1] * len(pieces)))).float().log_softmax(-1)

    def forward(self, pieces: list[list[int]], tails: list[int]):
        """Read one more piece in each text; yields each text's logits (tail, V) after the last `tail` tokens of its piece.

        A few texts at a time; attention pads them to the longest row among them.
        """
        import torch

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
        self.make_room(end)
        self.mask = torch.nn.functional.pad(self.mask, (0, end - width))
        self.mask[text, column] = True
        for texts in slices(lengths.tolist(), self.tokens_at_once):
            at = slice(starts[texts.start], ends[texts.stop - 1])
            seen = self.mask[text[at]] & (torch.arange(end, device=device) <= column[at, None])
            places = wanted[at].nonzero()[:, 0].to(device)
            logits = read_packed(self.model, tokens[at], row[at], column[at], seen, self.buffers, places)
            yield from logits.split(tails[texts])


def read_packed(model, tokens, row, column, seen, buffers, wanted):
    """Logits (wanted, V) of n tokens of many texts, which are one sequence to the model, without padding.

    All layers but attention treat each token by itself. Attention takes each to its own row of a cache, which gets its
    keys and values: buffers, [(keys, values)] a layer, each (R, H, capacity, D). row, column: (n,), where they go, the
    tokens of a row side by side. seen: (n, T), the columns of its row that a token attends to. wanted: places in the n.
    """
    import torch
    from transformers import AttentionInterface

    rows, place, counts = row.unique(return_inverse=True, return_counts=True)
    t, dtype = int(counts.max()), buffers[0][0].dtype
    slot = place * t + torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[place]  # in (rows, t)
    mask = torch.full((len(rows) * t, seen.shape[1]), torch.finfo(dtype).min, dtype=dtype, device=row.device)
    mask[slot] = mask[slot].masked_fill(seen, 0)  # what is added to attention's scores
    if rows[-1] - rows[0] == len(rows) - 1:
        rows = slice(int(rows[0]), int(rows[-1]) + 1)  # neighbours need no copy
    usual = model.config._attn_implementation
    AttentionInterface.register("in_rows", partial(attend_in_rows, usual, buffers, rows, row, column, slot))
    model.config._attn_implementation = "in_rows"
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
        AttentionInterface.register("in_rows", None)  # it holds the buffers
    return out.logits[0]


def attend_in_rows(usual, buffers, rows, row, column, slot, module, query, key, value, attention_mask, **kwargs):
    """An attention function of transformers, once all but its own arguments are given (see `read_packed`).

    query (1, H, n, D), attention_mask (R, 1, t, T) -> (1, n, H, D). usual: what to attend with. rows: the R of the cache.
    """
    from transformers import AttentionInterface

    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)  # each model has its own
    attention, (keys, values) = AttentionInterface().get_interface(usual, eager), buffers[module.layer_idx]
    keys[row, :, column], values[row, :, column] = key[0].transpose(0, 1), value[0].transpose(0, 1)
    count, _, t, end = attention_mask.shape
    slots = query.new_zeros(count * t, query.shape[1], query.shape[3]).index_copy_(0, slot, query[0].transpose(0, 1))
    query = slots.unflatten(0, (count, t)).transpose(1, 2)
    out, _ = attention(module, query, keys[rows, :, :end], values[rows, :, :end], attention_mask, **kwargs)
    return out.flatten(0, 1)[slot][None], None


def slices(lengths: list[int], most: int) -> list[slice]:
    """Runs of neighbours of about equally many tokens: `most`, and what a last text has beyond that."""
    ends = np.cumsum(lengths)
    count = -(-ends[-1] // most)
    cuts = np.searchsorted(ends * count, ends[-1] * np.arange(1, count)) + 1
    bounds = sorted({0, *cuts.tolist(), len(lengths)})
    return [slice(start, stop) for start, stop in zip(bounds, bounds[1:])]


def common_prefix(a: list[int], b: list[int]) -> int:
    return next((place for place, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


# ---------------------------------------------------------------- tries of titles


class Trie:
    """The token sequences of titles, sorted; a node is the run lo:hi of those that share their first `depth` tokens."""

    def __init__(self, sequences: dict[int, list[int]]):
        """sequences: {item: tokens}. Each ends with the mark that closes a title, so none is the start of another."""
        self.items = sorted(sequences, key=lambda item: (sequences[item], item))
        self.sequences = [sequences[item] for item in self.items]
        self.place = {item: place for place, item in enumerate(self.items)}
        self.children = lru_cache(maxsize=100_000)(self._children)

    def _children(self, lo: int, hi: int, depth: int) -> dict[int, tuple[int, int]]:
        """{next token: (lo, hi)} below a node; empty where the titles end."""
        found = {}
        for place in range(lo, hi):
            if depth < len(self.sequences[place]):
                token = self.sequences[place][depth]
                found[token] = (found[token][0] if token in found else place, place + 1)
        return found

    def allowed(self, lo: int, hi: int, depth: int, banned: frozenset[int]) -> dict[int, tuple[int, int]]:
        """The children below which there is an item that is not banned."""
        children = self.children(lo, hi, depth)
        places = [self.place[item] for item in banned if lo <= self.place[item] < hi]
        lost = Counter(self.sequences[place][depth] for place in places) if children else {}
        empty = {token for token, count in lost.items() if count == children[token][1] - children[token][0]}
        return {token: run for token, run in children.items() if token not in empty} if empty else children

    def follow(self, tokens: list[int]) -> list[int]:
        """The tokens that all titles which begin so have next, up to the mark that closes them; none where no title does."""
        lo = bisect_left(self.sequences, tokens)
        hi = bisect_right(self.sequences, tokens, key=lambda sequence: sequence[: len(tokens)])
        return self.sequences[lo][:-1][len(tokens) : common_prefix(self.sequences[lo], self.sequences[hi - 1])] if lo < hi else []

    def left(self, lo: int, hi: int, banned: frozenset[int]) -> list[int]:
        """Items of a node that are not banned, at most two."""
        found = []
        for item in self.items[lo:hi]:
            if item not in banned:
                found.append(item)
                if len(found) == 2:
                    break
        return found


# ---------------------------------------------------------------- score and suggest


class Denoiser:
    """Scores windows and suggests replacements with one model, one wording and one catalogue."""

    def __init__(self, model, tokenizer, prompt: Prompt, catalogue: list[str], args):
        self.model, self.tokenizer, self.prompt, self.catalogue, self.args = model, tokenizer, prompt, catalogue, args
        self.seconds, self.tokens = Counter(), Counter()
        self.threshold = -np.inf  # of --min_percentile
        titles = {item: prompt.title(catalogue[item]) for item in range(1, len(catalogue))}
        self.trie = Trie({item: continue_tokens(tokenizer, prompt.suggest_cue, title) for item, title in titles.items()})

    @cache  # noqa: B019  one Denoiser a process
    def named(self, item: int) -> list[int]:
        """Tokens of an item's title where the answer names it."""
        return continue_tokens(self.tokenizer, self.prompt.noise_cue, self.prompt.title(self.catalogue[item]))

    @cache  # noqa: B019
    def named_and_asked(self, item: int) -> list[int]:
        """Tokens of an item's title and the cue that asks for its replacement."""
        text = self.prompt.title(self.catalogue[item]) + self.prompt.suggest_cue
        return continue_tokens(self.tokenizer, self.prompt.noise_cue, text)

    def question(self, items) -> Question:
        return tokenize_question(self.tokenizer, self.prompt, [self.catalogue[item] for item in items])

    def prepare(self, windows: list[Window]) -> list[Question]:
        """The questions as tokens; reads what they have in common once."""
        import torch

        questions = [self.question(window.items) for window in windows]
        probe = self.tokenizer(self.prompt.question(["?"]))["input_ids"]
        shared = min(common_prefix(question.ids, probe) for question in questions)
        if self.args.score == "likelihood":  # a title's first token is predicted by the one before: it is read with the window
            shared = min(shared, min(question.spans[0][0] for question in questions) - 1)
        if shared < 1:
            raise InputError("prompt.json: the prompts of two windows share no first token; give it an instruction")
        longest = max(len(question.ids) for question in questions)
        written = max(map(len, self.trie.sequences)) if self.args.suggest == "catalogue" else self.args.max_new_tokens
        room = max(len(self.named_and_asked(item)) for window in windows for item in window.items) + written
        check_length(self.model.config, longest + room)
        seam = self.prompt.title(self.catalogue[windows[0].items[0]])
        text = self.prompt.question([self.catalogue[item] for item in windows[0].items])
        if continue_tokens(self.tokenizer, text, seam) != self.named(windows[0].items[0]):
            raise InputError("prompt.json: the tokenizer reads a title differently after the whole prompt than after its cue")
        self.shared = shared
        with torch.inference_mode():
            self.start = Reader.start(self.model, questions[0].ids[:shared])
            self.check_reading([question.ids for question in questions[:2]])
        return questions

    def check_reading(self, texts: list[list[int]]) -> None:
        """Refuse a model that reads texts side by side otherwise than each alone; rounding to 8 bits differs by less."""
        import torch

        packed = self.start.copies(len(texts), max(map(len, texts))).read([text[self.shared :] for text in texts])
        for found, text in zip(packed, texts):
            alone = self.model(input_ids=torch.tensor([text], device=found.device)).logits[0, -1].float().log_softmax(-1)
            if not (found - alone).abs().mean() < 0.3:
                raise InputError(
                    f"stage 2 cannot read with {type(self.model.get_base_model()).__name__}: packing changes its answers"
                )

    def run(self, windows: list[Window], questions: list[Question], suggest: bool = True) -> list[dict]:
        """Records {row, noise_prob, noise_items, noise_items_prob, texts or ids} of a batch of windows."""
        import torch

        try:
            with torch.inference_mode():
                return self._run(windows, questions, suggest)
        except torch.cuda.OutOfMemoryError:
            if len(windows) == 1:
                raise
        self.start.spare, half = None, len(windows) // 2  # the cache of all of them; only here no traceback holds it
        torch.cuda.empty_cache()
        first = self.run(windows[:half], questions[:half], suggest)
        return first + self.run(windows[half:], questions[half:], suggest)

    def _run(self, windows, questions, suggest):
        started = time.perf_counter()
        pieces = [question.ids[self.shared :] for question in questions]
        reader = self.start.copies(len(windows), 2 * max(map(len, pieces)))  # as much again for the answers
        self.tokens["score"] += sum(map(len, pieces))
        if self.args.score == "likelihood":
            scores = self.likelihood_scores(reader, pieces, questions)
        elif self.args.score == "title":
            scores = self.title_scores(reader, reader.read(pieces), windows)
        else:
            scores = self.first_token_scores(reader.read(pieces).cpu(), windows)
        records = [self.record(window, score) for window, score in zip(windows, scores)]
        scored = time.perf_counter()
        self.seconds["score"] += scored - started
        suspects = [(row, item) for row, record in enumerate(records) for item in record["noise_items"]]
        if suggest and suspects:
            if self.args.suggest == "free":
                answers = self.suggest_free(reader, suspects)
            else:
                answers = self.suggest_from_catalogue(reader, suspects, windows)
            key = "texts" if self.args.suggest == "free" else "ids"
            for (row, _), answer in zip(suspects, answers):
                records[row].setdefault(key, []).append(answer)
            self.seconds["suggest"] += time.perf_counter() - scored
        return records

    def first_token_scores(self, log_probs, windows) -> list[list[float]]:
        """The paper's score: the log-probability of the first token of each title, in context."""
        return [log_probs[row, [self.named(item)[0] for item in window.items]].tolist() for row, window in enumerate(windows)]

    def title_scores(self, reader: Reader, log_probs, windows) -> list[list[float]]:
        """log P(the answer names this title | it names a title of the window), token by token along their trie.

        Where titles of the window part, their next tokens are normalised among themselves; where they run together
        nothing is to be decided. So only the tokens before a parting are ever read. Items of one title share its score.
        """
        tries = [Trie({item: self.named(item) for item in window.items}) for window in windows]
        totals = [dict.fromkeys(window.items, 0.0) for window in windows]
        partings = []  # (row, the tokens read since the question, run of the trie)
        for row, trie in enumerate(tries):
            stack = [(0, len(trie.items), 0)]
            while stack:
                lo, hi, depth = stack.pop()
                children = trie.children(lo, hi, depth)
                if len(children) > 1:
                    partings.append((row, trie.sequences[lo][:depth], children))
                stack.extend((low, high, depth + 1) for low, high in children.values() if high - low > 1)
        deeper, below = [parting for parting in partings if parting[1]], ()
        if deeper:
            below = reader.branch([row for row, _, _ in deeper]).read([tokens for _, tokens, _ in deeper]).cpu()
            self.tokens["score"] += sum(len(tokens) for _, tokens, _ in deeper)
        log_probs, below = log_probs.cpu(), iter(below)
        for row, tokens, children in partings:
            here = next(below) if tokens else log_probs[row]
            among = here[list(children)].log_softmax(0).tolist()
            for (low, high), value in zip(children.values(), among):
                for item in tries[row].items[low:high]:
                    totals[row][item] += value
        return [[total[item] for item in window.items] for total, window in zip(totals, windows)]

    def likelihood_scores(self, reader: Reader, pieces, questions) -> list[list[float]]:
        """log P(the item is noise | its title) from log P(title | the titles before it), by Bayes' rule.

        Noise as fine-tuning plants it: one of the n items of a window, drawn uniformly from the catalogue.
        """
        import torch

        scores = []
        for question, piece, logits in zip(questions, pieces, reader.forward(pieces, list(map(len, pieces)))):
            read = [torch.tensor([row], device=logits.device) for row in (piece, *question.spans_from_end())]
            likelihoods = title_log_likelihoods(logits[None], read)[0].double().cpu()
            n = len(question.spans)
            prior_odds = np.log(max(n - 1, 1)) + np.log(len(self.catalogue) - 1)  # that an item belongs; of a uniform draw
            scores.append((-torch.nn.functional.softplus(likelihoods + prior_odds)).tolist())
        return scores

    def record(self, window: Window, scores: list[float]) -> dict:
        """The score columns of a row: distinct suspects, highest first, ties to the earlier position."""
        probs = [float(f"{score:.{DIGITS}g}") for score in scores]
        order, suspects = sorted(range(len(probs)), key=lambda place: -probs[place]), {}
        for place in order:
            if probs[place] > self.threshold:
                suspects.setdefault(window.items[place], probs[place])
        top = list(suspects)[: self.args.top_k]
        return {
            "row": window.row,
            "noise_prob": probs,
            "noise_items": top,
            "noise_items_prob": [suspects[item] for item in top],
        }

    def ask(self, reader: Reader, suspects: list[tuple[int, int]]):
        """(reader, pieces): a branch for each suspect, and the tokens of its title and of the cue for a replacement."""
        return reader.branch([row for row, _ in suspects]), [self.named_and_asked(item) for _, item in suspects]

    def suggest_free(self, reader: Reader, suspects: list[tuple[int, int]]) -> list[str]:
        """Greedy free text for each suspect, up to the mark that closes a title.

        What all titles of the catalogue that begin as the text does have next is read with it, and stands as far as the
        model would have written it too: speculative decoding (arXiv 2211.17192), the same text in fewer steps.
        """
        import torch

        reader, pieces = self.ask(reader, suspects)
        active = list(range(len(suspects)))
        written: list[list[int]] = [[] for _ in suspects]
        drafts: list[list[int]] = [[] for _ in suspects]
        while active:
            self.tokens["suggest"] += sum(map(len, pieces))
            tails = [1 + len(drafts[place]) for place in active]
            best = torch.cat([logits.argmax(-1) for logits in reader.forward(pieces, tails)]).cpu().split(tails)
            refused, going = [], []
            for text, (place, tokens) in enumerate(zip(active, map(torch.Tensor.tolist, best))):
                right = common_prefix(tokens, drafts[place])
                refused.append(len(drafts[place]) - right)
                for token in tokens[: right + 1]:
                    written[place].append(token)
                    if self.ended(written[place]):
                        break
                else:
                    drafts[place] = self.trie.follow(written[place])[: self.args.max_new_tokens - 1 - len(written[place])]
                    going.append(text)
            self.tokens["suggest"] -= sum(refused)
            reader.forget(refused)
            reader.keep(going)
            active = [active[text] for text in going]
            pieces = [[written[place][-1], *drafts[place]] for place in active]
        return [self.answer_text(tokens) for tokens in written]

    def ended(self, tokens: list[int]) -> bool:
        if len(tokens) == self.args.max_new_tokens or tokens[-1] == self.tokenizer.eos_token_id:
            return True
        return self.prompt.close in self.tokenizer.decode(tokens)

    def answer_text(self, tokens: list[int]) -> str:
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return clean_title(text.split(self.prompt.close)[0])

    def suggest_from_catalogue(self, reader: Reader, suspects, windows) -> list[int]:
        """Greedy decoding along the trie of titles, never to an item of the window; ends where one title is left."""
        banned = [frozenset(windows[row].items) for row, _ in suspects]
        reader, pieces = self.ask(reader, suspects)
        common, nodes = map(list, zip(*(self.descend((0, len(self.trie.items), 0), ban) for ban in banned)))
        active, pieces = list(range(len(suspects))), [piece + more for piece, more in zip(pieces, common)]
        while active:
            self.tokens["suggest"] += sum(map(len, pieces))
            going, pieces_left = [], []
            for text, (place, log_probs) in enumerate(zip(active, reader.read(pieces).cpu())):
                if self.decided(nodes[place], banned[place]):
                    continue
                children = self.trie.allowed(*nodes[place], banned[place])
                token = max(children, key=dict(zip(children, log_probs[list(children)].tolist())).get)
                follow, nodes[place] = self.descend((*children[token], nodes[place][2] + 1), banned[place])
                if not self.decided(nodes[place], banned[place]):
                    going.append(text)
                    pieces_left.append([token, *follow])
            active, pieces = [active[text] for text in going], pieces_left
            reader.keep(going)
        return [self.trie.left(lo, hi, ban)[0] for (lo, hi, _), ban in zip(nodes, banned)]

    def descend(self, node: tuple[int, int, int], banned: frozenset[int]) -> tuple[list[int], tuple[int, int, int]]:
        """The tokens below a node along which titles run together, and the node where they part or one is left."""
        tokens = []
        while not self.decided(node, banned):
            children = self.trie.allowed(*node, banned)
            if len(children) > 1:
                break
            ((token, run),) = children.items()
            tokens.append(token)
            node = (*run, node[2] + 1)
        return tokens, node

    def decided(self, node: tuple[int, int, int], banned: frozenset[int]) -> bool:
        """One item is left, or several of one title."""
        lo, hi, depth = node
        return len(self.trie.left(lo, hi, banned)) == 1 or not self.trie.children(lo, hi, depth)


# ---------------------------------------------------------------- grounding


def embed(model, tokenizer, texts: list[str], batch_size: int):
    """Last-token hidden states (N, D) of the base model for each text, in float32 on the CPU; no logits are computed."""
    import torch
    from tqdm import tqdm

    tokens = [tokenizer(text)["input_ids"] or [tokenizer.eos_token_id] for text in texts]
    order = sorted(range(len(texts)), key=lambda place: len(tokens[place]))
    rows = torch.empty(len(texts), model.config.get_text_config().hidden_size)
    decoder = model.get_base_model().base_model
    with torch.inference_mode(), model.disable_adapter():
        for start in tqdm(range(0, len(order), batch_size), desc="embed titles", unit="batch", leave=False):
            chosen = order[start : start + batch_size]
            ids = pad_left([tokens[place] for place in chosen], tokenizer.pad_token_id).to(model.device)
            mask = pad_left([[1] * len(tokens[place]) for place in chosen], 0).to(model.device)
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            hidden = decoder(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)[0]
            rows[chosen] = hidden[:, -1].float().cpu()
    return rows


def title_table(model, tokenizer, catalogue: list[str], folder: Path, args, base_model: str):
    """Embeddings (n_items, D) of items 1..n, from the release's file or our cache beside the data set, else computed."""
    import torch
    from safetensors.torch import load_file, save_file

    released = folder / "item_embedding.pt"
    if released.exists():
        table = torch.load(released, weights_only=True, map_location="cpu")
        if getattr(table, "shape", None) == (len(catalogue), model.config.get_text_config().hidden_size):
            return table[1:].float()
        print(f"{released}: does not fit this model and catalogue, computing our own")
    made_by = [base_model, str(choose_dtype(args.dtype)), args.load_in_8bit, catalogue]
    key = hashlib.sha256(json.dumps(made_by).encode()).hexdigest()[:16]
    cached = folder / f"item_embedding_{key}.safetensors"
    if cached.exists():
        return load_file(cached)["embedding"]
    table = embed(model, tokenizer, [clean_title(title) for title in catalogue[1:]], 4 * args.batch_size)
    if os.access(folder, os.W_OK):
        partial = partial_path(cached)
        save_file({"embedding": table}, partial)
        partial.replace(cached)
    return table


def ground(texts: list[str], catalogue: list[str], nearest) -> tuple[dict[str, int], float]:
    """{text: item id} and the share of texts that are no title; `nearest` maps the distinct ones to ids by embedding."""
    exact = {clean_title(title): item for item, title in reversed(list(enumerate(catalogue))) if item}
    distinct = sorted(set(texts))
    unknown = [text for text in distinct if text not in exact]
    found = {text: exact[text] for text in distinct if text in exact} | dict(zip(unknown, nearest(unknown) if unknown else []))
    strangers = set(unknown)
    return found, sum(text in strangers for text in texts) / max(len(texts), 1)


def nearest_items(queries, table) -> list[int]:
    """Item ids (1..n) of the rows of table (n, D) closest to queries (N, D) by L2 distance."""
    import torch

    closest = [torch.cdist(chunk, table).argmin(1) for chunk in queries.split(256)]
    return (torch.cat(closest) + 1).tolist()


# ---------------------------------------------------------------- shards


class Shards:
    """The finished batches of a job: one file of JSON lines a split and process, appended to, never rewritten."""

    def __init__(self, folder: Path, rank: int):
        self.folder, self.rank = folder, rank

    def own(self, split: str) -> Path:
        return self.folder / f"{split}.{self.rank}.jsonl"

    def read(self, split: str) -> dict[int, dict]:
        """{batch: line} of all processes; a last line that a kill tore is left out."""
        return {line["batch"]: line for path in sorted(self.folder.glob(f"{split}.*.jsonl")) for line in whole_lines(path)[0]}

    def open(self, split: str):
        """This process's file, cut back to its last whole line."""
        path = self.own(split)
        out = path.open("a", encoding="utf-8")
        try:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{path}: another process is writing it; the same command runs already") from None
        out.truncate(whole_lines(path)[1])
        return out


def whole_lines(path: Path) -> tuple[list[dict], int]:
    """The lines of a shard that were written to their end, and the bytes they take."""
    lines, size = [], 0
    with path.open("rb") as file:
        for raw in file:
            try:
                line = json.loads(raw) if raw.endswith(b"\n") else None
            except ValueError:
                line = None
            if line is None:
                break
            lines.append(line)
            size += len(raw)
    return lines, size


def batches(questions: list[Question], batch_size: int) -> list[list[int]]:
    """Rows by length, longest first (so no later batch needs more memory), in batches; the same for every process."""
    order = sorted(range(len(questions)), key=lambda row: (-len(questions[row].ids), row))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def denoise_split(split: str, windows: list[Window], denoiser: Denoiser, shards: Shards, rank: int, world: int) -> int:
    """Score this process's share of a split, skipping finished batches; returns how many batches the split has."""
    from tqdm import tqdm

    questions = denoiser.prepare(windows)
    plan, args = batches(questions, denoiser.args.batch_size), denoiser.args

    def run(batch, suggest=True):
        return denoiser.run([windows[row] for row in batch], [questions[row] for row in batch], suggest)

    denoiser.threshold = -np.inf
    if args.min_percentile:
        pilot = [plan[place] for place in np.unique(np.linspace(0, len(plan) - 1, PILOT_BATCHES).astype(int))]
        probs = [prob for batch in pilot for record in run(batch, suggest=False) for prob in record["noise_prob"]]
        denoiser.threshold = float(np.quantile(probs, args.min_percentile))
    done, mine = shards.read(split), range(rank, len(plan), world)
    progress = tqdm(total=len(mine), initial=sum(b in done for b in mine), desc=split, unit="batch", disable=rank > 0)
    with shards.open(split) as out:
        for number in mine:
            if number in done:
                continue
            denoiser.seconds.clear()
            denoiser.tokens.clear()
            line = {"batch": number, "records": run(plan[number])}
            line |= {"seconds": denoiser.seconds, "tokens": denoiser.tokens, "peak_memory_gib": peak_memory_gib()}
            out.write(json.dumps(line) + "\n")
            out.flush()
            progress.update()
    progress.close()
    denoiser.start.spare = None  # what follows needs the memory
    return len(plan)


# ---------------------------------------------------------------- putting it together


def merge(split: str, table: pd.DataFrame, lines: dict[int, dict], catalogue, nearest) -> tuple[pd.DataFrame, dict]:
    """The table with its new columns, each row exactly once, and what was measured on the way."""
    records = [record for line in lines.values() for record in line["records"]]
    rows = sorted(record["row"] for record in records)
    if rows != list(range(len(table))):
        raise InputError(f"{split}: the shards hold {len(rows)} records for {len(table)} rows, each row is needed once")
    records.sort(key=lambda record: record["row"])
    grounded = None
    if any("texts" in record for record in records):
        texts = [text for record in records for text in record.get("texts", [])]
        ids, grounded = ground(texts, catalogue, nearest)
        for record in records:
            record["ids"] = [ids[text] for text in record.get("texts", [])]
    for record in records:
        record["suggest_item_ids"] = record.get("ids", [])
        record["suggest_item_titles"] = [catalogue[item] for item in record["suggest_item_ids"]]
    done = table.copy()
    for column in ("item_ids", "mask"):
        done[column] = done[column].map(json.dumps)
    for column in NEW_COLUMNS:
        done[column] = [json.dumps(record[column], ensure_ascii=False) for record in records]
    seconds, tokens = Counter(), Counter()
    for line in lines.values():
        seconds.update(line["seconds"])
        tokens.update(line["tokens"])
    total = max(sum(seconds.values()), 1e-9)
    measured = {
        "rows": len(table),
        "seconds": {step: round(value, 2) for step, value in seconds.items()},
        "tokens": dict(tokens),
        "windows_per_second": round(len(table) / total, 3),
        "tokens_per_second": round(sum(tokens.values()) / total, 1),
        "peak_memory_gib": round(max(line["peak_memory_gib"] for line in lines.values()), 3),
        "share_grounded_by_embedding": grounded,
        "detection": detection(split, table["mask"], [record["noise_prob"] for record in records]),
    }
    return done, measured


def detection(split: str, masks, noise_probs: list[list[float]]) -> dict | None:
    """How well noise_prob tells the injected items (planted ones in planted.csv); None where the truth is not known.

    auc and average_precision are over all scored positions, auc_window is the mean over windows that have both kinds.
    """
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

    mark = 2 if split == PLANTED else 1
    truths = [[int(value == mark) for value in mask[: len(probs)]] for mask, probs in zip(masks, noise_probs)]
    truth, probs = np.concatenate(truths), np.concatenate(noise_probs)
    if not 0 < truth.sum() < len(truth):
        return None
    windows = [roc_auc_score(t, p) for t, p in zip(truths, noise_probs) if 0 < sum(t) < len(t)]
    at = {}
    for percentile in PERCENTILES:
        flagged = probs > np.quantile(probs, percentile)
        values = precision_recall_fscore_support(truth, flagged, average="binary", zero_division=0.0)[:3]
        at[str(percentile)] = dict(zip(("precision", "recall", "f1"), map(float, values)))
    return {
        "share_noise": float(truth.mean()),
        "auc": float(roc_auc_score(truth, probs)),
        "auc_window": float(np.mean(windows)),
        "average_precision": float(average_precision_score(truth, probs)),
        "at_percentile": at,
    }


def complete(output: Path, job: dict) -> bool:
    return (output / "run.json").exists() and read_json(output / "run.json").get("job") == job


def finish(args, output: Path, shards: Shards, splits: dict, counts: dict, catalogue, nearest, job: dict) -> bool:
    """Write all files once every batch is there; only one process does, and none waits for another."""
    with (shards.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if complete(output, job):
            return True
        lines = {split: shards.read(split) for split in splits}
        if any(len(lines[split]) < counts[split] for split in splits):
            return False
        run = {"job": job, "versions": {name: version(name) for name in ("torch", "transformers", "peft")}, "splits": {}}
        for split, (table, _) in splits.items():
            done, run["splits"][split] = merge(split, table, lines[split], catalogue, nearest)
            write_csv(output / f"{split}.csv", done)
            print_split(split, run["splits"][split])
        for old in set(output.glob("*.csv")) - {output / f"{split}.csv" for split in splits}:
            old.unlink()  # of another job that --overwrite replaces
        for name in ("id2name.json", "id2name4Rec.json"):
            if (args.noise_dataset_path / name).exists():
                shutil.copyfile(args.noise_dataset_path / name, output / name)
        write_json(output / "run.json", run)
    shutil.rmtree(output / ".work", ignore_errors=True)
    print(f"wrote {output}")
    return True


def write_csv(path: Path, table: pd.DataFrame) -> None:
    partial = partial_path(path)
    table.to_csv(partial, index=False)
    partial.replace(path)


def print_split(split: str, measured: dict) -> None:
    seconds, found = measured["seconds"], measured["detection"]
    print(
        f"{split}: {measured['rows']:,} windows, {measured['windows_per_second']} windows/s a process, "
        f"{measured['tokens_per_second']:.0f} tokens/s ({', '.join(f'{step} {value} s' for step, value in seconds.items())}), "
        f"peak memory {measured['peak_memory_gib']} GiB"
    )
    if measured["share_grounded_by_embedding"] is not None:
        print(f"  {measured['share_grounded_by_embedding']:.1%} of the suggestions were no title and went to the nearest one")
    if found:
        print(
            f"  detection of the {found['share_noise']:.1%} noise: AUC {found['auc']:.4f} pooled, {found['auc_window']:.4f} "
            f"per window, average precision {found['average_precision']:.4f}"
        )
        for percentile, values in found["at_percentile"].items():
            print(f"  above the {percentile} percentile: " + ", ".join(f"{name} {value:.3f}" for name, value in values.items()))


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


# ---------------------------------------------------------------- command line


def parse_args(argv=None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("--denoise_model_path", type=Path, required=True, help="checkpoint of train_denoise_model.py")
    add("--noise_dataset_path", type=Path, required=True, help="data set folder <Name>_noise_user<rate>")
    add("--denoise_data", nargs="+", default=["train", "valid_5000", "test_5000"], help="files of the data set, without .csv")
    add("--planted", type=int, default=1000, help="train rows with one planted item each, written as planted.csv; 0: none")
    add("--base_model", help="must be the adapter's; default: the adapter's")
    add("--batch_size", default="auto", help="windows at once (auto: 16 on a CPU, 128 on a GPU)")
    add("--top_k", type=positive, default=3, help="suspects a window")
    add(
        "--score",
        choices=["first_token", "title", "likelihood"],
        default="first_token",
        help="first_token: the paper; title: the whole title is named; likelihood: it is unlikely after those before it",
    )
    add("--suggest", choices=["free", "catalogue"], default="free", help="free: the paper; catalogue: only titles there are")
    add("--min_percentile", type=share, help="suspects only above this share of positions (estimated on a pilot)")
    add("--max_new_tokens", type=positive, default=64, help="longest free suggestion")
    add("--limit", type=positive, help="this many rows of each file but planted.csv, evenly spaced")
    add("--output_root", type=Path, help="where the denoised folder goes (default: beside the data set)")
    add("--dtype", choices=["auto", "float32", "bfloat16"], default="auto", help="auto: bfloat16 on GPUs that have it")
    add("--load_in_8bit", action="store_true", help="base model in 8 bit (CUDA and the package bitsandbytes)")
    add("--overwrite", action="store_true", help="replace a denoised folder made with other options")
    add("--where", action="store_true", help="print the output folder and stop")
    args = parser.parse_args(argv)
    if args.batch_size != "auto" and not (args.batch_size.isdigit() and int(args.batch_size) > 0):
        parser.error(f"--batch_size {args.batch_size}: expected auto or a positive whole number")
    if args.planted < 0:
        parser.error("--planted is negative")
    if PLANTED in args.denoise_data:
        parser.error("--denoise_data planted: --planted makes it")
    return args


def describe_job(args) -> dict:
    """All that shapes the result; a run started again must agree with it."""
    options = ("denoise_data planted score suggest top_k min_percentile max_new_tokens batch_size limit load_in_8bit").split()
    job = {name: getattr(args, name) for name in options}
    job["dtype"] = str(choose_dtype(args.dtype))
    names = ["id2name4Rec.json", "item_embedding.pt", *(f"{split}.csv" for split in args.denoise_data)]
    planted_from = [find_train_file(args.noise_dataset_path)] if args.planted else []
    job["noise_dataset_path"] = fingerprint([*(args.noise_dataset_path / name for name in names), *planted_from])
    names = ["adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "prompt.json", "run.json"]
    adapter = [args.denoise_model_path / name for name in names]
    job["denoise_model_path"] = fingerprint(adapter)
    return job


def open_output(args, output: Path, job: dict) -> Path:
    """The work folder of this job; refuses to mix it with another one."""
    digest = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:16]
    work = output / ".work" / digest
    others = [path.parent for path in (output / ".work").glob("*/job.json") if path.parent != work]
    before = [read_json(other / "job.json") for other in others if any(other.glob("*.jsonl"))]
    if (output / "run.json").exists():
        before.append(read_json(output / "run.json").get("job", {}))
    changed = [name for other in before for name in job if other.get(name) != job[name]]
    if changed and not args.overwrite:
        raise InputError(
            f"{output} was made with another --{changed[0]}: --overwrite replaces it, another --output_root keeps it"
        )
    try:
        work.mkdir(parents=True, exist_ok=True)
        if args.overwrite and changed:
            (output / "run.json").unlink(missing_ok=True)
        write_json(work / "job.json", job)
    except OSError as error:
        raise InputError(f"--output_root: cannot write {output} ({error.strerror})") from None
    return work


def main(argv=None) -> None:
    args = parse_args(argv)
    try:
        generate(args)
    except InputError as error:
        Parser(prog=Path(__file__).name).error(str(error))


def generate(args) -> None:
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    quiet_libraries()
    # 1. what is asked for, refused here if it cannot be done
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if args.load_in_8bit and not torch.cuda.is_available():
        raise InputError("--load_in_8bit needs a CUDA device")
    args.batch_size = (128 if torch.cuda.is_available() else 16) if args.batch_size == "auto" else int(args.batch_size)
    adapter_run, data = check_adapter(args.denoise_model_path, args.base_model), args.noise_dataset_path
    trained_with = adapter_run.get("arguments", {})
    name = output_name(Path(os.path.abspath(data)).name, args.denoise_model_path.resolve(), trained_with.get("sample", 0))  # noqa: PTH100  links stay
    output = (args.output_root or data.resolve().parent) / name
    if args.where:
        print(output)
        return
    if args.score == "likelihood" and trained_with.get("loss_on") == "answer":
        print(f"{args.denoise_model_path} was trained with --loss_on answer: it did not learn how likely titles are")
    prompt, catalogue = Prompt.load(args.denoise_model_path), read_catalogue(data)
    names = [*args.denoise_data, *([PLANTED] if args.planted else [])]
    read = {name: read_split(data, name, catalogue, args.limit, args.planted, adapter_run) for name in names}
    job = describe_job(args)
    if complete(output, job):
        print(f"{output} is complete")
        return
    shards = Shards(open_output(args, output, job), rank)

    # 2. the model, once
    model = load_model(args.denoise_model_path, adapter_run["base_model"], args)
    tokenizer = load_tokenizer(str(args.denoise_model_path))
    if choose_dtype(args.dtype) == torch.float32 and not args.load_in_8bit:
        model.merge_adapter()

    # 3. score and suggest, batch by batch
    denoiser = Denoiser(model, tokenizer, prompt, catalogue, args)

    # 4. the last process to get here puts the rows together, grounds the suggestions and reports
    def nearest(texts):
        table = title_table(model, tokenizer, catalogue, data, args, adapter_run["base_model"])
        return nearest_items(embed(model, tokenizer, texts, 4 * args.batch_size), table)

    try:
        counts = {name: denoise_split(name, windows, denoiser, shards, rank, world) for name, (_, windows) in read.items()}
        if not finish(args, output, shards, read, counts, catalogue, nearest, job):
            print(f"rank {rank}: done; other processes are not")
    except FileNotFoundError:
        if not complete(output, job):  # else another process put everything together while this one was on its way
            raise


if __name__ == "__main__":
    main()
