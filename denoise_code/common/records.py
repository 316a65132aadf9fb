"""Files of records: one JSON object (or Python dict, as Amazon's metadata of 2014 are) a line, or Parquet. Cells become text.

`open_table` opens any file of columns by its content; all its kinds give the same: `names`, `chunks`, `where`, `notes`,
and `named_in`, which says for an error where names were looked for.
"""

import ast
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from denoise_code.common.delimited import CHUNK_ROWS, DelimitedTable, Dialect
from denoise_code.common.errors import InputError, one_line
from denoise_code.common.opening import PARQUET, is_pipe, open_bytes, open_lines, peek, reading

PARQUET_ROWS = 20_000  # rows at once
# numbers stay as they are written: a time of 19 digits is no float
DECODER = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)


def open_table(path: Path, dialect: Dialect) -> "DelimitedTable | RecordTable | ParquetTable":
    """A file of columns: Parquet and records by their content, else delimited text as the dialect says. A pipe is read once."""
    path = Path(path)
    from_pipe = is_pipe(path)
    with reading(path):
        head, stream = peek(open_bytes(path), from_pipe)
    if head.startswith(PARQUET):
        if from_pipe:
            raise InputError(f"{path}: Parquet cannot be read from a pipe: save it as a file first")
        return ParquetTable(path, stream)
    lines = open_lines(path, stream, head, dialect.encoding)
    first = next(lines)
    lines = chain([first], lines)
    if first.lstrip().startswith("{"):
        return RecordTable(path, lines)
    if first.lstrip().startswith("[") and first.lstrip("[ \t\r\n")[:1] in ("{", ""):
        raise InputError(f"{path}: one JSON list of all records, where one record a line is wanted (jq -c '.[]' makes them)")
    return DelimitedTable(path, dialect, lines)


def open_records(path: Path) -> "RecordTable | ParquetTable":
    """A file of records, which cannot be delimited text."""
    table = open_table(path, Dialect())
    if isinstance(table, DelimitedTable):
        raise InputError(f"{path}:1: neither a JSON object nor a Python dict: {','.join(table.names)[:60]!r}")
    return table


class RecordTable:
    """A file with one record a line. A field that a record lacks, or that is neither text nor a number, is empty."""

    named_in = f" in its first {CHUNK_ROWS:,} records"

    def __init__(self, path: Path, lines: Iterator[str]):
        self.path = path
        self.notes: list[str] = []
        first = list(islice(lines, CHUNK_ROWS))
        records = (parse_record(path, number, line) for number, line in enumerate(first, 1) if not line.isspace())
        # A record may leave out what it has no value for, so that the first one does not name all
        self.names = list(dict.fromkeys(name for record in records for name in record))
        self.lines = chain(first, lines)

    def records(self) -> Iterator[dict]:
        return (parse_record(self.path, number, line) for number, line in self.numbered_lines())

    def numbered_lines(self) -> Iterator[tuple[int, str]]:
        """The lines with their numbers, from 1; blank lines stand at the end only and are left out."""
        blank_from = None
        for number, line in enumerate(self.lines, 1):
            if line.isspace():
                blank_from = blank_from or number
                continue
            if blank_from is not None:
                raise InputError(f"{self.path}:{blank_from}: a blank line between records")
            yield number, line

    def chunks(self, names: list[str]) -> Iterator[list[list[str]]]:
        """The fields of the names as text, CHUNK_ROWS records at a time: one list for each name."""
        records = self.records()
        while rows := list(islice(records, CHUNK_ROWS)):
            yield [texts_of([row.get(name) for row in rows]) for name in names]

    def whole_chunks(self) -> Iterator[tuple[list[str], list[list[str]]]]:
        """(names, all fields as text), CHUNK_ROWS records at a time; names that later records bring are added behind the others.

        What is neither text nor a number stands as JSON.
        """
        records = (parse_whole_record(self.path, number, line) for number, line in self.numbered_lines())
        names = list(self.names)
        while rows := list(islice(records, CHUNK_ROWS)):
            names = list(dict.fromkeys([*names, *(name for row in rows for name in row)]))
            yield names, [[whole_text_of(row.get(name)) for row in rows] for name in names]

    def line_of(self, record: int) -> int:
        return record + 1

    def where(self, record: int) -> str:
        return f"{self.path}:{self.line_of(record)}"


def texts_of(values: list) -> list[str]:
    return values if set(map(type, values)) == {str} else list(map(text_of, values))


def text_of(value) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):  # of Python dicts: JSON's numbers are text already
        return repr(value)
    return ""


def whole_text_of(value) -> str:
    """The same with all else as JSON; null and a field that a record lacks are empty."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool | dict | list | tuple | set):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def parse_record(path: Path, number: int, line: str) -> dict:
    """One line as a dict; numbers of JSON become the text that stands there."""
    text = line.strip()
    try:
        record, end = DECODER.scan_once(text, 0)  # decode() without its searches for blanks
        if end < len(text):
            raise ValueError("text behind the record")
    except (ValueError, StopIteration, RecursionError):
        try:
            record = ast.literal_eval(text)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            record = None
    if not isinstance(record, dict):
        raise InputError(f"{path}:{number}: neither a JSON object nor a Python dict: {line[:60]!r}")
    return record


def parse_whole_record(path: Path, number: int, line: str) -> dict:
    """The same; within lists and objects numbers stay numbers."""
    record = parse_record(path, number, line)
    nested = [name for name, value in record.items() if isinstance(value, dict | list)]
    if nested:
        with suppress(ValueError):  # a Python dict, whose numbers are numbers already
            record |= {name: value for name, value in json.loads(line).items() if name in nested}
    return record


class ParquetTable:
    """A Parquet file. Times of its own types become text: whole numbers of their unit, ISO dates."""

    named_in = ""

    def __init__(self, path: Path, stream: BinaryIO):
        self.path = path
        self.notes: list[str] = []
        with self.reading():
            import pyarrow.parquet

            self.file = pyarrow.parquet.ParquetFile(stream, page_checksum_verification=True)
            self.names = list(self.file.schema_arrow.names)
            if not self.file.metadata.num_rows:
                raise InputError(f"{path}: no rows")

    @contextmanager
    def reading(self):
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # of a damaged file pyarrow raises errors of many classes
            raise InputError(f"{self.path}: damaged, or no Parquet that can be read: {one_line(error)}") from None

    def chunks(self, names: list[str]) -> Iterator[list[list[str]]]:
        """Columns of the names as text, PARQUET_ROWS rows at a time: one list for each name."""
        for name in names:
            if self.names.count(name) != 1:
                raise InputError(f"{self.path}: no column {name!r}, found {', '.join(map(repr, self.names))}")
        batches = self.file.iter_batches(batch_size=PARQUET_ROWS, columns=list(dict.fromkeys(names)))
        while True:
            with self.reading():
                batch = next(batches, None)
                columns = batch and [self.texts_of(batch.column(name), name) for name in names]
            if batch is None:
                return
            yield columns

    def whole_chunks(self) -> Iterator[tuple[list[str], list[list[str]]]]:
        """(names, all columns as text), PARQUET_ROWS rows at a time. What is neither text, number nor time stands as JSON."""
        batches = self.file.iter_batches(batch_size=PARQUET_ROWS)
        while True:
            with self.reading():
                batch = next(batches, None)
                columns = batch and [self.whole_texts_of(column) for column in batch.columns]
            if batch is None:
                return
            yield self.names, columns

    def whole_texts_of(self, column) -> list[str]:
        """The cells of an Arrow array as text, nulls empty, whatever they are."""
        import pyarrow as pa

        try:
            return self.texts_of(column, "")
        except (InputError, pa.ArrowInvalid, pa.ArrowNotImplementedError):  # no type that has a text of its own
            return [whole_text_of(value) for value in column.to_pylist()]

    def texts_of(self, column, name: str) -> list[str]:
        """The cells of an Arrow array as text, nulls empty."""
        import pyarrow as pa
        import pyarrow.compute

        kind = column.type
        if pa.types.is_dictionary(kind):
            column = column.dictionary_decode()
            kind = column.type
        if pa.types.is_nested(kind) or pa.types.is_boolean(kind):
            raise InputError(f"{self.path}: column {name!r} holds {kind}, neither text nor numbers")
        if pa.types.is_floating(kind) and not pa.types.is_float64(kind):
            column = column.cast(pa.float64())
        if pa.types.is_floating(column.type):  # as Python writes them: the shortest text that gives the number back
            return ["" if value is None or value != value else repr(value) for value in column.to_pylist()]
        return pyarrow.compute.fill_null(column.cast(pa.string()), "").to_pylist()

    def line_of(self, record: int) -> int:
        return record + 1

    def where(self, record: int) -> str:
        return f"{self.path}, row {self.line_of(record)}"
