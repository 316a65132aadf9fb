"""Delimited text (CSV, TSV, "::" and the like), read strictly: every record as it was written, or the file is refused with its line.

Python's csv takes the records apart. This module adds what it leaves out: separators of several characters, one count of fields
for all rows, the line at which a quotation mark opens that never closes.
"""

import csv
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path

from denoise_code.common.errors import InputError

CHUNK_ROWS = 2_000  # records that are held as lists of cells at once: so few stay in the processor's cache
LONGEST_CELL = 2**24  # characters; an open quotation mark swallows no more before it is refused
STAND_IN = "\ud800"  # for a separator of several characters: half a character, which no decoder of text gives


@dataclass(frozen=True)
class Dialect:
    """How a delimited file is written."""

    separator: str = ","
    encoding: str = "utf-8"
    header: bool = True  # the first record names the columns; without, columns are named 1, 2, …
    quoting: str | None = None  # "standard" or "none"; None: none between tabs, where a quotation mark is text, else standard
    option: str = ""  # that names the separator, for messages

    @property
    def quotes(self) -> bool:
        return self.separator != "\t" if self.quoting is None else self.quoting == "standard"


class DelimitedTable:
    """A delimited file: `names` of its columns, and its cells in chunks of rows, read once from top to bottom.

    Raises InputError for whatever is not a table. `notes` says, after the last chunk, what a person should know.
    """

    named_in = ""

    def __init__(self, path: Path, dialect: Dialect, lines: Iterator[str]):
        self.path, self.dialect = path, dialect
        self.notes: list[str] = []
        self.recent: list[list[str]] = []  # chunks of lines from line `recent_from` on: what the csv module may complain of
        self.recent_from = 1
        self.first_line_break: int | None = None  # line of the first record with a line break in a cell
        self.records_with_breaks = 0
        # from record later_from[k] on, records stand later_by[k] lines further down than if each had one line
        self.later_from, self.later_by = array("q"), array("q")
        self.blank_from: int | None = None  # the place of the first blank line behind the records
        if not dialect.separator or any(character in dialect.separator for character in '"\r\n'):
            raise InputError(f"{path}: {dialect.separator!r} cannot separate columns")
        first = next(lines, "")
        if not first.strip("\r\n"):
            raise InputError(f"{path}: the file is empty" if not first else f"{path}:1: a blank line before the first record")
        self.lines = chain([first], lines)
        separator = dialect.separator
        # ", " between the names of columns: blanks after a separator belong to it. Two blanks are no separator
        first_cells = first.rstrip("\r\n").split(separator)
        self.blanks_after = len(first_cells) > 1 and all(cell[:1] == " " and cell.strip() for cell in first_cells[1:])
        self.reader = self.csv_reader(chain.from_iterable(self.chunks_of_lines()))
        first_row = self.next_rows(1)[0]
        self.names = first_row if dialect.header else [str(place + 1) for place in range(len(first_row))]
        self.width = len(self.names)
        self.first_record_line = self.reader.line_num + 1 if dialect.header else 1
        self.pending = [] if dialect.header else [first_row]
        self.empty_last_field: bool | None = None  # whether every row has one field more than the header, an empty one

    def csv_reader(self, lines):
        separator = self.dialect.separator
        options = {"delimiter": separator if len(separator) == 1 else STAND_IN, "skipinitialspace": self.blanks_after}
        if not self.dialect.quotes:
            return csv.reader(lines, quoting=csv.QUOTE_NONE, **options)
        return csv.reader(lines, strict=True, **options)

    def chunks_of_lines(self) -> Iterator[list[str]]:
        separator = self.dialect.separator
        while lines := list(islice(self.lines, CHUNK_ROWS)):
            if len(separator) > 1:
                lines = [line.replace(separator, STAND_IN) for line in lines]
            self.recent.append(lines)
            yield lines

    def next_rows(self, count: int) -> list[list[str]]:
        """The next records, at most `count`; none at the end of the file."""
        first_line = self.reader.line_num + 1
        before = csv.field_size_limit(LONGEST_CELL)
        try:
            rows = list(islice(self.reader, count))
        except csv.Error as error:
            raise self.refused(first_line, error) from None
        finally:
            csv.field_size_limit(before)
        self.forget_lines()
        if len(self.dialect.separator) > 1 and self.dialect.quotes:  # one in quotation marks is text
            rows = [[cell.replace(STAND_IN, self.dialect.separator) for cell in row] for row in rows]
        return rows

    def forget_lines(self) -> None:
        """Drop the chunks of lines that the csv module has taken apart."""
        while self.recent and self.recent_from + len(self.recent[0]) <= self.reader.line_num:
            self.recent_from += len(self.recent.pop(0))

    def refused(self, first_line: int, error: csv.Error) -> InputError:
        """What is wrong in the record that csv could not take apart, one of those from line `first_line` on."""
        lines = list(chain.from_iterable(self.recent))[first_line - self.recent_from :]
        again = self.csv_reader(iter(lines))
        start = 0
        before = csv.field_size_limit(LONGEST_CELL)
        try:
            for _ in again:
                start = again.line_num
        except csv.Error:
            pass
        finally:
            csv.field_size_limit(before)
        if "field limit" in str(error) and not self.dialect.quotes:
            return InputError(f"{self.path}:{first_line + start}: a cell of more than {LONGEST_CELL:,} characters")
        opened = first_line + start + opening_line(lines[start:], self.dialect.separator, self.blanks_after)
        return InputError(
            f"{self.path}:{opened}: the quotation mark that opens here is not closed before the end of its cell: write it twice "
            "within quotation marks, or read quotation marks as text (--quoting none, for a table of columns)"
        )

    def chunks(self, names: list[str]) -> Iterator[list[list[str]]]:
        """Columns of the names, CHUNK_ROWS rows at a time: one list of cells for each name."""
        return self.chunks_at([self.place(name) for name in names])

    def whole_chunks(self) -> Iterator[tuple[list[str], list[list[str]]]]:
        """(names, all columns), CHUNK_ROWS rows at a time; several columns may have one name."""
        return ((self.names, columns) for columns in self.chunks_at(list(range(self.width))))

    def chunks_at(self, places: list[int]) -> Iterator[list[list[str]]]:
        """Columns at these places, from 0."""
        records = 0
        while rows := self.pending or self.next_rows(CHUNK_ROWS):
            self.pending = []
            self.note_line_breaks(rows, records)
            full = rows if self.blank_from is None and self.regular(rows) else self.full_rows(rows, records)
            if full:
                yield [list(map(itemgetter(place), full)) for place in places]
            records += len(rows)
        if not (records if self.blank_from is None else self.blank_from):
            raise InputError(f"{self.path}: no rows below the header")
        self.note_what_was_seen()

    def regular(self, rows: list[list[str]]) -> bool:
        """Whether all rows have as many cells as the header: nothing to look at one by one."""
        return not self.empty_last_field and set(map(len, rows)) == {self.width}

    def full_rows(self, rows: list[list[str]], records: int) -> list[list[str]]:
        """The rows that are no blank lines, `records` being the place of the first one; blank lines stand at the end only."""
        full = []
        for record, row in enumerate(rows, records):
            if not row or len(row) == 1 < self.width and not row[0].strip():
                self.blank_from = record if self.blank_from is None else self.blank_from
                continue
            if self.blank_from is not None:
                raise InputError(f"{self.path}:{self.line_of(self.blank_from)}: a blank line between records")
            self.check_width(row, record)
            full.append(row)
        return full

    def note_what_was_seen(self) -> None:
        name = self.path.name
        if self.blanks_after:
            self.notes.append(f"{name}: blanks behind the separators were left out")
        if self.empty_last_field:
            self.notes.append(f"{name}: every row ends with a separator: the empty field behind it was left out")
        if self.records_with_breaks:
            self.notes.append(
                f"{name}: {self.records_with_breaks:,} records have a line break within quotation marks, the first in "
                f"line {self.first_line_break}"
            )

    def place(self, name: str) -> int:
        count = self.names.count(name)
        if count == 0:
            found = f"found {', '.join(map(repr, self.names))}" if self.dialect.header else f"found {self.width} columns"
            raise InputError(f"{self.path}: no column {name!r}, {found}{separator_hint(self.names, self.dialect.option)}")
        if count > 1:
            raise InputError(f"{self.path}: {count} columns are called {name!r}")
        return self.names.index(name)

    def check_width(self, row: list[str], record: int) -> None:
        """Refuse a row of another number of fields than the header; an empty one more is left to all rows or none."""
        one_more = len(row) == self.width + 1 and row[-1] == ""
        if self.empty_last_field is None and record == 0:
            self.empty_last_field = one_more
        if len(row) == self.width + bool(self.empty_last_field) and one_more == bool(self.empty_last_field):
            return
        expected = f"{self.width} fields, as {'the header has' if self.dialect.header else 'the first row has'}"
        expected += " and an empty one behind them, as the rows before have" if self.empty_last_field else ""
        raise InputError(f"{self.path}:{self.line_of(record)}: expected {expected}, found {len(row)}")

    def note_line_breaks(self, rows: list[list[str]], records: int) -> None:
        """Keep which records span several lines, for the line numbers of those behind them."""
        first_line, next_line = self.line_of(records), self.reader.line_num + 1
        if next_line - first_line == len(rows):
            return
        later_by = first_line - self.first_record_line - records
        for record, row in enumerate(rows, records):
            breaks = sum(map(line_breaks, row))
            if breaks:
                self.first_line_break = self.first_line_break or self.first_record_line + record + later_by
                self.records_with_breaks += 1
                later_by += breaks
                self.later_from.append(record + 1)
                self.later_by.append(later_by)

    def line_of(self, record: int) -> int:
        """The line (from 1) at which a record (from 0) begins, among the records read so far."""
        place = bisect_right(self.later_from, record)
        return self.first_record_line + record + (self.later_by[place - 1] if place else 0)

    def where(self, record: int) -> str:
        return f"{self.path}:{self.line_of(record)}"


def separator_hint(names: list[str], option: str = "--separator") -> str:
    """Where the only column's name holds what often separates columns: that another separator may be meant, which `option` names."""
    likely = next((character for character in ";\t|," if len(names) == 1 and character in names[0]), "")
    value = "tab" if likely == "\t" else f"'{likely}'"
    return f"; is there another separator? ({option} {value})" if likely and option else ""


def line_breaks(cell: str) -> int:
    """Line ends within a cell: CR, LF or CRLF."""
    if "\n" not in cell and "\r" not in cell:
        return 0
    return cell.count("\n") + cell.count("\r") - cell.count("\r\n")


def opening_line(lines: list[str], separator: str, blanks_after: bool) -> int:
    """Of the lines of a broken record, the place (from 0) of the line whose quotation mark opens the cell that breaks."""
    separator = separator if len(separator) == 1 else STAND_IN
    opened, within, at_start = 0, False, True
    for number, line in enumerate(lines):
        place = 0
        while place < len(line):
            character = line[place]
            if within:
                if character == '"' and line[place + 1 : place + 2] == '"':
                    place += 1
                elif character == '"':
                    if line[place + 1 : place + 2] not in (separator, "\r", "\n", ""):
                        return opened
                    within = False
            elif character == '"' and at_start:
                opened, within = number, True
            at_start = character == separator and not within or at_start and blanks_after and character == " "
            place += 1
        at_start = at_start or not within
    return opened
