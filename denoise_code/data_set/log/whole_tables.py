"""Tables of which nothing is lost: a file whose every cell is kept while its log is read, and a pandas table read as a file is."""

import re
from collections.abc import Iterator

import pandas as pd
import pyarrow as pa

from denoise_code.common.errors import InputError
from denoise_code.common.progress import progress

CHUNK_ROWS = 20_000  # rows of a pandas table that are turned into text at once
HALVES = re.compile("[\ud800-\udfff]")
HALF_CHARACTER = "\ufffd"  # what stands for half a character, which UTF-8 cannot hold


class WholeTable:
    """A file of columns, read as `open_table` gives it, all of whose cells are kept as text.

    names: of all columns, after reading those of the last record as well. cells: after reading, one Arrow array of text a column.
    """

    def __init__(self, table):
        self.table, self.path, self.notes, self.named_in = table, table.path, table.notes, table.named_in
        self.names = list(table.names)
        self.cells: list[pa.ChunkedArray] = []
        self.n_records = 0
        self.n_half_characters = 0  # cells that hold half a character

    def chunks(self, names: list[str]) -> Iterator[list[list[str]]]:
        """Columns of the names, as those of the file's own table; what passes is kept."""
        for name in names:
            if self.names.count(name) > 1:
                raise InputError(f"{self.path}: {self.names.count(name)} columns are called {name!r}")
        chunks: list[list[pa.Array]] = [[] for _ in self.names]
        bar = progress(None, "read lines", "line")
        for found_names, columns in self.table.whole_chunks():
            for _ in found_names[len(self.names) :]:  # empty in all records before
                chunks.append([pa.array([""] * self.n_records, pa.large_string())])
            self.names = list(found_names)
            for kept, texts in zip(chunks, columns):
                kept.append(self.as_arrow(texts))
            self.n_records += len(columns[0])
            bar.update(len(columns[0]))
            yield [columns[self.names.index(name)] for name in names]
        bar.close()
        self.cells = [pa.chunked_array(kept, pa.large_string()) for kept in chunks]
        if self.n_half_characters:
            self.notes.append(f"{self.n_half_characters:,} cells hold half a character, which is written as {HALF_CHARACTER}")

    def as_arrow(self, texts: list[str]) -> pa.Array:
        try:
            return pa.array(texts, pa.large_string())
        except (UnicodeEncodeError, pa.ArrowInvalid):
            whole = [HALVES.sub(HALF_CHARACTER, text) for text in texts]
            self.n_half_characters += sum(text != before for text, before in zip(whole, texts))
            return pa.array(whole, pa.large_string())

    def texts(self, column: int, start: int, stop: int) -> list[str]:
        """The cells of some records of a column."""
        return self.cells[column].slice(start, stop - start).to_pylist()

    def line_of(self, record: int) -> int:
        """The line (of Parquet the row), from 1, at which a record (from 0) begins."""
        return self.table.line_of(record)

    def where(self, record: int) -> str:
        return self.table.where(record)


class PandasTable:
    """A pandas table as the files are read: cells as text, missing ones empty."""

    path, named_in = "the table", ""

    def __init__(self, frame: pd.DataFrame):
        self.frame, self.names = frame, list(frame.columns)
        self.notes: list[str] = []

    def chunks(self, names: list[str]) -> Iterator[list[list[str]]]:
        for name in names:
            if self.names.count(name) > 1:
                raise InputError(f"the table has {self.names.count(name)} columns called {name!r}")
        if not len(self.frame):
            raise InputError("the table has no rows")
        for start in range(0, len(self.frame), CHUNK_ROWS):
            some = self.frame.iloc[start : start + CHUNK_ROWS]
            yield [texts_of_series(some[name]) for name in names]

    def where(self, record: int) -> str:
        return f"row {record} of the table"


def texts_of_series(values: pd.Series) -> list[str]:
    """The values of a column as text: times as ISO dates, numbers as Python writes them (1.0 of a column of floats), missing ones empty."""
    missing = values.isna().tolist()
    if pd.api.types.is_datetime64_any_dtype(values):
        texts = [moment.isoformat() for moment in values]
    else:
        texts = map(str, values.tolist())
    return ["" if is_missing else text for is_missing, text in zip(missing, texts)]
