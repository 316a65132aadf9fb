"""Which records of a log are flagged: those above a probability, the most suspicious ones, or those that a person has confirmed."""

from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from denoise_code.cleaning.log_file import LogFile
from denoise_code.cleaning.records import JudgedRecords, PreparedLog
from denoise_code.cleaning.self_test import JudgedCopy
from denoise_code.common.delimited import Dialect
from denoise_code.common.errors import InputError
from denoise_code.common.records import open_table
from denoise_code.data_set.evidence_files import noise_probability
from denoise_code.data_set.log.keys import plain


@dataclass(frozen=True)
class AboveThreshold:
    """Records with a probability above `threshold`."""

    threshold: float

    def flag(self, prepared: PreparedLog, records: JudgedRecords) -> np.ndarray:
        """(N,) bool: the records that are flagged."""
        return flag_above(records, self.threshold)

    def flag_copy(self, copy: JudgedCopy, noise_share: float, records: JudgedRecords, flagged: np.ndarray) -> np.ndarray:
        """(m,) bool: what the rule flags of the self-test's copy. flagged (N,): what it flags of the log."""
        return noise_probability(copy.r, noise_share) > self.threshold

    def describe(self, records: JudgedRecords, flagged: np.ndarray) -> str:
        """Which lines are flagged, in words."""
        return f"above a probability of {self.threshold:g} (--threshold)"


@dataclass(frozen=True)
class MostSuspicious:
    """The most suspicious records, up to `share` of all."""

    share: float

    def flag(self, prepared, records):
        return flag_most_suspicious(records, prepared.distinct.interaction_of_record, self.share)

    def flag_copy(self, copy, noise_share, records, flagged):
        return copy.r >= (records.r[flagged].min() if flagged.any() else np.inf)

    def describe(self, records, flagged):
        lowest = f", probabilities from {records.probability[flagged].min():.2f}" if flagged.any() else ""
        return f"the most suspicious {100 * self.share:.3g}% (--drop){lowest}"


@dataclass(frozen=True)
class Confirmed:
    """The lines that a file lists: edits.csv, from which a person has deleted those that shall stay. It flags nothing of a copy.

    flagged (N,) bool: the records at these lines, as `records_at_lines` found them.
    """

    path: Path
    flagged: np.ndarray

    def flag(self, prepared, records):
        return self.flagged

    def flag_copy(self, copy, noise_share, records, flagged):
        return None

    def describe(self, records, flagged):
        return f"those that {self.path} lists (--confirmed)"


FlaggingRule = AboveThreshold | MostSuspicious | Confirmed


def flag_above(judged: JudgedRecords, threshold: float) -> np.ndarray:
    """(N,) bool: records with a probability above the threshold."""
    return np.nan_to_num(judged.probability) > threshold


def flag_most_suspicious(judged: JudgedRecords, interaction_of_record: np.ndarray, share: float) -> np.ndarray:
    """(N,) bool: the most suspicious records, as many as fit into this share of all; records of one interaction go together."""
    r = np.where(np.isnan(judged.r), -np.inf, judged.r)
    order = np.lexsort((interaction_of_record, -r))
    is_last = np.r_[interaction_of_record[order][1:] != interaction_of_record[order][:-1], True]  # of its interaction, in `order`
    most = int(share * len(r) + 1e-6)  # 0.29 * 100 is 28.999...
    fitting = np.flatnonzero(is_last & (np.arange(len(r)) < most) & np.isfinite(r[order]))  # ends of whole interactions
    flagged = np.zeros(len(r), dtype=bool)
    flagged[order[: fitting[-1] + 1 if len(fitting) else 0]] = True
    return flagged


def records_at_lines(path: Path, log_file: LogFile) -> np.ndarray:
    """(N,) bool: the records of the log at the lines that a file's column `line` names.

    Raises InputError for a line at which the log has no record, and for one whose user or item is another one there: the file is of
    another log. (Spreadsheets take leading zeros from keys, so keys are compared without.)
    """
    whole, columns = log_file.whole, log_file.columns
    records = range(whole.n_records)
    flagged = np.zeros(whole.n_records, dtype=bool)
    table = open_table(path, Dialect(separator_of_list(path), "utf-8"))
    n_read = 0
    for lines, users, items in table.chunks(["line", "user", "item"]):
        for row, (line, user, item) in enumerate(zip(lines, users, items), n_read):
            record = bisect_left(records, int(line), key=whole.line_of) if line.isdecimal() else len(records)
            if record == len(records) or whole.line_of(record) != int(line):
                raise InputError(f"{table.where(row)}: line {line!r}: {whole.path} has no record that begins there")
            keys = [whole.texts(column, record, record + 1)[0] for column in (columns.user, columns.item)]
            if [plain(key) for key in keys] != [plain(user), plain(item)]:
                raise InputError(
                    f"{table.where(row)}: user {user!r} and item {item!r}, but {whole.path} has {keys[0]!r} and {keys[1]!r} at "
                    f"line {line}: is the list of another log?"
                )
            flagged[record] = True
        n_read += len(lines)
    return flagged


def separator_of_list(path: Path) -> str:
    """A comma as we write it, or what a spreadsheet put in its place."""
    try:
        header = path.open(encoding="utf-8-sig", errors="replace").readline()
    except OSError as error:
        raise InputError(f"--confirmed {path}: cannot be read ({error.strerror})") from None
    return next((separator for separator in ",;\t" if separator in header), ",")
