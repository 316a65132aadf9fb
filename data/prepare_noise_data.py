"""Turn an interaction log with titles into the data set folder that the other stages read.

Reads   MovieLens-100k from the PyPI wheel `recbole` (source ml-100k), a MovieLens folder, RecBole's atomic files, Amazon
        review and metadata files, or any delimited file of interactions (preparation/sources.py).
Writes  data/<Name>_noise_user<rate>/: train.csv valid.csv test.csv, seeded samples of them, id2name*.json.
        data/README.md describes every file and column.

    python data/prepare_noise_data.py ml-100k --noise 0.1
    python data/prepare_noise_data.py amazon --reviews reviews_Toys_and_Games_5.json.gz \
        --metadata meta_Toys_and_Games.json.gz --name Toy --noise 0.1
"""

import argparse
import re
import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the root, for what all stages share: denoise_code/common
from preparation.folder import publish, write_data_set
from preparation.log import DataError, Log
from preparation.sources import read_amazon, read_csv_log, read_ml_100k, read_movielens, read_recbole
from preparation.titles import clean_titles
from preparation.windows import (
    INJECTED,
    NATURAL,
    drop_low_ratings,
    drop_untitled,
    inject_noise,
    k_core,
    mark_noise,
    need_ratings,
    number_and_sort,
    sample_items,
    time_split,
    window_bounds,
)

DATA_ROOT = Path(__file__).resolve().parent


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
    for column, default in {"user": "user", "item": "item", "time": "timestamp"}.items():
        table.add_argument(f"--{column}_column", default=default, help=f"name of the {column} column (default {default})")
    for column in ("title", "rating"):
        table.add_argument(f"--{column}_column", help=f"name of the {column} column (default {column}, where there is one)")

    args = parser.parse_args(argv)
    args.name = args.name or args.default_name
    if not args.name:
        parser.error(f"--name is needed with the source {args.source}")
    if args.source == "csv":
        args.separator = {"tab": "\t", "\\t": "\t"}.get(args.separator, args.separator)
        if not args.separator:
            parser.error("--separator is empty")
        try:
            "".encode(args.encoding)
        except LookupError:
            parser.error(f"--encoding {args.encoding}: no encoding of text")
    if not re.fullmatch(r"[\w.-]+", args.name) or "noise" in args.name:
        parser.error(f"--name {args.name!r}: letters, digits, dot, dash and underscore only, and not the word 'noise'")
    args.folder_out = Path(args.output_root) / f"{args.name}_noise_user{args.noise}"
    if args.folder_out.exists() and not args.overwrite:
        parser.error(f"{args.folder_out} exists; --overwrite replaces it")
    return args


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
