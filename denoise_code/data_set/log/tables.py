"""Interactions and titles of one table of columns, whatever file it stands in."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from denoise_code.common.delimited import DelimitedTable, separator_hint
from denoise_code.common.errors import InputError
from denoise_code.data_set.log.keys import Codes, keys_that_nearly_meet, plain
from denoise_code.data_set.log.log import Account, Log
from denoise_code.data_set.log.times import Times, far_from_most
from denoise_code.data_set.log.titles import TitleVotes


@dataclass(frozen=True)
class Columns:
    """What the columns of a log are called; None where there is none (without times the order of the file counts)."""

    user: str
    item: str
    time: str | None
    rating: str | None = None
    title: str | None = None


def read_log(table, columns: Columns, account: Account) -> Log:
    """The interactions of a table; titles from its own column, or the items' keys."""
    wanted = [name for name in (columns.user, columns.item, columns.time, columns.rating, columns.title) if name is not None]
    check_columns(table, wanted)
    users, items, times, votes = Codes(), Codes(), Times(columns.time or ""), TitleVotes()
    user_codes, item_codes, ratings, count = [], [], [], 0
    names = list(dict.fromkeys(wanted))
    for chunk in table.chunks(names):
        cells, first = dict(zip(names, chunk)), count

        def where(place: int, first: int = first) -> str:
            return table.where(first + place)

        user_codes.append(coded(cells[columns.user], users, columns.user, where))
        item_codes.append(coded(cells[columns.item], items, columns.item, where))
        if columns.time is not None:
            times.add(cells[columns.time], where)
        if columns.rating is not None:
            ratings.append(numbers(cells[columns.rating], where))
        if columns.title is not None:
            votes.add(item_codes[-1], cells[columns.title])
        count += len(user_codes[-1])
    moments, decimals = times.result() if columns.time is not None else (np.arange(count), 0)
    log = log_of(users, items, user_codes, item_codes, moments, decimals)
    log = replace(log, ratings=np.concatenate(ratings) if ratings else None, times_are_dates=bool(times.are_dates))
    note_log(log, table, times.cut, account)
    if columns.title is None or columns.title == columns.item:
        return log
    return replace(log, titles=chosen_titles(votes, len(items), account))


def log_of(users: Codes, items: Codes, user_codes: list, item_codes: list, times: np.ndarray, decimals: int) -> Log:
    """The log of chunks of codes; its titles are the items' keys."""
    user_keys, item_keys = list(users), list(items)
    codes = np.concatenate(user_codes), np.concatenate(item_codes)
    rows = np.arange(len(times))
    return Log(*codes, times, list(items), decimals=decimals, rows=rows, user_keys=user_keys, item_keys=item_keys)


def check_columns(table, wanted: list[str]) -> None:
    if isinstance(table, DelimitedTable):
        for name in wanted:
            table.place(name)
    for name in wanted:
        if name not in table.names:
            columns = ", ".join(map(repr, table.names))
            raise InputError(f"{table.path}: no column {name!r}{table.named_in}, found {columns}{separator_hint(table.names)}")


def coded(keys: list[str], codes: Codes, name: str, where: Callable[[int], str]) -> np.ndarray:
    """The numbers (n,) int64 of keys, of which none may be empty."""
    if "" in keys:
        raise InputError(f"{where(keys.index(''))}: column {name!r} is empty")
    return np.fromiter(map(codes.__getitem__, keys), dtype=np.int64, count=len(keys))


def numbers(texts: list[str], where: Callable[[int], str], missing: str | None = None) -> np.ndarray:
    """Ratings (n,) float64, finite but for those whose text is `missing`: NaN."""
    try:
        values = np.fromiter(map(float, texts), dtype=np.float64, count=len(texts))
        if np.isfinite(values).all():
            return values
    except ValueError:
        pass
    for place, text in enumerate(texts):
        if text != missing and not is_number(text):
            raise InputError(f"{where(place)}: rating {text!r} is not a number")
    return values


def is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def note_log(log: Log, table, times_cut: int, account: Account) -> None:
    """What a person should know of the interactions that were read."""
    account.rows_read = len(log.users)
    account.notes += table.notes
    if times_cut:
        account.notes.append(f"{times_cut:,} times have more digits than 64 bits hold: cut to {log.decimals} decimals")
    far = far_from_most(log)
    if len(far):
        account.notes.append(
            f"{len(far):,} times are a hundred times larger or smaller than most, the first at {table.where(int(far[0]))}: are they "
            "in other units, or broken?"
        )
    for kind, keys in (("user", log.user_keys), ("item", log.item_keys)):
        refuse_broken_keys(table.path, kind, keys)
        count, example = keys_that_nearly_meet(keys)
        account.nearly_meeting[f"{kind}s"] = count
        if count:
            account.notes.append(
                f"{count:,} {kind} keys are another one but for blanks, case, leading zeros or a trailing .0, "
                f"e.g. {example[0]!r} and {example[1]!r}: they count as different {kind}s"
            )


def refuse_broken_keys(path: Path, kind: str, keys: list[str]) -> None:
    for key in keys:
        try:
            key.encode()
        except UnicodeEncodeError:
            raise InputError(f"{path}: {kind} {key!r} holds half a character, which no file can keep") from None


def with_titles(log: Log, table, fields: list[str], account: Account, title_of: Callable[..., str] | None = None) -> Log:
    """The log with the titles of a table: the first field is the item's key, `title_of` makes a title of the others."""
    check_columns(table, fields)
    return with_titles_of(log, table.chunks(fields), table, account, title_of)


def with_titles_of(log: Log, chunks: Iterable[list[list[str]]], table, account: Account, title_of=None) -> Log:
    """The same from chunks of columns: keys, then what `title_of` makes a title of."""
    codes = {key: code for code, key in enumerate(log.item_keys)}
    nearly = {plain(key): code for key, code in codes.items()}
    votes, nearly_named, example, n_ours = TitleVotes(), {}, None, 0
    for keys, *texts in chunks:
        example = example or keys[0]
        titles = texts[0] if title_of is None else [title_of(*cells) for cells in zip(*texts)]
        numbers = [codes.get(key, -1) for key in keys]
        ours = [place for place, number in enumerate(numbers) if number >= 0]
        if len(ours) < len(keys):
            for key, number in zip(keys, numbers):
                if number < 0 and (code := nearly.get(plain(key))) is not None:
                    nearly_named.setdefault(code, key)
        votes.add(np.array([numbers[place] for place in ours], dtype=np.int64), [titles[place] for place in ours])
        n_ours += len(ours)
    if not n_ours:
        raise InputError(
            f"{table.path}: has no item of the log: items are called {example!r} there, {log.item_keys[0]!r} in the log"
        )
    account.notes += table.notes
    log = replace(log, titles=chosen_titles(votes, len(log.titles), account))
    missed = {code: key for code, key in nearly_named.items() if not log.titles[code]}
    account.nearly_meeting["titles"] = len(missed)
    if missed:
        code, key = next(iter(missed.items()))
        account.notes.append(
            f"{len(missed):,} items have no title, but for leading zeros, blanks, case or a trailing .0 in their keys, "
            f"e.g. {log.item_keys[code]!r} in the log and {key!r} in {table.path.name}"
        )
    return log


def chosen_titles(votes: TitleVotes, n_items: int, account: Account) -> list[str | None]:
    titles, several = votes.choose(n_items)
    account.items_with_several_titles = several
    if several:
        account.notes.append(f"{several:,} items have several titles: the most frequent counts, of these the latest")
    return titles
