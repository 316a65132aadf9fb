"""A log in, the same log out: for each record the probability that it is noise, and what would fit instead. Arrays and tables; files only
of title vectors, where a folder for them is given.

`clean_log` does it for a pandas table. Its steps are functions, which the script `clean_log_file.py` calls with what it keeps in files.
All windows of the log are train windows: each interaction is judged from all others of its user's windows, before and after it.
"""

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from denoise_code.common.errors import InputError
from denoise_code.data_set.evidence_files import FUSED, noise_probability
from denoise_code.data_set.interactions import DataSet
from denoise_code.data_set.log.log import Account, Log
from denoise_code.data_set.log.sequences import DistinctLog, data_set_of_log, distinct_interactions
from denoise_code.data_set.log.tables import Columns, read_log
from denoise_code.data_set.log.titles import clean_titles
from denoise_code.data_set.log.whole_tables import PandasTable
from denoise_code.evidence.calibration import CannotPlant
from denoise_code.evidence.options import EvidenceOptions
from denoise_code.judging import (
    JudgedDataSet,
    JudgedInteractions,
    NoEvidence,
    check_rows_can_teach,
    judge_interactions,
    replace_what_is_noise,
    share_taken,
)
from denoise_code.language_model.loading import EMBEDDED_MODEL
from denoise_code.replacement import NothingToReplaceFrom

WITHOUT_TITLE = "collaborative"  # the kind that judges items without a title, where others read titles
SCORED, NO_TITLE, TOO_SHORT, DUPLICATE = STATUSES = ("scored", "no_title", "too_short", "duplicate")
RANK = "noise_rank"  # a column: the share of judged records that are less suspicious
PREFIX = "denoised_"  # of a new column whose name the log has
LEAST_INTERACTIONS = 100  # in windows; fewer teach nothing that could be measured


@dataclass(frozen=True)
class PreparedLog:
    """A log as it is judged.

    distinct: its interactions and where its records are; its titles are text for models, None where an item has none.
    shown_titles (n_items + 1,): as the log has them. data: its windows. title_changes: what was done to titles, in a line.
    """

    distinct: DistinctLog
    shown_titles: list[str | None]
    data: DataSet
    title_changes: str

    @property
    def log(self) -> Log:
        return self.distinct.log

    @property
    def halvings(self) -> np.ndarray:
        """(2, U): the users of `data` halved twice, by their keys."""
        return self.data.interactions.halvings(self.log.user_keys[1:])

    @property
    def has_title(self) -> np.ndarray:
        """(n_items + 1,) bool."""
        return np.array([bool(title) for title in self.log.titles])

    @cached_property
    def item_keys(self) -> np.ndarray:
        """(n_items + 1,) texts, empty for padding."""
        return np.array(["", *self.log.item_keys[1:]], dtype=object)

    @cached_property
    def item_titles(self) -> np.ndarray:
        """(n_items + 1,) texts as the log has them, empty where there is none."""
        return np.array(["", *(title or "" for title in self.shown_titles[1:])], dtype=object)


def prepare_log(log: Log, window: int) -> PreparedLog:
    """The records of a log, in file order, as distinct interactions in windows of up to `window`."""
    distinct = distinct_interactions(log)
    cleaned, title_changes = clean_titles(distinct.log)
    cleaned = replace(cleaned, titles=["", *cleaned.titles[1:]])
    data = data_set_of_log(cleaned, window)
    return PreparedLog(replace(distinct, log=cleaned), distinct.log.titles, data, title_changes)


def judge_log(prepared: PreparedLog, vectors: np.ndarray | None, options: EvidenceOptions) -> JudgedDataSet:
    """All interactions of a log by what it teaches, and a replacement for each. vectors (n_items + 1, D) of titles, or None.

    Raises InputError where it teaches nothing.
    """
    with too_small():
        interactions = judge_by_itself(prepared, vectors, options.seed)
        return with_replacements(prepared, interactions, vectors, options)


def judge_by_itself(prepared: PreparedLog, vectors: np.ndarray | None, seed: int) -> JudgedInteractions:
    """r of all interactions."""
    n_taught = int(prepared.data.interactions.in_train.sum())
    if n_taught < LEAST_INTERACTIONS:
        raise NoEvidence(f"{n_taught} interactions of users with two or more, {LEAST_INTERACTIONS} are needed at least")
    check_rows_can_teach(prepared.data, prepared.halvings)
    return judge_interactions(prepared.data, vectors, None, prepared.halvings, seed)


def with_replacements(
    prepared: PreparedLog, interactions: JudgedInteractions, vectors: np.ndarray | None, options: EvidenceOptions
) -> JudgedDataSet:
    share = share_taken(interactions, options)
    r = judged_by_what_is_known(interactions.train, prepared.log.items, prepared.has_title, reads_titles=vectors is not None)
    replacements = replace_what_is_noise(prepared.data, r, {}, vectors, prepared.halvings, share, options, new_to_user=True)
    return JudgedDataSet(interactions, share, replacements)


@contextmanager
def too_small():
    """A log that teaches nothing is an error of its user's."""
    try:
        yield
    except (NoEvidence, CannotPlant, NothingToReplaceFrom) as error:
        raise InputError(f"this log is too small to learn from: {error}") from None


def title_vectors_of(
    prepared: PreparedLog, base_model: str | None, folder: Path | None = None, like: Path | None = None
) -> np.ndarray | None:
    """Title vectors (n_items + 1, D); None where titles are not read.

    base_model: what reads them, None: nothing does. folder: where they are kept. like: the folder of the log that is continued.
    """
    if base_model is None or not prepared.has_title.any():
        return None
    from denoise_code.language_model.kept_titles import vectors_of_catalogue

    return vectors_of_catalogue(prepared.log.titles, prepared.data.train_items, base_model, folder, like).vectors


@dataclass(frozen=True)
class JudgedRecords:
    """What is said of the N records of a log, in its order.

    probability (N,) float64 that a record is noise, NaN where it could not be judged; rank (N,) float64: the share of judged records
    that are less suspicious; status (N,) uint8, numbers of STATUSES; replacement (N,) int64 items, 0 where there is none;
    by_kind {kind: (N,) float64 probability}; r (N,) float32: what orders them, also where probabilities tie at 1.
    """

    probability: np.ndarray
    rank: np.ndarray
    status: np.ndarray
    replacement: np.ndarray
    by_kind: dict[str, np.ndarray]
    r: np.ndarray

    def status_counts(self) -> dict[str, int]:
        counts = np.bincount(self.status, minlength=len(STATUSES))
        return dict(zip(STATUSES, counts.tolist()))


def spread_over_records(prepared: PreparedLog, judged: JudgedDataSet, reads_titles: bool) -> JudgedRecords:
    """What is said of interactions, told of the records that they come from.

    reads_titles: whether some kind of evidence reads titles; then an item without one is judged by co-occurrence alone.
    """
    log, has_title, record = prepared.log, prepared.has_title, prepared.distinct.interaction_of_record
    r = judged_by_what_is_known(judged.interactions.train, log.items, has_title, reads_titles)
    untitled = ~has_title[log.items] & reads_titles  # (n,)
    status = np.where(untitled, STATUSES.index(NO_TITLE), STATUSES.index(SCORED))[record]
    status[prepared.distinct.is_duplicate] = STATUSES.index(DUPLICATE)
    status[np.isnan(r)[record]] = STATUSES.index(TOO_SHORT)  # whatever else it is: nothing is said of it
    by_kind = {}
    for kind, r_of_kind in judged.interactions.train.items():
        if kind != FUSED:
            can_tell = ~untitled | (kind == WITHOUT_TITLE)
            probability = noise_probability(np.where(can_tell, r_of_kind, np.nan), judged.noise_share)
            by_kind[kind] = probability[record].astype(np.float64)
    return JudgedRecords(
        probability=noise_probability(r, judged.noise_share)[record].astype(np.float64),
        rank=share_below(r[record]),
        status=status.astype(np.uint8),
        replacement=judged.replacements.train[record],
        by_kind=by_kind,
        r=r[record],
    )


def judged_by_what_is_known(
    r_by_kind: dict[str, np.ndarray], items: np.ndarray, has_title: np.ndarray, reads_titles: bool
) -> np.ndarray:
    """r (n,) of interactions by all evidence together; by co-occurrence alone where titles are read and the item has none.

    r_by_kind {kind: (n,)}; items (n,); has_title (n_items + 1,) bool.
    """
    if not reads_titles:
        return r_by_kind[FUSED]
    return np.where(has_title[items], r_by_kind[FUSED], r_by_kind[WITHOUT_TITLE])


def share_below(values: np.ndarray) -> np.ndarray:
    """(N,) the share of values (N,) that are smaller than each, those that are NaN left out."""
    ascending = np.sort(values[~np.isnan(values)])
    shares = np.searchsorted(ascending, values, side="left") / max(len(ascending), 1)
    return np.where(np.isnan(values), np.nan, shares)


@dataclass(frozen=True)
class RecordEdits:
    """What becomes of the N records: flagged, left_out, exchanged (N,) bool. Exchanged ones get another item, flagged ones without a
    replacement then stay as they are."""

    flagged: np.ndarray
    left_out: np.ndarray
    exchanged: np.ndarray


def edits_of(judged: JudgedRecords, flagged: np.ndarray, is_replaced: bool) -> RecordEdits:
    """Flagged records (N,) are left out, or have their item exchanged."""
    nothing = np.zeros(len(flagged), dtype=bool)
    if is_replaced:
        return RecordEdits(flagged, nothing, flagged & (judged.replacement != 0))
    return RecordEdits(flagged, flagged, nothing)


def new_columns(prepared: PreparedLog, judged: JudgedRecords, records: slice = slice(None)) -> dict[str, np.ndarray]:
    """The columns that a log gets, by name and in their order: what is said of its records, or of these of them.

    Items and titles are texts, empty where there is none; so are statuses. Numbers are NaN where there is none.
    """
    replacement = judged.replacement[records]
    return {
        "noise_probability": judged.probability[records],
        RANK: judged.rank[records],
        "status": np.array(STATUSES, dtype=object)[judged.status[records]],
        "replacement_item": prepared.item_keys[replacement],
        "replacement_title": prepared.item_titles[replacement],
        **{f"probability_{kind}": probability[records] for kind, probability in judged.by_kind.items()},
    }


def new_names(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Names of new columns beside those that are taken: prefixed until they are free."""
    result = []
    for name in names:
        while name in taken:
            name = PREFIX + name
        result.append(name)
    return result


def clean_log(
    table: pd.DataFrame,
    *,
    user: str = "user",
    item: str = "item",
    time: str | None = "timestamp",
    title: str | None = "title",
    language_model: str = "base",
    base_model: str | None = None,
    noise_share: float | None = None,
    window: int = 11,
    seed: int = 0,
) -> pd.DataFrame:
    """The table with new columns, same index, same order: noise_probability, noise_rank, status, replacement_item,
    replacement_title, and probability_<kind> for each kind of evidence (README.md says what they are).

    time None: the order of the table counts. title None, or a table without a column `title`: titles are not read, nor are they with
    language_model "none". noise_share: the share of noise that probabilities assume, by default the smaller of 0.1 and the bound.
    Names that the table has already get the prefix "denoised_". Raises InputError for what cannot be read or judged.
    """
    if language_model not in ("base", "none"):
        raise InputError(f"language_model {language_model!r}: 'base' or 'none' is expected")
    title = None if title == "title" and title not in table.columns else title
    account = Account()
    log = read_log(PandasTable(table), Columns(user, item, time, title=title), account)
    log = log if title is not None else replace(log, titles=[None] * len(log.titles))
    prepared = prepare_log(log, window)
    for note in account.notes:
        print(note)
    vectors = title_vectors_of(prepared, None if language_model == "none" else base_model or EMBEDDED_MODEL)
    judged_log = judge_log(prepared, vectors, EvidenceOptions(noise_share, seed=seed))
    judged = spread_over_records(prepared, judged_log, reads_titles=vectors is not None)
    columns = new_columns(prepared, judged)
    columns["replacement_item"] = replacement_keys(prepared, judged.replacement, table[item])
    named = dict(zip(new_names(list(columns), list(table.columns)), columns.values()))
    return pd.concat([table, pd.DataFrame(named, index=table.index)], axis=1)


def replacement_keys(prepared: PreparedLog, replacement: np.ndarray, items: pd.Series) -> pd.Series:
    """The keys of items (N,) as the column `items` (N,) of the log has them, of its type; missing where there is none (0).

    Whole numbers become pandas' Int64 or UInt64, which can be missing.
    """
    record_of_item = np.zeros(len(prepared.log.titles), dtype=np.int64)  # any record that has the item
    record_of_item[prepared.log.items] = prepared.log.rows
    keys = items.iloc[record_of_item[replacement]].set_axis(items.index)
    if isinstance(keys.dtype, np.dtype) and keys.dtype.kind in "iu":  # `mask` would make floats of them, which hold 53 bits
        keys = keys.astype("Int64" if keys.dtype.kind == "i" else "UInt64")
    return keys.mask(pd.Series(replacement == 0, index=items.index))
