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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the root, for what all stages share: denoise_code/common
from preparation.folder import write_data_set
from preparation.options import DEFAULT_NAMES, DataSetOptions, add_sources, reader_of
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
from denoise_code.common.resources import peak_resident_gib
from denoise_code.data_set.log.log import Account, Log
from denoise_code.data_set.log.sequences import number_and_sort, window_bounds
from denoise_code.data_set.log.titles import clean_titles
from denoise_code.data_set.planting import INJECTED


@dataclass(frozen=True)
class Request:
    """What a run was asked for."""

    read_source: Callable[[Account], Log]
    options: DataSetOptions
    by_name: dict  # {option: value} of the whole command line, as run.json records it


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


def parse_args(argv=None) -> Request:
    """What the command line asks for, checked before anything is read."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sources(parser)
    args = parser.parse_args(argv)
    args.name = args.name or DEFAULT_NAMES.get(args.source)
    if not args.name:
        parser.error(f"--name is needed with the source {args.source}")
    read_source = reader_of(parser, args)
    if not re.fullmatch(r"[\w.-]+", args.name) or "noise" in args.name:
        parser.error(f"--name {args.name!r}: letters, digits, dot, dash and underscore only, and not the word 'noise'")
    options = DataSetOptions.from_arguments(args, output_root=Path(args.output_root))
    if options.folder.exists() and not options.overwrite:
        parser.error(f"{options.folder} exists; --overwrite replaces it")
    return Request(read_source, options, vars(args) | {"output_root": str(args.output_root)})


def keep(log: Log, account: Account, step: str, shorter: Log) -> Log:
    """Count what a step dropped from the log."""
    account.counts[step] = len(log.users) - len(shorter.users)
    return shorter


def reduced(log: Log, options: DataSetOptions, account: Account) -> Log:
    """The interactions that count, numbered and sorted; what is dropped on the way is counted."""
    account.counts["duplicate_lines"] = count_duplicates(log)
    if options.min_rating is not None:
        log = keep(log, account, "rated_below_min_rating", drop_low_ratings(log, options.min_rating))
    log = keep(log, account, "without_title", drop_untitled(log))
    if options.sample_items:
        sampled = sample_items(log, options.sample_items, np.random.default_rng([options.seed, 0]))
        log = keep(log, account, "not_of_sampled_items", sampled)
    log = keep(log, account, "below_k_core", k_core(log, options.k_core))
    if account.share("below_k_core") > 0.5:
        account.notes.append(
            f"WARNING: --k_core {options.k_core} drops {account.share('below_k_core'):.0%} of the log: users and items with fewer "
            f"interactions; --k_core 1 keeps them all"
        )
    account.counts["single_interactions"] = count_single_interactions(log.users)
    account.counts["left"] = len(log.users)
    return number_and_sort(log)


def main(argv=None) -> None:
    request = parse_args(argv)
    options = request.options
    started, account = time.perf_counter(), Account()
    try:
        # 1. Read the log, 2. keep what counts, 3. cut windows and inject noise
        log, cleaned = clean_titles(request.read_source(account), options.title_words)
        log = reduced(log, options, account)
        bounds = window_bounds(log.users, options.window)
        splits = time_split(log.times[bounds[1]])
        noisy, mask = inject_noise(log.items, len(log.titles) - 1, options.noise, np.random.default_rng([options.seed, 1]))

        # 4. Write the folder, whole or not at all
        def write(folder: Path) -> None:
            write_data_set(folder, log, noisy, mask, bounds, splits, options.seed)
            write_json(folder / "run.json", run_of(request, argv, account, folder, time.perf_counter() - started))

        publish_folder(options.folder, write)
    except (InputError, OSError) as error:
        if account.rows_read:  # where too little is left, this tells why
            print("\n".join([*account.lines(), *account.notes]), flush=True)
        Parser(prog=Path(__file__).name).error(str(error))
    # 5. Say what was done
    print("\n".join([cleaned, *account.lines(), *account.notes]))
    print(summary(log, mask, bounds, splits))
    print(f"wrote {options.folder} in {time.perf_counter() - started:.1f} s, peak memory {peak_resident_gib():.2f} GiB")


def run_of(request: Request, argv, account: Account, folder: Path, seconds: float) -> dict:
    """The content of run.json."""
    return {
        "command": shlex.join([Path(__file__).name, *map(str, sys.argv[1:] if argv is None else argv)]),
        "options": request.by_name,
        "window": request.options.window,
        "counts": account.as_json(),
        "notes": account.notes,
        "fingerprints": {name: fingerprint(folder / name) for name in ("interactions.csv", "items.csv", "users.csv")},
        "seconds": round(seconds, 2),
        "peak_memory_gib": round(peak_resident_gib(), 3),
    }


if __name__ == "__main__":
    main()
