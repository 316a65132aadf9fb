"""Training examples: a window with planted noise as text, as tokens with labels, and as padded batches.

Knows nothing of the model that learns from them.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from denoise_code.common.errors import InputError
from denoise_code.data_set.catalogue import read_catalogue
from denoise_code.data_set.folder import find_train_file
from denoise_code.data_set.held_out import Split, split_rows, split_single_rows
from denoise_code.data_set.planting import DRAWN, draw_planted, noise_pools, put_planted
from denoise_code.data_set.rows import read_windows
from denoise_code.language_model.batches import pad_left, pad_texts
from denoise_code.language_model.prompt import IGNORED, Prompt, continue_tokens, tokenize_questions

FOR_METRICS = ("answer_length", "candidates", "planted", "popular", "title_starts", "title_ends")  # what only measuring reads


def make_example(items: list[int], catalogue: list[str], pool: np.ndarray, rng: np.random.Generator, rate: float | None = None):
    """{titles, pairs} of a window with planted noise; `pairs` are (planted title, the title that stood there)."""
    planted = draw_planted(items, pool, rng, rate)
    pairs = [(catalogue[new], catalogue[items[position]]) for position, new in planted.items()]
    return {"titles": [catalogue[item] for item in put_planted(items, planted)], "pairs": pairs}


def read_tdmd(path: Path) -> tuple[str, list[dict]]:
    """The instruction and the {titles, pairs} examples of a TDMD/train.json of the release.

    Its rows are {instruction, input, output}; double quotation marks stand around each title, a comma between two of the
    input, and the output is `<cue>: "noise item" … <cue>: "replacement"`.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path}: expected a list of {{instruction, input, output}}")
    examples = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("instruction", "input", "output")):
            raise InputError(f"{path} row {number}: expected the texts instruction, input and output")
        titles = re.split(r'"\s*,\s*"', "".join(re.findall(r'"(.*)"', row["input"], re.DOTALL)))
        answer = re.search(r'"(.+)"[^"]*:\s*"(.+)"', row["output"], re.DOTALL)
        if len(titles) < 2 or not answer or answer[1] not in titles:
            raise InputError(
                f"{path} row {number}: expected two or more quoted titles in input, and in output one of them and a replacement"
            )
        examples.append({"titles": titles, "pairs": [answer.groups()]})
    return rows[0]["instruction"].strip(), examples


class Examples(NamedTuple):
    """What is learned from a data set folder, and what measures it."""

    prompt: Prompt
    trained: list[dict]  # {titles, pairs}
    held_out: list[dict]  # the same; one planted item each, drawn by popularity where `popular` is 1
    split: Split  # the row numbers of both
    n_held_out_users: int | None  # None: held out by rows
    n_users: int | None  # None: not known whose the examples are


def load_examples(folder: Path, sample: int, eval_sample: int, seed: int, rate: float | None, drawn: str = "uniform") -> Examples:
    """The examples of a data set folder; `drawn` names the pool of what is planted in those trained on (noise_pools).

    Every other held-out window has its planted item drawn by popularity. Held-out windows are of users without a trained one.
    """
    tdmd, source = folder / "TDMD" / "train.json", find_train_file(folder)
    if tdmd.exists():
        if drawn != "uniform" or rate is not None:
            option = f"--plant {drawn}" if rate is None else f"--manual_noise {rate}"
            raise InputError(f"{option}: the noise of {tdmd} is planted already")
        instruction, rows = read_tdmd(tdmd)
        prompt, table = Prompt(instruction=instruction), read_windows(source)
        users = table["user_id"].to_numpy() if len(table) == len(rows) else None  # the release made them of its rows, in order
    else:
        catalogue, prompt = read_catalogue(folder), Prompt()
        table = read_windows(source, len(catalogue) - 1)
        rows, users = table["item_ids"].tolist(), table["user_id"].to_numpy()
    try:
        split = (
            split_single_rows(len(rows), sample, eval_sample, seed)
            if users is None
            else split_rows(users, sample, eval_sample, seed)
        )
    except InputError as error:
        raise InputError(f"{tdmd if tdmd.exists() else source}: {error}") from None
    n_held_out_users = len(set(users[split.held_out])) if split.by == "users" else None
    n_users = None if users is None else len(set(users))
    if tdmd.exists():
        trained, held_out = ([rows[row] for row in part] for part in (split.trained, split.held_out))
    else:
        rng, pools = np.random.default_rng([seed, 1]), noise_pools(rows, len(catalogue) - 1)
        trained = [make_example(rows[row], catalogue, pools[drawn], rng, rate) for row in split.trained]
        held_out = [
            make_example(rows[row], catalogue, pools[DRAWN[number % 2]], rng) | {"popular": number % 2}
            for number, row in enumerate(split.held_out)
        ]
    return Examples(prompt, trained, held_out, split, n_held_out_users, n_users)


def encode(
    tokenizer, prompt: Prompt, example: dict, cutoff_len: int, loss_on: str = "answer", for_metrics: bool = True
) -> dict | None:
    """Token ids and labels, lists of `length` ints; with `for_metrics` what measuring detection reads too (FOR_METRICS).

    The answer is followed by the end token and is never cut: the oldest items that it does not name are dropped until
    the text fits `cutoff_len` tokens. None when two items are left and it still does not fit.
    """
    titles, named = list(example["titles"]), {noise for noise, _ in example["pairs"]}
    answer = continue_tokens(tokenizer, prompt.noise_cue, prompt.answer(example["pairs"])) + [tokenizer.eos_token_id]
    while True:
        (question,) = tokenize_questions(tokenizer, prompt, [titles])
        length = len(question.ids) + len(answer)
        if length <= cutoff_len:
            break
        oldest = next((position for position, title in enumerate(titles) if title not in named), None)
        if oldest is None or len(titles) <= 2:
            return None
        del titles[oldest]
    masked = [IGNORED] * len(question.ids) if loss_on == "answer" else [IGNORED, *question.ids[1:]]  # nothing predicts the first
    if loss_on == "unplanted":
        for title, (start, end) in zip(titles, question.spans):
            if title in named:
                masked[start:end] = [IGNORED] * (end - start)
    row = {
        "input_ids": question.ids + answer,
        "labels": masked + answer,
        "dropped": len(example["titles"]) - len(titles),
        "length": length,
    }
    if for_metrics:  # tokenising each title alone takes longer than all the rest
        title_starts, title_ends = question.spans_from_end(len(answer))
        row |= {
            "answer_length": len(answer),
            "candidates": [continue_tokens(tokenizer, prompt.noise_cue, prompt.title(title))[0] for title in titles],
            "planted": [int(title in named) for title in titles],
            "popular": example.get("popular", 0),
            "title_starts": title_starts,
            "title_ends": title_ends,
        }
    return row


def tokenize(tokenizer, prompt: Prompt, examples: list[dict], cutoff_len: int, loss_on: str, for_metrics: bool):
    """The `datasets.Dataset` of the encoded examples, tokenised once; `for_metrics` where they are held out."""
    from datasets import Dataset

    encoded = [encode(tokenizer, prompt, example, cutoff_len, loss_on, for_metrics) for example in examples]
    kept = [row for row in encoded if row is not None]
    dropped = sum(row["dropped"] for row in kept)
    if dropped or len(kept) < len(encoded):
        print(f"cutoff_len {cutoff_len}: {dropped} old items dropped, {len(encoded) - len(kept)} windows left out")
    kinds = {example.get("popular", 0) for example in examples}  # of held-out windows: noise drawn uniformly, by popularity
    kept_kinds = {example.get("popular", 0) for example, row in zip(examples, encoded) if row is not None}
    if kept_kinds != kinds:
        raise InputError(f"--cutoff_len {cutoff_len}: no example{' of a kind' if kept else ''} fits")
    return Dataset.from_list(kept)


class Collator:
    """Left-padded batches that ask the model for the logits of the answers only.

    All answers end in the last column, so the last K + 1 columns hold them (K is the longest answer's length) and
    the model's own loss, shifted by one, needs no other logits: `labels` is (B, K + 1) where `input_ids` is (B, L).
    """

    def __init__(self, pad_token_id: int):
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict]) -> dict:
        labels = pad_left([row["labels"] for row in rows], IGNORED)
        first_label = int((labels != IGNORED).any(0).nonzero()[0])
        keep = labels.shape[1] - max(first_label - 1, 0)
        batch = {
            **pad_texts([row["input_ids"] for row in rows], self.pad_token_id),
            "labels": labels[:, -keep:],
            "logits_to_keep": keep,
        }
        return batch | self.for_metrics(rows) if "candidates" in rows[0] else batch

    @staticmethod
    def for_metrics(rows: list[dict]) -> dict:
        """What only measuring reads: (B,) or, for each title of a window, (B, n), padded on the left."""
        import torch

        return {
            "answer_length": torch.tensor([row["answer_length"] for row in rows]),
            "candidates": pad_left([row["candidates"] for row in rows], IGNORED),
            "planted": pad_left([row["planted"] for row in rows], IGNORED),
            "popular": torch.tensor([row["popular"] for row in rows]),
            "title_starts": pad_left([row["title_starts"] for row in rows], -1),
            "title_ends": pad_left([row["title_ends"] for row in rows], -1),
        }
