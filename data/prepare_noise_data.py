"""Turn an interaction log with titles into the data set folder that the other stages read.

Reads   MovieLens-100k from the PyPI wheel `recbole` (source ml-100k), a MovieLens folder, Amazon review and
        metadata files, or any CSV of interactions.
Writes  data/<Name>_noise_user<rate>/: train.csv valid.csv test.csv, seeded samples of them, id2name*.json.
        data/README.md describes every file and column.

    python data/prepare_noise_data.py ml-100k --noise 0.1
    python data/prepare_noise_data.py amazon --reviews reviews_Toys_and_Games_5.json.gz \
        --metadata meta_Toys_and_Games.json.gz --name Toy --noise 0.1
"""

import argparse
import array
import ast
import gzip
import importlib.util
import json
import os
import re
import resource
import shutil
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

DATA_ROOT = Path(__file__).resolve().parent
MIN_WINDOWS = 10  # an 8:1:1 split of fewer leaves a split empty
TRAIN_SAMPLES = (1000, 5000)  # the samples that the release ships
EVAL_SAMPLE = 5000
CHUNK_ROWS = 100_000  # rows turned into text at once: bounds the memory of writing
ARTICLES = "The|A|An|La|Le|Les|L'|Il|Lo|I|Gli|El|Los|Las|Der|Die|Das|Det|Den|De|Het|O|Os|As"
TRAILING_ARTICLE = re.compile(rf"^(?P<head>.+?), (?P<article>{ARTICLES})(?P<rest>( \(.*)?)$")
VHS_SUFFIX = re.compile(r"\s*[\[(]?\bVHS\b( Tape)?[\])]?\s*$", re.IGNORECASE)


class DataError(ValueError):
    """Input that cannot be used; the message names file, line or option."""


@dataclass
class Log:
    """Interactions in file order: users, items and times are (N,) int64; titles[item] is None where unknown."""

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    titles: list


# ---------------------------------------------------------------- sources


def read_ml_100k(args) -> Log:
    """MovieLens-100k as the wheel `recbole` carries it; the package is located, never imported."""
    spec = importlib.util.find_spec("recbole")
    if spec is None:
        raise DataError("ml-100k needs the files of a wheel: pip install --no-deps recbole==1.2.1")
    folder = Path(spec.origin).parent / "dataset_example" / "ml-100k"
    log = read_table(folder / "ml-100k.inter", "\t", "user_id:token", "item_id:token", "timestamp:float")
    movies = read_columns(folder / "ml-100k.item", "\t", ["item_id:token", "movie_title:token_seq", "release_year:token"])
    titles = {}
    for item, title, year in zip(*movies.values()):
        if title == "unkonwn":  # so written there: one item of unknown title
            continue
        title = article_first(title)
        titles[item] = f"{title} ({year})" if year and not args.no_year else title
    return with_titles(log, titles)


def read_movielens(args) -> Log:
    """A folder of GroupLens: ratings.dat/movies.dat (1m, 10m) or ratings.csv/movies.csv (20m, 32m)."""
    folder = Path(args.folder)
    if (folder / "ratings.csv").exists():
        log = read_table(folder / "ratings.csv", ",", "userId", "movieId", "timestamp")
        movies = read_columns(folder / "movies.csv", ",", ["movieId", "title"])
        titles = dict(zip(*movies.values()))
    elif (folder / "ratings.dat").exists():
        # "user::item::rating::time" split at single colons leaves empty columns between the four
        log = read_table(folder / "ratings.dat", ":", 0, 2, 6)
        titles = read_movies_dat(folder / "movies.dat")
    else:
        raise DataError(f"{folder}: neither ratings.csv nor ratings.dat is there")
    year = re.compile(r"\s*\(\d{4}\)\s*$" if args.no_year else r"\s+$")
    return with_titles(log, {item: article_first(year.sub("", title)) for item, title in titles.items()})


def read_movies_dat(path: Path) -> dict:
    """id -> title of a movies.dat file (`id::title::genres`; 1m is latin-1, 10m is UTF-8)."""
    raw = read_bytes(path)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    titles = {}
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split("::")
        if len(fields) < 2:
            raise DataError(f"{path}:{number}: expected id::title::genres, found {line[:60]!r}")
        titles[fields[0]] = fields[1]
    return titles


def read_amazon(args) -> Log:
    """Amazon reviews and metadata of 2014, 2018 (asin) or 2023 (parent_asin, milliseconds).

    Of several reviews of one item by one user the earliest counts (of equally old ones the first in the file);
    a trailing "VHS" is cut from titles, so that two editions of a film carry one name.
    """
    users, items, times = {}, {}, array.array("q")
    user_codes, item_codes = array.array("q"), array.array("q")
    for where, review in read_records(Path(args.reviews)):
        user = review.get("reviewerID", review.get("user_id"))
        item = review.get("parent_asin", review.get("asin"))
        moment = review.get("unixReviewTime", review.get("timestamp"))
        if user is None or item is None or moment is None:
            raise DataError(f"{where}: a review needs reviewerID/user_id, asin/parent_asin, unixReviewTime/timestamp")
        if not all(isinstance(key, str | int) for key in (user, item)):
            raise DataError(f"{where}: user {str(user)[:40]!r} or item {str(item)[:40]!r} is no name")
        if isinstance(moment, bool) or not re.fullmatch(r"-?[0-9]+", str(moment)):
            raise DataError(f"{where}: timestamp {moment!r} is not a whole number")
        user_codes.append(users.setdefault(user, len(users)))
        item_codes.append(items.setdefault(item, len(items)))
        times.append(int(moment) // 1000 if "unixReviewTime" not in review else int(moment))
    titles = {}
    for where, product in read_records(Path(args.metadata)):
        item = product.get("parent_asin", product.get("asin"))
        if item is None:
            raise DataError(f"{where}: a metadata line needs asin or parent_asin")
        title = product.get("title")
        if isinstance(title, str):
            titles[item] = VHS_SUFFIX.sub("", title)
    log = Log(*(np.array(column, dtype=np.int64) for column in (user_codes, item_codes, times)), list(items))
    by_time = np.argsort(log.times, kind="stable")
    pairs = log.users[by_time] * len(items) + log.items[by_time]
    first = np.sort(by_time[np.unique(pairs, return_index=True)[1]])
    return with_titles(Log(log.users[first], log.items[first], log.times[first], log.titles), titles)


def read_csv_log(args) -> Log:
    """Any CSV with a header; titles from its own title column, from --titles, or the item's key itself."""
    path, columns = Path(args.interactions), [args.user_column, args.item_column, args.time_column]
    log = read_table(path, ",", *columns)
    if args.item_column == args.title_column:
        return log
    if args.titles:
        named = read_columns(Path(args.titles), ",", [args.item_column, args.title_column])
    elif args.title_column in pd.read_csv(path, nrows=0).columns:
        named = read_columns(path, ",", [args.item_column, args.title_column])
    else:
        return log
    return with_titles(log, dict(zip(*named.values())))


def read_table(path: Path, separator: str, user, item, moment) -> Log:
    """Interactions of a delimited file; `user`, `item`, `moment` are column names, or positions when it has no header."""
    columns = read_columns(path, separator, [user, item, moment])
    header = isinstance(user, str)
    for name in (user, item):
        empty = np.flatnonzero(columns[name] == "")
        if len(empty):
            raise DataError(f"{path}:{empty[0] + 1 + header}: column {name!r} is empty")
    times = pd.to_numeric(pd.Series(columns[moment]), errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = np.flatnonzero(~(np.isfinite(times) & (times == np.floor(times))))
    if len(bad):
        line = bad[0] + 1 + header
        raise DataError(f"{path}:{line}: timestamp {columns[moment][bad[0]]!r} is not a whole number")
    item_codes, item_keys = pd.factorize(columns[item])
    user_codes, _ = pd.factorize(columns[user])
    return Log(user_codes.astype(np.int64), item_codes.astype(np.int64), times.astype(np.int64), list(item_keys))


def read_columns(path: Path, separator: str, columns: list) -> dict:
    """{column: (N,) array of str} of a delimited file, cells as they are written, missing ones empty."""
    if not path.exists():
        raise DataError(f"{path}: no such file")
    options = {"sep": separator, "header": 0 if isinstance(columns[0], str) else None, "encoding": "utf-8"}
    try:
        found = pd.read_csv(path, nrows=1, **options).columns
        missing = [column for column in columns if column not in found]
        if missing:
            raise DataError(f"{path}: no column {missing[0]!r}, found {', '.join(map(repr, found))}")
        table = pd.read_csv(path, usecols=columns, dtype=str, keep_default_na=False, skip_blank_lines=False, **options)
    except pd.errors.EmptyDataError:
        raise DataError(f"{path}: the file is empty") from None
    except (pd.errors.ParserError, UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: {' '.join(str(error).split())}") from None
    if table.empty:
        raise DataError(f"{path}: no rows below the header")
    return {column: table[column].fillna("").to_numpy(dtype=object) for column in columns}


def read_records(path: Path):
    """Yield (file:line, dict) of a file of JSON or Python-literal lines, gzipped when its name ends in .gz."""
    if not path.exists():
        raise DataError(f"{path}: no such file")
    opener, number = gzip.open if path.suffix == ".gz" else open, 0
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                yield f"{path}:{number}", parse_record(path, number, line)
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise DataError(f"{path}: damaged after line {number}: {error}") from None
    if number == 0:
        raise DataError(f"{path}: the file is empty")


def parse_record(path: Path, number: int, line: str) -> dict:
    """One line of a review file; the metadata of 2014 is written as Python literals, all else is JSON."""
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        try:
            record = ast.literal_eval(line)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            record = None
    if not isinstance(record, dict):
        raise DataError(f"{path}:{number}: neither a JSON object nor a Python dict: {line[:60]!r}")
    return record


def read_bytes(path: Path) -> bytes:
    if not path.exists():
        raise DataError(f"{path}: no such file")
    return path.read_bytes()


def article_first(title: str) -> str:
    """'Hunt for Red October, The (1990)' -> 'The Hunt for Red October (1990)', as MovieLens does not write it."""
    found = TRAILING_ARTICLE.match(title)
    if not found:
        return title
    article = found["article"]
    return f"{article}{'' if article.endswith(chr(39)) else ' '}{found['head']}{found['rest']}"


def clean_title(title: str) -> str:
    """White space and control characters folded to single spaces; halves of broken characters left out."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", title)
    return " ".join(text.encode("utf-8", "ignore").decode().split())


def with_titles(log: Log, titles: dict) -> Log:
    """Replace the item keys in log.titles by titles (white space folded); None where there is none."""
    named = [clean_title(titles.get(key, "")) or None for key in log.titles]
    return Log(log.users, log.items, log.times, named)


# ---------------------------------------------------------------- from a log to windows


def select(log: Log, keep: np.ndarray) -> Log:
    return Log(log.users[keep], log.items[keep], log.times[keep], log.titles)


def drop_untitled(log: Log) -> Log:
    kept = select(log, np.array([title is not None for title in log.titles])[log.items])
    if not len(kept.users):
        raise DataError("no interaction is left: none of its items has a title")
    return kept


def sample_items(log: Log, count: int, rng: np.random.Generator) -> Log:
    """Keep the interactions of `count` random items (the paper samples 20,000 movies before the k-core)."""
    present = np.unique(log.items)
    if count > len(present):
        raise DataError(f"--sample_items {count}: only {len(present)} items with a title have interactions")
    chosen = np.zeros(len(log.titles), dtype=bool)
    chosen[rng.choice(present, size=count, replace=False)] = True
    return select(log, chosen[log.items])


def k_core(log: Log, k: int) -> Log:
    """Drop users and items with fewer than k interactions until none is left."""
    while len(log.users):
        keep = (np.bincount(log.users)[log.users] >= k) & (np.bincount(log.items)[log.items] >= k)
        if keep.all():
            return log
        log = select(log, keep)
    raise DataError(f"--k_core {k} removes every interaction")


def number_and_sort(log: Log) -> Log:
    """Ids from 1 in order of first appearance; rows by user, then time, then place in the file.

    titles[i] of the result is the title of item i; titles[0] is the padding item's, empty.
    """
    users = pd.factorize(log.users)[0] + 1
    items, keys = pd.factorize(log.items)
    order = np.lexsort((log.times, users))  # a stable sort: equal times keep the order of the file
    return Log(users[order], items[order] + 1, log.times[order], ["", *(log.titles[key] for key in keys)])


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


# ---------------------------------------------------------------- writing


def json_list(texts: np.ndarray, lengths: np.ndarray) -> list[str]:
    """Join consecutive runs of already encoded JSON values into one JSON list a row."""
    ends = np.cumsum(lengths)
    texts = texts.tolist()
    return ["[" + ", ".join(texts[end - length : end]) + "]" for end, length in zip(ends.tolist(), lengths.tolist())]


def write_rows(path: Path, log: Log, noisy, mask, first, last, clean_target: bool) -> None:
    """Write the windows [first, last] as CSV rows; see data/README.md for the columns."""
    encoded = np.array([json.dumps(title, ensure_ascii=False) for title in log.titles], dtype=object)
    ids = np.array([str(item) for item in range(len(log.titles))], dtype=object)
    for start in range(0, max(len(first), 1), CHUNK_ROWS):
        heads, tails = first[start : start + CHUNK_ROWS], last[start : start + CHUNK_ROWS]
        lengths = tails - heads + 1
        ends = np.cumsum(lengths)
        rows = np.arange(lengths.sum()) + np.repeat(heads - (ends - lengths), lengths)  # flat row numbers of the log
        items, masked = noisy[rows], mask[rows]
        if clean_target and len(ends):
            items[ends - 1], masked[ends - 1] = log.items[tails], False
        masked_per_row = np.add.reduceat(masked, ends - lengths) if len(ends) else lengths
        table = pd.DataFrame(
            {
                "user_id": log.users[tails],
                "item_ids": json_list(ids[items], lengths),
                "mask": json_list(ids[masked.astype(int)], lengths),
                "item_titles": json_list(encoded[items], lengths),
                "replaced_item_titles": json_list(encoded[log.items[rows[masked]]], masked_per_row),
                "timestamp": log.times[tails],
            }
        )
        table.to_csv(path, mode="a", header=start == 0, index=False)


def write_titles(folder: Path, titles: list[str]) -> None:
    """id2name4Rec.json names every item; in id2name.json the first id of a repeated title wins."""
    every = {str(item): title for item, title in enumerate(titles) if item}
    first_of = {title: item for item, title in reversed(every.items())}
    distinct = {item: title for item, title in every.items() if first_of[title] == item}
    for name, content in (("id2name4Rec.json", every), ("id2name.json", distinct)):
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
    before = np.r_[0, np.cumsum(mask)]
    for split, rows in splits.items():
        head, tail = first[rows], last[rows]
        lengths = tail - head + 1
        scored = tail + 1 if split == "train" else tail  # targets of valid and test are clean
        noise = (before[scored] - before[head]).sum() / max((scored - head).sum(), 1)
        lines.append(
            f"{split:5s} windows {len(rows):,}  length {lengths.min()}..{lengths.max()} (mean {lengths.mean():.2f})  "
            f"injected noise {noise:.4f} of {'all' if split == 'train' else 'history'} positions"
        )
    return "\n".join(lines)


# ---------------------------------------------------------------- command line


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
    movielens = source("movielens", read_movielens, None, "a MovieLens folder: ml-1m, ml-10M100K, ml-20m, ml-32m")
    movielens.add_argument("--folder", required=True, help="the unpacked folder with ratings.* and movies.*")
    movielens.add_argument("--no_year", **years)
    amazon = source("amazon", read_amazon, None, "Amazon reviews of 2014, 2018 or 2023, JSON or Python lines, .gz or not")
    amazon.add_argument("--reviews", required=True, help="the file of reviews")
    amazon.add_argument("--metadata", required=True, help="the file of products, for their titles")
    table = source("csv", read_csv_log, None, "a CSV file with a header")
    table.add_argument("--interactions", required=True, help="the file of interactions")
    table.add_argument("--titles", help="a CSV of items and titles, when the interactions carry none")
    for column, default in (("user", "user"), ("item", "item"), ("time", "timestamp"), ("title", "title")):
        table.add_argument(f"--{column}_column", default=default, help=f"name of the {column} column (default {default})")

    args = parser.parse_args(argv)
    args.name = args.name or args.default_name
    if not args.name:
        parser.error(f"--name is needed with the source {args.source}")
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
        log = drop_untitled(args.read(args))
        if args.sample_items:
            log = sample_items(log, args.sample_items, np.random.default_rng([args.seed, 0]))
        log = number_and_sort(k_core(log, args.k_core))
        bounds = window_bounds(log.users, args.window, args.stride)
        splits = time_split(log.times[bounds[1]])
        noisy, mask = inject_noise(log.items, len(log.titles) - 1, args.noise, np.random.default_rng([args.seed, 1]))
        publish(args.folder_out, lambda folder: write_data_set(folder, log, noisy, mask, bounds, splits, args.seed))
    except (DataError, OSError) as error:
        Parser(prog=Path(__file__).name).error(str(error))
    print(summary(log, mask, bounds, splits))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"wrote {args.folder_out} in {time.perf_counter() - started:.1f} s, peak memory {peak:.2f} GiB")


if __name__ == "__main__":
    main()
