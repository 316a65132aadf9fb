"""Delimited files: columns as they are written, interactions with times and ratings as numbers. Knows nothing of whose file it is."""

import csv
import gzip
import re
import zlib
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd

from preparation.log import DataError, Log


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
    if are_dates := np.isnan(numbers[0]):
        dates = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
        good = dates.between(pd.Timestamp.min.tz_localize("UTC"), pd.Timestamp.max.tz_localize("UTC")).to_numpy()
    else:
        good = np.abs(numbers) < 2**63
    if not good.all():
        line = np.flatnonzero(~good)[0]
        raise DataError(
            f"{path}:{line + first_line}: timestamp {texts[line]!r} is neither a number of 64 bits nor an ISO 8601 date up to 2262"
        )
    if are_dates:
        return shortest(dates.dt.as_unit("ns").astype("int64").to_numpy(), 9)
    if (numbers == np.floor(numbers)).all() and np.abs(numbers).max() < 2**53:
        return numbers.astype(np.int64), 0
    exact = [Decimal(text) for text in texts]  # a float keeps 16 digits, a time in nanoseconds has 19
    decimals = max(0, min(9, 18 - max(number.adjusted() + 1 for number in exact)))
    return shortest(np.array([int(number.scaleb(decimals)) for number in exact], dtype=np.int64), decimals)


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
    except UnicodeError as error:
        raise DataError(
            f"{path}: is not {encoding} ({error}): --encoding of the source csv names another, e.g. latin-1"
        ) from None
    except (pd.errors.ParserError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: {' '.join(str(error).split())}") from None
