"""Turn an interaction log with titles into the data set folder that the other stages read.

Reads   MovieLens-100k from the PyPI wheel `recbole` (source ml-100k), a MovieLens folder, RecBole's atomic files, Amazon
        review and metadata files, or any delimited file of interactions (sources.py).
Writes  data/<Name>_noise_user<rate>/: train.csv valid.csv test.csv, seeded samples of them, id2name*.json.
        data/README.md describes every file and column.

    python data/prepare_noise_data.py ml-100k --noise 0.1
    python data/prepare_noise_data.py amazon --reviews reviews_Toys_and_Games_5.json.gz \
        --metadata meta_Toys_and_Games.json.gz --name Toy --noise 0.1
"""

import argparse
import json
import os
import re
import resource
import shutil
import time
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
from sources import DataError, Log, clean_titles, read_amazon, read_csv_log, read_ml_100k, read_movielens, read_recbole

DATA_ROOT = Path(__file__).resolve().parent
MIN_WINDOWS = 10  # an 8:1:1 split of fewer leaves a split empty
TRAIN_SAMPLES = (1000, 5000)  # the samples that the release ships
EVAL_SAMPLE = 5000
CHUNK_ROWS = 100_000  # rows turned into text at once: bounds the memory of writing
INJECTED, NATURAL = 1, 3  # marks of the column mask


def drop_untitled(log: Log) -> Log:
    kept = log.pick(np.array([title is not None for title in log.titles])[log.items])
    if not len(kept.users):
        raise DataError("no interaction is left: none of its items has a title (or none is rated --min_rating)")
    return kept


def drop_low_ratings(log: Log, least: float) -> Log:
    """Keep the interactions rated `least` and more."""
    return log.pick(need_ratings(log, "min_rating") >= least)


def need_ratings(log: Log, option: str) -> np.ndarray:
    if log.ratings is None:
        raise DataError(f"--{option}: this source has no ratings, or not for every interaction")
    return log.ratings


def sample_items(log: Log, count: int, rng: np.random.Generator) -> Log:
    """Keep the interactions of `count` random items (the paper samples 20,000 movies before the k-core)."""
    present = np.unique(log.items)
    if count > len(present):
        raise DataError(f"--sample_items {count}: only {len(present)} items with a title have interactions")
    chosen = np.zeros(len(log.titles), dtype=bool)
    chosen[rng.choice(present, size=count, replace=False)] = True
    return log.pick(chosen[log.items])


def k_core(log: Log, k: int) -> Log:
    """Drop users and items with fewer than k interactions until none is left."""
    while len(log.users):
        keep = (np.bincount(log.users)[log.users] >= k) & (np.bincount(log.items)[log.items] >= k)
        if keep.all():
            return log
        log = log.pick(keep)
    raise DataError(f"--k_core {k} removes every interaction")


def number_and_sort(log: Log) -> Log:
    """Ids from 1 in order of first appearance; rows by user, then time, then place in the file.

    titles[i] of the result is the title of item i; titles[0] is the padding item's, empty.
    """
    users = pd.factorize(log.users)[0] + 1
    items, keys = pd.factorize(log.items)
    order = np.lexsort((log.times, users))  # a stable sort: equal times keep the order of the file
    numbered = replace(log, users=users, items=items + 1, titles=["", *(log.titles[key] for key in keys)])
    return numbered.pick(order)


def window_bounds(users: np.ndarray, window: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last row (W,) of each window, `users` (N,) being sorted.

    A user of n >= window interactions has a window ending at each `stride`-th interaction from the window-th on,
    one of 2 <= n < window a single window of them all.
    """
    starts = np.flatnonzero(np.r_[True, users[1:] != users[:-1]])
    counts = np.diff(np.r_[starts, len(users)])
    starts, counts = starts[counts >= 2], counts[counts >= 2]
    windows_per_user = np.maximum(counts - window, 0) // stride + 1
    nth = np.arange(windows_per_user.sum()) - np.repeat(np.cumsum(windows_per_user) - windows_per_user, windows_per_user)
    lengths = np.repeat(np.minimum(counts, window), windows_per_user)
    first = np.repeat(starts, windows_per_user) + nth * stride
    return first, first + lengths - 1


def time_split(target_times: np.ndarray) -> dict[str, np.ndarray]:
    """Window numbers of train, valid and test: 8:1:1 of all windows in the order of their targets' times."""
    total = len(target_times)
    if total < MIN_WINDOWS:
        raise DataError(f"only {total} windows: not enough users or interactions for an 8:1:1 split")
    order = np.argsort(target_times, kind="stable")
    train, valid = total * 8 // 10, total * 9 // 10
    return {"train": order[:train], "valid": order[train:valid], "test": order[valid:]}


def inject_noise(items: np.ndarray, n_items: int, rate: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Replace each interaction with probability `rate` by an item drawn uniformly from 1..n_items.

    Returns the noisy items and the mask (both (N,)); a draw may hit the original item and still counts as noise.
    """
    mask = rng.random(len(items)) < rate
    noisy = items.copy()
    noisy[mask] = rng.integers(1, n_items + 1, size=int(mask.sum()))
    return noisy, mask


def mark_noise(injected: np.ndarray, log: Log, natural: float | None) -> np.ndarray:
    """(N,) 1 where noise was injected, else 3 where the rating is `natural` or less, else 0."""
    low = np.zeros(len(injected), dtype=bool) if natural is None else need_ratings(log, "natural_noise") <= natural
    return np.where(injected, INJECTED, np.where(low, NATURAL, 0))


def json_list(texts: np.ndarray, lengths: np.ndarray) -> list[str]:
    """Join consecutive runs of already encoded JSON values into one JSON list a row."""
    ends = np.cumsum(lengths)
    texts = texts.tolist()
    return ["[" + ", ".join(texts[end - length : end]) + "]" for end, length in zip(ends.tolist(), lengths.tolist())]


def write_rows(path: Path, log: Log, noisy, mask, first, last, clean_target: bool) -> None:
    """Write the windows [first, last] as CSV rows; see data/README.md for the columns."""
    first_of_user = np.r_[0, np.flatnonzero(log.users[1:] != log.users[:-1]) + 1]
    encoded = np.array([json.dumps(title, ensure_ascii=False) for title in log.titles], dtype=object)
    digits = np.array([str(number) for number in range(max(len(log.titles), NATURAL + 1))], dtype=object)
    for start in range(0, max(len(first), 1), CHUNK_ROWS):
        heads, tails = first[start : start + CHUNK_ROWS], last[start : start + CHUNK_ROWS]
        lengths = tails - heads + 1
        ends = np.cumsum(lengths)
        rows = np.arange(lengths.sum()) + np.repeat(heads - (ends - lengths), lengths)  # flat row numbers of the log
        items, masked = noisy[rows], mask[rows]
        if clean_target and len(ends):
            injected_target = ends[mask[tails] == INJECTED] - 1
            items[ends - 1], masked[injected_target] = log.items[tails], 0
        injected = masked == INJECTED
        injected_per_row = np.add.reduceat(injected, ends - lengths, dtype=np.int64) if len(ends) else lengths
        table = pd.DataFrame(
            {
                "user_id": log.users[tails],
                "item_ids": json_list(digits[items], lengths),
                "mask": json_list(digits[masked], lengths),
                "item_titles": json_list(encoded[items], lengths),
                "replaced_item_titles": json_list(encoded[log.items[rows[injected]]], injected_per_row),
                "timestamp": written_times(log.times[tails], log.decimals),
                "start": heads - first_of_user[np.searchsorted(first_of_user, heads, side="right") - 1],
            }
        )
        with naming(path):
            table.to_csv(path, mode="a", header=start == 0, index=False)


def written_times(times: np.ndarray, decimals: int) -> np.ndarray | list[str]:
    return times if not decimals else [str(Decimal(moment).scaleb(-decimals)) for moment in times.tolist()]


@contextmanager
def naming(path: Path):
    """Failing to write says which file."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path.name} cannot be written in {path.parent.parent}: {error.strerror or error}") from None


def write_titles(folder: Path, titles: list[str]) -> None:
    """id2name4Rec.json names every item; in id2name.json the first id of a repeated title wins."""
    every = {str(item): title for item, title in enumerate(titles) if item}
    first_of = {title: item for item, title in reversed(every.items())}
    distinct = {item: title for item, title in every.items() if first_of[title] == item}
    for name, content in (("id2name4Rec.json", every), ("id2name.json", distinct)):
        with naming(folder / name):
            (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def write_data_set(folder: Path, log: Log, noisy, mask, bounds, splits: dict, seed: int) -> None:
    """Write all files of the data set into `folder`."""
    folder.mkdir(parents=True)
    first, last = bounds
    write_titles(folder, log.titles)
    for number, (split, rows) in enumerate(splits.items()):
        samples = {f"{split}_{size}": size for size in (TRAIN_SAMPLES if split == "train" else (EVAL_SAMPLE,))}
        for name, size in {split: len(rows), **samples}.items():
            chosen = rows
            if size < len(rows):
                rng = np.random.default_rng([seed, 2, number, size])
                chosen = rows[np.sort(rng.choice(len(rows), size=size, replace=False))]
            write_rows(folder / f"{name}.csv", log, noisy, mask, first[chosen], last[chosen], clean_target=split != "train")


def summary(log: Log, mask: np.ndarray, bounds, splits: dict) -> str:
    """The counts that a reader compares with data/README.md."""
    first, last = bounds
    users, items, total = log.users.max(), len(log.titles) - 1, len(log.users)
    lines = [f"users {users:,}  items {items:,}  interactions {total:,}  density {total / users / items:.5f}"]
    kinds = {"injected": mask == INJECTED, "natural": mask == NATURAL}
    before = {kind: np.r_[0, np.cumsum(marks)] for kind, marks in kinds.items()}
    for split, rows in splits.items():
        head, tail = first[rows], last[rows]
        lengths = tail - head + 1
        scored = tail + 1 if split == "train" else tail  # targets of valid and test are clean
        share = {kind: (sums[scored] - sums[head]).sum() / max((scored - head).sum(), 1) for kind, sums in before.items()}
        natural = f" and natural noise {share['natural']:.4f}" if kinds["natural"].any() else ""
        lines.append(
            f"{split:5s} windows {len(rows):,}  length {lengths.min()}..{lengths.max()} (mean {lengths.mean():.2f})  "
            f"injected noise {share['injected']:.4f}{natural} of {'all' if split == 'train' else 'history'} positions"
        )
    return "\n".join(lines)


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}\n")


def rate(text: str) -> float:
    """A probability below 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, 1)")
    return value


def at_least(low: int):
    def number(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"{text} is below {low}")
        return value

    return number


def parse_args(argv=None) -> argparse.Namespace:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--name", help="data set name, the <Name> of the folder (default: the source's)")
    shared.add_argument("--noise", type=rate, default=0.0, help="probability that an interaction is replaced, in [0, 1)")
    shared.add_argument("--natural_noise", type=float, help="mark interactions rated this or less as natural noise (mask 3)")
    shared.add_argument("--min_rating", type=float, help="drop interactions rated less, before all else")
    shared.add_argument("--title_words", type=at_least(0), default=0, help="keep this many words of each title (0: all)")
    shared.add_argument("--k_core", type=at_least(1), default=5, help="fewest interactions of a user and of an item (Movie: 11)")
    shared.add_argument("--sample_items", type=at_least(1), help="keep this many random items first (Movie: 20000)")
    shared.add_argument("--window", type=at_least(2), default=11, help="longest window: the history and its target")
    shared.add_argument("--stride", type=at_least(1), default=1, help="interactions between two windows of a user")
    shared.add_argument("--seed", type=at_least(0), default=2024, help="seed of the noise and of every sample")
    shared.add_argument("--output_root", default=DATA_ROOT, help="folder in which the data set folder is made")
    shared.add_argument("--overwrite", action="store_true", help="replace a data set of the same name")
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sources = parser.add_subparsers(dest="source", required=True, metavar="source", parser_class=Parser)

    def source(name, read, default_name, help):
        added = sources.add_parser(name, parents=[shared], help=help, description=help, allow_abbrev=False)
        added.set_defaults(read=read, default_name=default_name)
        return added

    years = {"action": "store_true", "help": "titles without their year: fewer tokens a window, a few titles coincide"}
    source("ml-100k", read_ml_100k, "ML100K", "MovieLens-100k from the wheel recbole").add_argument("--no_year", **years)
    movielens = source("movielens", read_movielens, None, "a MovieLens folder: ml-100k, ml-1m, ml-10M100K, ml-20m, ml-32m")
    movielens.add_argument(
        "--folder", required=True, help="the unpacked folder with ratings.* and movies.*, or u.data and u.item"
    )
    movielens.add_argument("--no_year", **years)
    recbole = source("recbole", read_recbole, None, "a folder DATASET of RecBole's atomic files, DATASET.inter and DATASET.item")
    recbole.add_argument("--folder", required=True, help="the folder")
    recbole.add_argument("--title_column", help="field of the titles (default: the first text field named like one)")
    amazon = source("amazon", read_amazon, None, "Amazon reviews of 2014, 2018 or 2023, JSON or Python lines, .gz or not")
    amazon.add_argument("--reviews", required=True, help="the file of reviews")
    amazon.add_argument("--metadata", required=True, help="the file of products, for their titles")
    table = source("csv", read_csv_log, None, "a delimited file with a header")
    table.add_argument("--interactions", required=True, help="the file of interactions")
    table.add_argument("--titles", help="a file of items and titles, when the interactions carry none")
    table.add_argument("--separator", default=",", help="what stands between two columns; tab for tabs")
    table.add_argument("--encoding", default="utf-8", help="of the files, e.g. latin-1")
    for column, default in {"user": "user", "item": "item", "time": "timestamp", "title": "title", "rating": "rating"}.items():
        table.add_argument(f"--{column}_column", default=default, help=f"name of the {column} column (default {default})")

    args = parser.parse_args(argv)
    args.name = args.name or args.default_name
    if not args.name:
        parser.error(f"--name is needed with the source {args.source}")
    if args.source == "csv":
        args.separator = {"tab": "\t", "\\t": "\t"}.get(args.separator, args.separator)
    if not re.fullmatch(r"[\w.-]+", args.name) or "noise" in args.name:
        parser.error(f"--name {args.name!r}: letters, digits, dot, dash and underscore only, and not the word 'noise'")
    args.folder_out = Path(args.output_root) / f"{args.name}_noise_user{args.noise}"
    if args.folder_out.exists() and not args.overwrite:
        parser.error(f"{args.folder_out} exists; --overwrite replaces it")
    return args


def publish(folder: Path, write) -> None:
    """Let `write` fill a folder beside `folder`, then move it into place: nobody ever sees half a data set."""
    partial = folder.with_name(f".{folder.name}.partial{os.getpid()}")
    replaced = folder.with_name(f".{folder.name}.replaced{os.getpid()}")
    try:
        write(partial)
        if folder.exists():
            folder.rename(replaced)
        partial.rename(folder)
    except BaseException:
        if replaced.exists() and not folder.exists():
            replaced.rename(folder)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def main(argv=None) -> None:
    args = parse_args(argv)
    started = time.perf_counter()
    try:
        log, cleaned = clean_titles(args.read(args), args.title_words)
        if args.natural_noise is not None:
            need_ratings(log, "natural_noise")
        log = drop_untitled(log if args.min_rating is None else drop_low_ratings(log, args.min_rating))
        if args.sample_items:
            log = sample_items(log, args.sample_items, np.random.default_rng([args.seed, 0]))
        log = number_and_sort(k_core(log, args.k_core))
        bounds = window_bounds(log.users, args.window, args.stride)
        splits = time_split(log.times[bounds[1]])
        noisy, injected = inject_noise(log.items, len(log.titles) - 1, args.noise, np.random.default_rng([args.seed, 1]))
        mask = mark_noise(injected, log, args.natural_noise)
        publish(args.folder_out, lambda folder: write_data_set(folder, log, noisy, mask, bounds, splits, args.seed))
    except (DataError, OSError) as error:
        Parser(prog=Path(__file__).name).error(str(error))
    print(cleaned)
    print(summary(log, mask, bounds, splits))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"wrote {args.folder_out} in {time.perf_counter() - started:.1f} s, peak memory {peak:.2f} GiB")


if __name__ == "__main__":
    main()
