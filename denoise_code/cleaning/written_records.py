"""scored.csv, cleaned.csv and edits.csv: the records of a log in its order, cell for cell, with what is said of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from denoise_code.cleaning.log_file import LogFile
from denoise_code.cleaning.records import RANK, JudgedRecords, PreparedLog, RecordEdits, new_columns, new_names
from denoise_code.common.delimited import Dialect
from denoise_code.common.progress import progress
from denoise_code.data_set.log.stored_log import csv_lines

RECORDS_AT_ONCE = 20_000  # turned into text at once
DIGITS, DIGITS_OF_RANK = 6, 10  # of numbers; ranks tell millions of records apart
COLUMNS_OF_EDITS = ("line", "user", "item", "title", "noise_probability", "replacement_item", "replacement_title")


@dataclass(frozen=True)
class CleanedLog:
    """A log's file, what is said of its records, and what becomes of them."""

    log_file: LogFile
    prepared: PreparedLog
    judged: JudgedRecords
    edits: RecordEdits


@dataclass(frozen=True)
class RecordBatch:
    """Some records as text: cells, one list a column of the log; new, one list for each new column of scored.csv."""

    records: slice
    cells: list[list[str]]
    new: dict[str, list[str]]


def write_records(scored: Path, cleaned: Path, edits: Path, cleaned_log: CleanedLog) -> None:
    """All three files, some records at a time; cleaned.csv with the separator of the log."""
    whole, dialect = cleaned_log.log_file.whole, cleaned_log.log_file.dialect
    with (
        scored.open("w", encoding="utf-8", newline="") as scored_file,
        cleaned.open("w", encoding="utf-8", newline="") as cleaned_file,
        edits.open("w", encoding="utf-8", newline="") as edits_file,
    ):
        names = list(record_batch(cleaned_log, slice(0, 0)).new)
        scored_file.write(header_line([*whole.names, *new_names(names, whole.names)]))
        if cleaned_log.log_file.columns.has_header:
            cleaned_file.write(header_line(whole.names, dialect))
        edits_file.write(header_line(COLUMNS_OF_EDITS))
        for start in progress(range(0, whole.n_records, RECORDS_AT_ONCE), "write lines", "batch"):
            batch = record_batch(cleaned_log, slice(start, min(start + RECORDS_AT_ONCE, whole.n_records)))
            scored_file.write(csv_lines([*batch.cells, *batch.new.values()]))
            cleaned_file.write(csv_lines(cleaned_cells(cleaned_log, batch), dialect.separator, dialect.quotes))
            edits_file.write(csv_lines(edited_cells(cleaned_log, batch)))


def header_line(names: Sequence[str], dialect: Dialect = Dialect()) -> str:  # noqa: B008  frozen
    return csv_lines([[name] for name in names], dialect.separator, dialect.quotes)


def record_batch(cleaned_log: CleanedLog, records: slice) -> RecordBatch:
    whole = cleaned_log.log_file.whole
    new = new_columns(cleaned_log.prepared, cleaned_log.judged, records)
    new["flagged"] = cleaned_log.edits.flagged[records].astype(int)
    return RecordBatch(
        records=records,
        cells=[whole.texts(column, records.start, records.stop) for column in range(len(whole.names))],
        new={
            name: values.tolist() if values.dtype == object else number_texts(values, DIGITS_OF_RANK if name == RANK else DIGITS)
            for name, values in new.items()
        },
    )


def cleaned_cells(cleaned_log: CleanedLog, batch: RecordBatch) -> list[list[str]]:
    """The log's columns without the records that are left out; others have another item and title."""
    columns, edits = cleaned_log.log_file.columns, cleaned_log.edits
    remaining = np.flatnonzero(~edits.left_out[batch.records]).tolist()
    exchanged = edits.exchanged[batch.records].tolist()
    cells = []
    for column, texts in enumerate(batch.cells):
        if column == columns.item:
            new_texts = batch.new["replacement_item"]
        elif column == columns.title:
            new_texts = batch.new["replacement_title"]
        else:
            new_texts = texts
        cells.append([new_texts[row] if exchanged[row] else texts[row] for row in remaining])
    return cells


def edited_cells(cleaned_log: CleanedLog, batch: RecordBatch) -> list[list[str]]:
    """The columns of edits.csv, of the records that are left out or exchanged."""
    log_file, prepared, edits = cleaned_log.log_file, cleaned_log.prepared, cleaned_log.edits
    edited = np.flatnonzero(edits.left_out[batch.records] | edits.exchanged[batch.records]).tolist()
    if log_file.columns.title is None:
        rows = prepared.distinct.interaction_of_record[batch.records]
        titles = prepared.item_titles[prepared.log.items[rows]]
    else:
        titles = batch.cells[log_file.columns.title]
    columns = [
        batch.cells[log_file.columns.user],
        batch.cells[log_file.columns.item],
        titles,
        *(batch.new[name] for name in COLUMNS_OF_EDITS[4:]),
    ]
    lines = [str(log_file.whole.line_of(batch.records.start + row)) for row in edited]
    return [lines, *([column[row] for row in edited] for column in columns)]


def number_texts(values: np.ndarray, digits: int) -> list[str]:
    """Numbers (n,) with so many digits, NaN as an empty text."""
    return ["" if value != value else f"{value:.{digits}g}" for value in values.tolist()]
