"""Training examples: windows with planted noise and the answer to them, and which of them are held out (paper, section 3.2)."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from denoise_code.common.errors import InputError
from denoise_code.data_set.catalogue import read_catalogue
from denoise_code.data_set.folder import find_train_file
from denoise_code.data_set.held_out import TrainedAndHeldOut, split_rows, split_single_rows
from denoise_code.data_set.planting import DRAWN, UNIFORM, draw_planted, noise_pools, put_planted
from denoise_code.data_set.rows import read_windows
from denoise_code.language_model.prompt import Prompt


@dataclass(frozen=True)
class Example:
    """A window with planted noise, as titles."""

    titles: list[str]  # oldest first, with the planted ones in their places
    pairs: list[tuple[str, str]]  # (planted title, the title that stood there): the answer
    positions: frozenset[int]  # of the planted ones: a title does not tell, as two items may have the same
    by_popularity: bool = False  # held-out windows: whether what is planted was drawn by popularity

    @classmethod
    def of_titles(cls, titles: list[str], pairs: list[tuple[str, str]]) -> "Example":
        """An example of which nothing but titles is there: planted is every place that has a planted title."""
        planted_titles = {noise for noise, _ in pairs}
        return cls(titles, pairs, frozenset(position for position, title in enumerate(titles) if title in planted_titles))


class Examples(NamedTuple):
    """What is learned from a data set folder, and what measures it."""

    prompt: Prompt
    trained: list[Example]
    held_out: list[Example]  # one planted item each, every other one drawn by popularity
    split: TrainedAndHeldOut  # the row numbers of both
    n_held_out_users: int | None  # None: held out by rows
    n_users: int | None  # None: not known whose the examples are


def load_examples(
    folder: Path, sample: int, eval_sample: int, seed: int, rate: float | None = None, drawn: str = UNIFORM
) -> Examples:
    """The examples of a data set folder: `sample` windows to train on, and `eval_sample` held-out ones of other users.

    rate: probability with which each item of a trained window is planted; None: one item a window, as in the paper.
    drawn: the pool of what is planted in trained windows (noise_pools). Where the folder has examples of the release
    (TDMD/train.json) these are taken as they are. Raises InputError where there are too few rows or users.
    """
    if released_file(folder).exists():
        if drawn != UNIFORM or rate is not None:
            option = f"--plant {drawn}" if rate is None else f"--manual_noise {rate}"
            raise InputError(f"{option}: the noise of {released_file(folder)} is planted already")
        return load_released_examples(folder, sample, eval_sample, seed)
    return plant_examples(folder, sample, eval_sample, seed, rate, drawn)


def released_file(folder: Path) -> Path:
    return folder / "TDMD" / "train.json"


def load_released_examples(folder: Path, sample: int, eval_sample: int, seed: int) -> Examples:
    """Examples of the release, drawn from TDMD/train.json.

    They carry no user. The release made them of its train rows, in order: where there are as many, the users are those.
    """
    instruction, rows = read_tdmd(released_file(folder))
    table = read_windows(find_train_file(folder))
    users = table["user_id"].to_numpy() if len(table) == len(rows) else None
    split = split_examples(users, len(rows), sample, eval_sample, seed, released_file(folder))
    trained = [rows[row] for row in split.trained]
    held_out = [rows[row] for row in split.held_out]
    return Examples(Prompt(instruction=instruction), trained, held_out, split, *count_users(users, split))


def plant_examples(folder: Path, sample: int, eval_sample: int, seed: int, rate: float | None, drawn: str) -> Examples:
    """Examples made of train rows: items drawn from the pool `drawn` in trained windows, from both in turn in held-out ones."""
    catalogue = read_catalogue(folder)
    train_file = find_train_file(folder)
    table = read_windows(train_file, len(catalogue) - 1)
    windows, users = table["item_ids"].tolist(), table["user_id"].to_numpy()
    split = split_examples(users, len(windows), sample, eval_sample, seed, train_file)
    rng = np.random.default_rng([seed, 1])
    pools = noise_pools(windows, len(catalogue) - 1)
    trained = [make_example(windows[row], catalogue, pools[drawn], rng, rate) for row in split.trained]
    held_out = []
    for number, row in enumerate(split.held_out):
        by_popularity = number % 2 == 1
        pool = pools[DRAWN[by_popularity]]
        held_out.append(make_example(windows[row], catalogue, pool, rng, by_popularity=by_popularity))
    return Examples(Prompt(), trained, held_out, split, *count_users(users, split))


def make_example(
    items: list[int],
    catalogue: list[str],
    pool: np.ndarray,
    rng: np.random.Generator,
    rate: float | None = None,
    by_popularity: bool = False,
) -> Example:
    """A window of items with noise planted from a pool of items (P,); catalogue: titles by item id (n_items + 1,)."""
    planted = draw_planted(items, pool, rng, rate)
    titles = [catalogue[item] for item in put_planted(items, planted)]
    pairs = [(catalogue[new_item], catalogue[items[position]]) for position, new_item in planted.items()]
    return Example(titles, pairs, frozenset(planted), by_popularity)


def split_examples(
    users: np.ndarray | None, n_rows: int, sample: int, eval_sample: int, seed: int, file: Path
) -> TrainedAndHeldOut:
    """Which rows are trained on and which are held out: by users (n_rows,) where they are known, else by rows."""
    try:
        if users is None:
            return split_single_rows(n_rows, sample, eval_sample, seed)
        return split_rows(users, sample, eval_sample, seed)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def count_users(users: np.ndarray | None, split: TrainedAndHeldOut) -> tuple[int | None, int | None]:
    """(held-out users, None where rows are held out; all users, None where they are not known)."""
    n_held_out_users = len(set(users[split.held_out])) if split.by == "users" else None
    n_users = None if users is None else len(set(users))
    return n_held_out_users, n_users


def read_tdmd(path: Path) -> tuple[str, list[Example]]:
    """The instruction and the examples of a TDMD/train.json of the release.

    Its rows are {instruction, input, output}; double quotation marks stand around each title, a comma between two of the
    input, and the output is `<cue>: "noise item" … <cue>: "replacement"`. Raises InputError with the number of a bad row.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path}: expected a list of {{instruction, input, output}}")
    examples = [parse_tdmd_row(f"{path} row {number}", row) for number, row in enumerate(rows, 1)]
    return rows[0]["instruction"].strip(), examples


def parse_tdmd_row(place: str, row: dict) -> Example:
    """One row of the release's examples; place: file and row, for errors."""
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("instruction", "input", "output")):
        raise InputError(f"{place}: expected the texts instruction, input and output")
    between_outer_quotes = "".join(re.findall(r'"(.*)"', row["input"], re.DOTALL))
    titles = re.split(r'"\s*,\s*"', between_outer_quotes)
    answer = re.search(r'"(.+)"[^"]*:\s*"(.+)"', row["output"], re.DOTALL)
    if len(titles) < 2 or not answer or answer[1] not in titles:
        raise InputError(f"{place}: expected two or more quoted titles in input, and in output one of them and a replacement")
    return Example.of_titles(titles, [answer.groups()])


def describe_held_out(examples: Examples, sample: int) -> list[str]:
    """Lines for people: who is held out, and where fewer than `sample` windows are trained on."""
    lines = []
    n_held_out, n_trained = len(examples.held_out), len(examples.trained)
    if examples.split.by == "users":
        lines.append(
            f"{n_held_out} held-out windows of {examples.n_held_out_users} users, of whom nothing is trained on; "
            f"{examples.n_users} users in all"
        )
    elif n_held_out:
        reason = "whose the examples are is not known" if examples.n_users is None else "there are too few users"
        lines.append(f"held-out windows may be of users that are trained on ({reason}): their figures flatter")
    if n_trained < sample:
        lines.append(f"--sample {sample}: {n_trained} windows are trained on, the users of the others are held out")
    return lines
