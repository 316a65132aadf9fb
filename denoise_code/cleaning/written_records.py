"""scored.csv, cleaned.csv and edits.csv: the records of a log in its order, cell for cell, with what is said of them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from denoise_code.cleaning.log_file import LogFile
from denoise_code.cleaning.records import JudgedRecords, PreparedLog, RecordEdits, new_names
from denoise_code.common.progress import progress
from denoise_code.data_set.log.stored_log import csv_lines

RECORDS_AT_ONCE = 20_000  # turned into text at once
COLUMNS_OF_EDITS = ("line", "user", "item", "title", "noise_probability", "replacement_item", "replacement_title")


@dataclass(frozen=True)
class CleanedLog:
    """A log's file, what is said of its records, and what becomes of them."""

    log_file: LogFile
    prepared: PreparedLog
    judged: JudgedRecords
    edits: RecordEdits

    @cached_property
    def item_keys(self) -> np.ndarray:
        """(n_items + 1,) texts, empty for padding."""
        return np.array(["", *self.prepared.log.item_keys[1:]], dtype=object)

    @cached_property
    def item_titles(self) -> np.ndarray:
        """(n_items + 1,) texts as the log has them, empty where there is none."""
        return np.array(["", *(title or "" for title in self.prepared.shown_titles[1:])], dtype=object)


@dataclass(frozen=True)
class RecordBatch:
    """Records start..stop as text: cells, one list a column of the log; what is said of each."""

    start: int
    stop: int
    cells: list[list[str]]
    probability: list[str]
    replacement_item: list[str]
    replacement_title: list[str]


def write_records(scored: Path, cleaned: Path, edits: Path, cleaned_log: CleanedLog) -> None:
    """All three files, some records at a time."""
    whole = cleaned_log.log_file.whole
    with (
        scored.open("w", encoding="utf-8", newline="") as scored_file,
        cleaned.open("w", encoding="utf-8", newline="") as cleaned_file,
        edits.open("w", encoding="utf-8", newline="") as edits_file,
    ):
        scored_file.write(header_line([*whole.names, *new_names(names_of_new_columns(cleaned_log.judged), whole.names)]))
        if cleaned_log.log_file.columns.has_header:
            cleaned_file.write(header_line(whole.names))
        edits_file.write(header_line(COLUMNS_OF_EDITS))
        for start in progress(range(0, whole.n_records, RECORDS_AT_ONCE), "write lines", "batch"):
            batch = record_batch(cleaned_log, start, min(start + RECORDS_AT_ONCE, whole.n_records))
            scored_file.write(csv_lines(scored_cells(cleaned_log, batch)))
            cleaned_file.write(csv_lines(cleaned_cells(cleaned_log, batch)))
            edits_file.write(csv_lines(edited_cells(cleaned_log, batch)))


def header_line(names) -> str:
    return csv_lines([[name] for name in names])


def names_of_new_columns(judged: JudgedRecords) -> list[str]:
    """In the order of `scored_cells`."""
    kinds = [f"probability_{kind}" for kind in judged.by_kind]
    return ["noise_probability", "noise_rank", "status", "replacement_item", "replacement_title", *kinds]


def record_batch(cleaned_log: CleanedLog, start: int, stop: int) -> RecordBatch:
    whole, replacement = cleaned_log.log_file.whole, cleaned_log.judged.replacement[start:stop]
    return RecordBatch(
        start=start,
        stop=stop,
        cells=[whole.texts(column, start, stop) for column in range(len(whole.names))],
        probability=number_texts(cleaned_log.judged.probability[start:stop]),
        replacement_item=cleaned_log.item_keys[replacement].tolist(),
        replacement_title=cleaned_log.item_titles[replacement].tolist(),
    )


def scored_cells(cleaned_log: CleanedLog, batch: RecordBatch) -> list[list[str]]:
    """All columns of scored.csv."""
    judged, part = cleaned_log.judged, slice(batch.start, batch.stop)
    return [
        *batch.cells,
        batch.probability,
        number_texts(judged.rank[part]),
        judged.status_names(part),
        batch.replacement_item,
        batch.replacement_title,
        *(number_texts(probability[part]) for probability in judged.by_kind.values()),
    ]


def cleaned_cells(cleaned_log: CleanedLog, batch: RecordBatch) -> list[list[str]]:
    """The log's columns without the records that are left out; others have another item and title."""
    columns, part = cleaned_log.log_file.columns, slice(batch.start, batch.stop)
    remaining = np.flatnonzero(~cleaned_log.edits.left_out[part]).tolist()
    exchanged = cleaned_log.edits.exchanged[part].tolist()
    cells = []
    for column, texts in enumerate(batch.cells):
        if column == columns.item:
            new_texts = batch.replacement_item
        elif column == columns.title:
            new_texts = batch.replacement_title
        else:
            new_texts = texts
        cells.append([new_texts[row] if exchanged[row] else texts[row] for row in remaining])
    return cells


def edited_cells(cleaned_log: CleanedLog, batch: RecordBatch) -> list[list[str]]:
    """The columns of edits.csv, of the records that are left out or exchanged."""
    log_file, part = cleaned_log.log_file, slice(batch.start, batch.stop)
    edited = np.flatnonzero(cleaned_log.edits.left_out[part] | cleaned_log.edits.exchanged[part]).tolist()
    if log_file.columns.title is None:
        rows = cleaned_log.prepared.distinct.interaction_of_record[part]
        titles = cleaned_log.item_titles[cleaned_log.prepared.log.items[rows]]
    else:
        titles = batch.cells[log_file.columns.title]
    columns = [
        batch.cells[log_file.columns.user],
        batch.cells[log_file.columns.item],
        titles,
        batch.probability,
        batch.replacement_item,
        batch.replacement_title,
    ]
    lines = [str(log_file.whole.line_of(batch.start + row)) for row in edited]
    return [lines, *([column[row] for row in edited] for column in columns)]


def number_texts(values: np.ndarray) -> list[str]:
    """Numbers (n,) with six digits, NaN as an empty text."""
    return ["" if value != value else f"{value:.6g}" for value in values.tolist()]
