"""Which train rows are learned from, and which are held out to measure detection."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from denoise_code.common.errors import InputError

HELD_OUT_SHARE = 0.2  # of the users, where the sample leaves so many: for the held-out windows and for planted.csv


class TrainedAndHeldOut(NamedTuple):
    """Which train rows are learned from, and which are held out to measure detection; the two are disjoint."""

    trained: np.ndarray  # (n_trained,) int64 row numbers
    held_out: np.ndarray  # (n_held_out,) int64 row numbers
    by: str  # "users": no user of a held-out row has a trained row; "rows": the rows differ, the users may not


def split_rows(users, sample: int, eval_sample: int, seed: int) -> TrainedAndHeldOut:
    """Hold out whole users, then draw `sample` rows to train on from all others; the same for the same arguments.

    users (n_rows,): whose row it is. What the users are called does not matter, only which rows are of the same one.
    `sample` rows are trained on wherever that many and `eval_sample` rows of other users exist. Where they do not, users are
    held out of the sample too, which then has fewer rows, but at least half. Where even that is not enough (all rows are of one
    user), the split is one by rows. Raises InputError where there are fewer than sample + eval_sample rows for that.
    """
    user_of_row, _ = pd.factorize(np.asarray(users))  # (n_rows,) int64: 0, 1, ... in the order of first appearance
    n_rows, rows_of_user = len(user_of_row), np.bincount(user_of_row)
    if sample > n_rows:
        raise InputError(f"--sample {sample} needs {sample} rows, there are {n_rows}")
    rng = np.random.default_rng([seed, 4])
    is_held_out = choose_held_out_users(rows_of_user, sample, eval_sample, rng)  # (n_users,) bool
    candidates = np.flatnonzero(is_held_out[user_of_row])
    if len(candidates) < eval_sample:
        if sample + eval_sample > n_rows:
            raise InputError(
                f"--sample {sample} and --eval_sample {eval_sample} need {sample + eval_sample} rows, there are {n_rows}, and too "
                "few users to hold whole ones out of the sample"
            )
        return split_single_rows(n_rows, sample, eval_sample, seed)
    order = rng.permutation(n_rows)
    trained = order[~is_held_out[user_of_row[order]]][:sample]
    return TrainedAndHeldOut(trained, spread_over_users(candidates, user_of_row, eval_sample, rng), "users")


def choose_held_out_users(rows_of_user: np.ndarray, sample: int, eval_sample: int, rng: np.random.Generator) -> np.ndarray:
    """(n_users,) bool: users in random order until they are a fifth of all and have `eval_sample` rows.

    The first pass takes only what `sample` leaves over. The second, where these rows were too few, takes users whose rows
    leave at least half of the sample. rows_of_user (n_users,) int64.
    """
    is_held_out = np.zeros(len(rows_of_user), dtype=bool)
    n_remaining_rows, n_held_out_users, n_held_out_rows = int(rows_of_user.sum()), 0, 0
    order = rng.permutation(len(rows_of_user))
    passes = (  # (users to hold out, rows that must remain to train on)
        (HELD_OUT_SHARE * len(rows_of_user), sample),
        (0, (sample + 1) // 2),
    )
    for needed_users, needed_remaining in passes:
        for user in order:
            if n_held_out_users >= needed_users and n_held_out_rows >= eval_sample:
                break
            if not is_held_out[user] and n_remaining_rows - rows_of_user[user] >= needed_remaining:
                is_held_out[user] = True
                n_remaining_rows -= int(rows_of_user[user])
                n_held_out_rows += int(rows_of_user[user])
                n_held_out_users += 1
    return is_held_out


def spread_over_users(rows: np.ndarray, user_of_row: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the rows (n,), drawn so that no user gives a second one before every other has given the first, and so on."""
    shuffled = rng.permutation(rows)
    users = pd.Series(user_of_row[shuffled])
    turn = users.groupby(users).cumcount().to_numpy()  # (n,) int64: 0 for a user's first row, 1 for the second, ...
    order = np.lexsort((rng.random(len(shuffled)), turn))  # by turn; at random within one
    return shuffled[order[:count]]


def split_single_rows(n_rows: int, sample: int, eval_sample: int, seed: int) -> TrainedAndHeldOut:
    """The split by rows: of adapters made before whole users were held out, and of rows of which nobody says whose they are."""
    if sample + eval_sample > n_rows:
        raise InputError(
            f"--sample {sample} and --eval_sample {eval_sample} need {sample + eval_sample} rows, there are {n_rows}"
        )
    order = np.random.default_rng([seed, 0]).permutation(n_rows)
    return TrainedAndHeldOut(order[:sample], order[sample : sample + eval_sample], "rows")
