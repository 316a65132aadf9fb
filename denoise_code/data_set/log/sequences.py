"""A log as sequences of users: who and what has which number, in which order a user's interactions stand, which windows they fill."""

from dataclasses import replace

import numpy as np
import pandas as pd

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
    starts = np.flatnonzero(np.r_[True, users[1:] != users[:-1]])
    counts = np.diff(np.r_[starts, len(users)])
    starts, counts = starts[counts >= 2], counts[counts >= 2]
    windows_per_user = np.maximum(counts - window, 0) + 1
    nth = np.arange(windows_per_user.sum()) - np.repeat(np.cumsum(windows_per_user) - windows_per_user, windows_per_user)
    lengths = np.repeat(np.minimum(counts, window), windows_per_user)
    first = np.repeat(starts, windows_per_user) + nth
    return first, first + lengths - 1
