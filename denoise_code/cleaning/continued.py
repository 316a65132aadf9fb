"""New records judged in the context of a log that was judged before, by what was learned there. Arrays, no files.

Windows hold the old and the new interactions of the users who have new ones. What items have to do with each other is counted in the old
log alone, and nothing is learned.
"""

from dataclasses import dataclass, replace

import numpy as np

from denoise_code.cleaning.records import PreparedLog, judged_by_what_is_known
from denoise_code.common.errors import InputError
from denoise_code.data_set.evidence_files import noise_probability
from denoise_code.data_set.interactions import DataSet
from denoise_code.data_set.log.log import Log
from denoise_code.data_set.log.sequences import DistinctLog, data_set_of_log, first_of_equals
from denoise_code.data_set.log.times import decimals_that_fit
from denoise_code.data_set.log.titles import clean_titles
from denoise_code.evidence import cooccurrence
from denoise_code.evidence.learned import Learned, apply_learned
from denoise_code.judging import FiguresOfKinds, JudgedDataSet, JudgedInteractions, Replacements, least_probability
from denoise_code.replacement import make_ranker, neighbours_by_titles, replace_interactions


@dataclass(frozen=True)
class ContinuedLog:
    """prepared: the old and the new interactions of the users who have new ones, and where each new record is among them.

    old: all windows of the old log. Users and items have the same numbers in both; new ones come behind the old ones.
    """

    prepared: PreparedLog
    old: DataSet


@dataclass(frozen=True)
class Taught:
    """What the old log taught: what judges, the figures of it, weights (F,) by which replacements are ranked, the share of noise."""

    learned: Learned
    figures: FiguresOfKinds
    weights: np.ndarray
    noise_share: float


def continue_log(old: Log, new: Log, window: int, where, in_order: bool) -> ContinuedLog:
    """old: sorted, as a folder keeps it. new: records in file order; where(record) names one of them.

    in_order: there are no times, the new records follow all old ones. Raises InputError for a record that the old log has.
    """
    new, title_changes = clean_titles(new)
    user_numbers, user_keys = numbers_behind(old.user_keys, new.user_keys)
    item_numbers, item_keys = numbers_behind(old.item_keys, new.item_keys)
    title_of_new = dict(zip(item_numbers.tolist(), new.titles))
    titles = [title or title_of_new.get(item) or "" for item, title in enumerate(old.titles)]  # one that was not known may be now
    titles += [title_of_new[item] for item in range(len(old.titles), len(item_keys))]
    old_times, new_times, decimals = times_of_one_unit(old, new, where)
    if in_order:  # both are numbers of records, from 0
        new_times = new_times + old_times.max() + 1
    has_new = np.zeros(len(user_keys), dtype=bool)
    has_new[user_numbers[new.users]] = True
    context = has_new[old.users]  # (n_old,) bool
    users = np.concatenate([old.users[context], user_numbers[new.users]])
    items = np.concatenate([old.items[context], item_numbers[new.items]])
    times = np.concatenate([old_times[context], new_times])
    records = np.concatenate([np.full(context.sum(), -1), np.arange(len(new.users))])  # (m,) -1: of the old log
    first = first_of_equals(users, items, times)  # (m,) which entry each one repeats: of the old log, or earlier in the new one
    repeats_old = np.flatnonzero((records >= 0) & (records[first] < 0))
    if len(repeats_old):
        record = int(records[repeats_old].min())
        raise InputError(
            f"{where(record)}: the log that is continued has this user, item and time already ({len(repeats_old):,} such)"
        )
    distinct_entries = np.flatnonzero(first == np.arange(len(first)))
    order = np.lexsort((times[distinct_entries], users[distinct_entries]))  # stable: old ones come first at equal times
    entries = distinct_entries[order]  # (n,)
    log = Log(users[entries], items[entries], times[entries], titles, None, decimals, records[entries], user_keys, item_keys)
    row_of_entry = np.empty(len(first), dtype=np.int64)
    row_of_entry[entries] = np.arange(len(entries))
    is_new = records >= 0
    distinct = DistinctLog(log, row_of_entry[first[is_new]], (first != np.arange(len(first)))[is_new])
    prepared = PreparedLog(distinct, titles, data_set_of_log(log, window), title_changes)
    return ContinuedLog(prepared, data_set_of_log(replace(old, titles=titles), window))


def times_of_one_unit(old: Log, new: Log, where) -> tuple[np.ndarray, np.ndarray, int]:
    """(times of the old log, times of the new one, decimals): all are whole numbers of 10^-decimals. Raises InputError beyond 64 bits."""
    decimals = max(old.decimals, new.decimals)
    largest_of_old, largest_of_new = (int(np.abs(log.times).max()) // 10**log.decimals for log in (old, new))
    if decimals_that_fit(max(largest_of_old, largest_of_new), decimals) < decimals:
        raise InputError(
            f"{where(0)}: the times here (up to {largest_of_new}, {new.decimals} decimals) and those of the log that is continued "
            f"(up to {largest_of_old}, {old.decimals} decimals) do not fit in 64 bits together; are their units the same?"
        )
    return *(log.times * 10 ** (decimals - log.decimals) for log in (old, new)), decimals


def numbers_behind(old_keys: list[str], new_keys: list[str]) -> tuple[np.ndarray, list[str]]:
    """(number (K,) of each new key, all keys by number): the old keys keep their numbers, others come behind them."""
    numbers = {key: number for number, key in enumerate(old_keys) if number}  # 0 is padding
    for key in new_keys:
        numbers.setdefault(key, len(numbers) + 1)
    return np.array([numbers[key] for key in new_keys], dtype=np.int64), ["", *numbers]


def judge_continued(continued: ContinuedLog, taught: Taught, vectors: np.ndarray | None) -> JudgedDataSet:
    """All interactions of `prepared`, and replacements, with the share of noise of the old log. vectors (n_items + 1, D) or None."""
    prepared, old = continued.prepared, continued.old
    counts = cooccurrence.count(old.interactions, old.n_items, old.train.shape[1])
    r_by_kind = apply_learned(prepared.data, taught.learned, counts, vectors, prepared.halvings)
    by_titles = None if vectors is None else neighbours_by_titles(vectors)
    ranker = make_ranker(counts, vectors, by_titles, taught.weights)
    r = judged_by_what_is_known(r_by_kind, prepared.log.items, prepared.has_title, reads_titles=vectors is not None)
    least = least_probability(prepared.data, replace_all=False)
    replacements = replace_interactions(prepared.data, ranker, noise_probability(r, taught.noise_share), least, new_to_user=True)
    interactions = JudgedInteractions(r_by_kind, {}, taught.figures)
    return JudgedDataSet(interactions, taught.noise_share, Replacements(replacements, {}))
