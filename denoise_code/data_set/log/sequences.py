"""A log as sequences of users: who and what has which number, in which order a user's interactions stand, which windows they fill."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from denoise_code.data_set.interactions import NO_ROW, DataSet, Interactions
from denoise_code.data_set.log.log import Log


def number_and_sort(log: Log) -> Log:
    """Ids from 1 in order of first appearance; rows by user, then time, then place in the file.

    titles[i], item_keys[i] and user_keys[i] of the result are those of item or user i; at 0 stands padding, empty.
    """
    users, old_users = pd.factorize(log.users)
    items, old_items = pd.factorize(log.items)
    order = np.lexsort((log.times, users))  # a stable sort: equal times keep the order of the file
    numbered = replace(
        log,
        users=users + 1,
        items=items + 1,
        titles=["", *(log.titles[item] for item in old_items)],
        user_keys=log.user_keys and ["", *(log.user_keys[user] for user in old_users)],
        item_keys=log.item_keys and ["", *(log.item_keys[item] for item in old_items)],
    )
    return numbered.pick(order)


def first_of_each_user(users: np.ndarray) -> np.ndarray:
    """The row (U,) of each user's first interaction, `users` (N,) being sorted."""
    return np.r_[0, np.flatnonzero(users[1:] != users[:-1]) + 1]


def places_of(users: np.ndarray) -> np.ndarray:
    """The place (N,) of each interaction in its user's sequence, from 0, `users` (N,) being sorted."""
    firsts = first_of_each_user(users)
    lengths = np.diff(np.r_[firsts, len(users)])
    return np.arange(len(users)) - np.repeat(firsts, lengths)


def window_bounds(users: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last row (W,) of each window, `users` (N,) being sorted.

    A user of n >= window interactions has a window ending at each interaction from the window-th on,
    one of 2 <= n < window a single window of them all.
    """
    starts = first_of_each_user(users)
    counts = np.diff(np.r_[starts, len(users)])
    starts, counts = starts[counts >= 2], counts[counts >= 2]
    windows_per_user = np.maximum(counts - window, 0) + 1
    nth = np.arange(windows_per_user.sum()) - np.repeat(np.cumsum(windows_per_user) - windows_per_user, windows_per_user)
    lengths = np.repeat(np.minimum(counts, window), windows_per_user)
    first = np.repeat(starts, windows_per_user) + nth
    return first, first + lengths - 1


def first_of_equals(users: np.ndarray, items: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(N,) int64: for each of N records the first one with the same user, item and time; all (N,)."""
    order = np.lexsort((times, items, users))  # stable: equal records keep their order
    columns = [column[order] for column in (users, items, times)]
    is_first = np.r_[True, np.any([column[1:] != column[:-1] for column in columns], axis=0)]  # (N,) of equal records, in `order`
    first_record = np.empty(len(order), dtype=np.int64)
    first_record[order] = order[is_first][np.cumsum(is_first) - 1]
    return first_record


@dataclass(frozen=True)
class DistinctLog:
    """A log of which each interaction counts once, and where its records are found in it.

    log: n interactions as `number_and_sort` gives them; log.rows (n,) are the records that they come from. interaction_of_record (N,)
    int64: of each record, a row of `log`. is_duplicate (N,) bool: whether an earlier record has the same user, item and time.
    """

    log: Log
    interaction_of_record: np.ndarray
    is_duplicate: np.ndarray


def distinct_interactions(log: Log) -> DistinctLog:
    """The records of a log in file order as distinct interactions."""
    n_records = len(log.users)
    first_record = first_of_equals(log.users, log.items, log.times)
    is_duplicate = first_record != np.arange(n_records)
    distinct = number_and_sort(replace(log, rows=np.arange(n_records)).pick(~is_duplicate))
    interaction_of_record = np.empty(n_records, dtype=np.int64)
    interaction_of_record[distinct.rows] = np.arange(len(distinct.rows))
    return DistinctLog(distinct, interaction_of_record[first_record], is_duplicate)


def data_set_of_log(log: Log, window: int) -> DataSet:
    """All windows of up to `window` interactions of a sorted log (`number_and_sort`) as train windows.

    The users of the table are those of the log less 1, in its order; windows stand in the order of the table.
    """
    places = places_of(log.users)
    lengths = np.bincount(log.users)[log.users]  # (n,) interactions of the same user
    interactions = Interactions(
        users=log.users - 1,
        places=places,
        items=log.items,
        reach=np.where(lengths < 2, -1, np.minimum(places + window, lengths) - 1),
        user_names=np.arange(1, log.users.max() + 1).astype(str),
    )
    first, last = window_bounds(log.users, window)
    width = int((last - first).max(initial=0)) + 1
    rows = last[:, None] + np.arange(1 - width, 1)  # (N, W)
    rows = np.where(rows >= first[:, None], rows, NO_ROW)
    return DataSet(interactions, rows, evaluated={}, n_items=len(log.titles) - 1, disagreements=0)
