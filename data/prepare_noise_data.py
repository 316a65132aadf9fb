r"""Turn an interaction log with titles into the data set folder that the other stages read.

Reads   MovieLens-100k from the PyPI wheel `recbole` (source ml-100k), a MovieLens folder, RecBole's atomic files, Amazon
        review and metadata files, or any table of interactions: delimited text, JSON lines, Parquet.
Writes  data/<Name>_noise_user<rate>/: train.csv valid.csv test.csv, seeded samples of them, id2name*.json,
        interactions.csv, users.csv, items.csv with the log's own keys, run.json with what was lost on the way.
        data/README.md describes every file and column.

    python data/prepare_noise_data.py ml-100k --noise 0.1
    python data/prepare_noise_data.py amazon --reviews reviews_Toys_and_Games_5.json.gz \
        --metadata meta_Toys_and_Games.json.gz --name Toy --noise 0.1
"""

import argparse
import re
import shlex
import sys
import time
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the root, for what all stages share: denoise_code/common
from preparation.folder import write_data_set
from preparation.sources import read_amazon, read_ml_100k, read_movielens, read_recbole
from preparation.windows import (
    count_duplicates,
    count_single_interactions,
    drop_low_ratings,
    drop_untitled,
    inject_noise,
    k_core,
    sample_items,
    time_split,
)

from denoise_code.common.errors import InputError, Parser
from denoise_code.common.files import fingerprint, publish_folder, write_json
from denoise_code.common.options import finite, probability_below_one, ranged
from denoise_code.common.resources import peak_resident_gib
from denoise_code.data_set.log.csv_source import add_table_options, check_table_options, read_csv_log
from denoise_code.data_set.log.log import Account, Log
from denoise_code.data_set.log.sequences import number_and_sort, window_bounds
from denoise_code.data_set.log.titles import clean_titles
from denoise_code.data_set.planting import INJECTED

DATA_ROOT = Path(__file__).resolve().parent


def summary(log: Log, mask: np.ndarray, bounds, splits: dict) -> str:
    """The counts that a reader compares with data/README.md."""
    first, last = bounds
    users, items, total = log.users.max(), len(log.titles) - 1, len(log.users)
    lines = [f"users {users:,}  items {items:,}  interactions {total:,}  density {total / users / items:.5f}"]
    injected_before = np.r_[0, np.cumsum(mask == INJECTED)]
    for split, rows in splits.items():
        head, tail = first[rows], last[rows]
        lengths = tail - head + 1
        scored = tail + 1 if split == "train" else tail  # targets of valid and test are clean
        share = (injected_before[scored] - injected_before[head]).sum() / max((scored - head).sum(), 1)
        lines.append(
            f"{split:5s} windows {len(rows):,}  length {lengths.min()}..{lengths.max()} (mean {lengths.mean():.2f})  "
            f"injected noise {share:.4f} of {'all' if split == 'train' else 'history'} positions"
        )
    return "\n".join(lines)


def parse_args(argv=None) -> argparse.Namespace:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--name", help="data set name, the <Name> of the folder (default: the source's)")
    shared.add_argument(
        "--noise",
        type=probability_below_one,
        default=0.0,
        help="probability that an interaction is replaced, below 1 (default: 0.0)",
    )
    shared.add_argument("--min_rating", type=finite, help="drop interactions rated less, before all else (default: none)")
    shared.add_argument(
        "--title_words", type=ranged(int, 0), default=0, help="keep this many words of each title (default: 0, all)"
    )
    shared.add_argument(
        "--k_core",
        type=ranged(int, 1),
        default=5,
        help="fewest interactions of a user and of an item (default, release: 5; of Movie 11)",
    )
    shared.add_argument(
        "--sample_items", type=ranged(int, 1), help="keep this many random items first (default: all; release: of Movie 20000)"
    )
    shared.add_argument(
        "--window", type=ranged(int, 2), default=11, help="longest window: the history and its target (default, release: 11)"
    )
    shared.add_argument("--seed", type=ranged(int, 0), default=2024, help="seed of the noise and of every sample (default: 2024)")
    shared.add_argument(
        "--output_root", default=DATA_ROOT, help="folder in which the data set folder is made (default: data/ of the project)"
    )
    shared.add_argument("--overwrite", action="store_true", help="replace a data set of the same name (default: refuse)")
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sources = parser.add_subparsers(dest="source", required=True, metavar="source", parser_class=Parser)

    def source(name, read, default_name, help):
        added = sources.add_parser(name, parents=[shared], help=help, description=help, allow_abbrev=False)
        added.set_defaults(read=read, default_name=default_name)
        return added

    years = {"action": "store_true", "help": "titles without their year: fewer tokens, a few coincide (default: with it)"}
    source("ml-100k", read_ml_100k, "ML100K", "MovieLens-100k from the wheel recbole").add_argument("--no_year", **years)
    movielens = source("movielens", read_movielens, None, "a MovieLens folder: ml-100k, ml-1m, ml-10M100K, ml-20m, ml-32m")
    movielens.add_argument(
        "--folder", required=True, help="the unpacked folder with ratings.* and movies.*, or u.data and u.item (needed)"
    )
    movielens.add_argument("--no_year", **years)
    recbole = source("recbole", read_recbole, None, "a folder DATASET of RecBole's atomic files, DATASET.inter and DATASET.item")
    recbole.add_argument("--folder", required=True, help="the folder of DATASET.inter and DATASET.item (needed)")
    recbole.add_argument("--title_column", help="field of the titles (default: the first text field named like one)")
    amazon = source("amazon", read_amazon, None, "Amazon reviews of 2014, 2018 or 2023, JSON or Python lines, .gz or not")
    amazon.add_argument("--reviews", required=True, help="the file of reviews (needed)")
    amazon.add_argument("--metadata", required=True, help="the file of products, for their titles (needed)")
    table = source("csv", read_csv_log, None, "a delimited file, JSON lines or Parquet, told apart by content")
    table.add_argument("--interactions", required=True, help="the file of interactions (needed)")
    table.add_argument(
        "--rating_column", help="name of the rating column, for --min_rating (default: rating, where there is one)"
    )
    add_table_options(table)

    args = parser.parse_args(argv)
    args.name = args.name or args.default_name
    if not args.name:
        parser.error(f"--name is needed with the source {args.source}")
    if args.source == "csv":
        check_table_options(parser, args)
        if args.rating_column and args.min_rating is None:
            parser.error("--rating_column needs --min_rating: ratings are read for nothing else")
    if not re.fullmatch(r"[\w.-]+", args.name) or "noise" in args.name:
        parser.error(f"--name {args.name!r}: letters, digits, dot, dash and underscore only, and not the word 'noise'")
    args.folder_out = Path(args.output_root) / f"{args.name}_noise_user{args.noise}"
    if args.folder_out.exists() and not args.overwrite:
        parser.error(f"{args.folder_out} exists; --overwrite replaces it")
    return args


def keep(log: Log, account: Account, step: str, shorter: Log) -> Log:
    """Count what a step dropped from the log."""
    account.counts[step] = len(log.users) - len(shorter.users)
    return shorter


def reduced(log: Log, args: argparse.Namespace, account: Account) -> Log:
    """The interactions that count, numbered and sorted; what is dropped on the way is counted."""
    account.counts["duplicate_lines"] = count_duplicates(log)
    if args.min_rating is not None:
        log = keep(log, account, "rated_below_min_rating", drop_low_ratings(log, args.min_rating))
    log = keep(log, account, "without_title", drop_untitled(log))
    if args.sample_items:
        log = keep(
            log, account, "not_of_sampled_items", sample_items(log, args.sample_items, np.random.default_rng([args.seed, 0]))
        )
    log = keep(log, account, "below_k_core", k_core(log, args.k_core))
    if account.share("below_k_core") > 0.5:
        account.notes.append(
            f"WARNING: --k_core {args.k_core} drops {account.share('below_k_core'):.0%} of the log: users and items with fewer "
            f"interactions; --k_core 1 keeps them all"
        )
    account.counts["single_interactions"] = count_single_interactions(log.users)
    account.counts["left"] = len(log.users)
    return number_and_sort(log)


def main(argv=None) -> None:
    args = parse_args(argv)
    started, account = time.perf_counter(), Account()
    try:
        # 1. Read the log, 2. keep what counts, 3. cut windows and inject noise
        log, cleaned = clean_titles(args.read(args, account), args.title_words)
        log = reduced(log, args, account)
        bounds = window_bounds(log.users, args.window)
        splits = time_split(log.times[bounds[1]])
        noisy, mask = inject_noise(log.items, len(log.titles) - 1, args.noise, np.random.default_rng([args.seed, 1]))

        # 4. Write the folder, whole or not at all
        def write(folder: Path) -> None:
            write_data_set(folder, log, noisy, mask, bounds, splits, args.seed)
            write_json(folder / "run.json", run_of(args, argv, account, folder, time.perf_counter() - started))

        publish_folder(args.folder_out, write)
    except (InputError, OSError) as error:
        if account.rows_read:  # where too little is left, this tells why
            print("\n".join([*account.lines(), *account.notes]), flush=True)
        Parser(prog=Path(__file__).name).error(str(error))
    # 5. Say what was done
    print("\n".join([cleaned, *account.lines(), *account.notes]))
    print(summary(log, mask, bounds, splits))
    print(f"wrote {args.folder_out} in {time.perf_counter() - started:.1f} s, peak memory {peak_resident_gib():.2f} GiB")


def run_of(args: argparse.Namespace, argv, account: Account, folder: Path, seconds: float) -> dict:
    """The content of run.json."""
    options = {name: value for name, value in vars(args).items() if name not in ("read", "default_name", "folder_out")}
    return {
        "command": shlex.join([Path(__file__).name, *map(str, sys.argv[1:] if argv is None else argv)]),
        "options": options | {"output_root": str(args.output_root)},
        "window": args.window,
        "counts": account.as_json(),
        "notes": account.notes,
        "fingerprints": {name: fingerprint(folder / name) for name in ("interactions.csv", "items.csv", "users.csv")},
        "seconds": round(seconds, 2),
        "peak_memory_gib": round(peak_resident_gib(), 3),
    }


if __name__ == "__main__":
    main()
