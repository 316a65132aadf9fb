"""The file of a log: every cell of it, and the interactions that it holds."""

from dataclasses import dataclass, replace
from pathlib import Path

from denoise_code.common.delimited import DelimitedTable, Dialect
from denoise_code.common.records import ParquetTable
from denoise_code.data_set.log.csv_source import TableOptions, log_of_table, open_log_table
from denoise_code.data_set.log.log import Account, Log
from denoise_code.data_set.log.whole_tables import WholeTable


@dataclass(frozen=True)
class LogColumns:
    """Where a log's columns stand in its file, from 0; title None where the file has none. has_header: whether the file names them."""

    user: int
    item: int
    title: int | None
    has_header: bool


@dataclass(frozen=True)
class LogFile:
    """A log's file as it was read: every cell, the interactions, and what became of its records."""

    whole: WholeTable
    log: Log
    account: Account
    columns: LogColumns

    @property
    def dialect(self) -> Dialect:
        """How its lines are written; of JSON lines and Parquet, which have no separators, as CSV is."""
        return self.whole.table.dialect if isinstance(self.whole.table, DelimitedTable) else Dialect()

    def location(self, record: int) -> str:
        """Where a person finds a record."""
        kind = "row" if isinstance(self.whole.table, ParquetTable) else "line"
        return f"{kind} {self.whole.line_of(record):,}"


def read_log_file(path: Path, options: TableOptions, knows_titles: bool = False) -> LogFile:
    """The file of a log as the options describe it; items have no title where nothing gives them one.

    knows_titles: another log has titles, so that none here is worth no note.
    """
    whole, account = WholeTable(open_log_table(path, options)), Account()
    title = None if options.titles else options.title_column_among(whole.names)
    log = log_of_table(whole, options, account)
    if title is None and not options.titles:
        if not knows_titles:
            account.notes.append(note_no_titles(whole.names))
        log = replace(log, titles=[None] * len(log.titles))
    places = [whole.names.index(name) for name in (options.user_column, options.item_column)]
    columns = LogColumns(*places, None if title is None else whole.names.index(title), not options.no_header)
    return LogFile(whole, log, account, columns)


def note_no_titles(names: list[str]) -> str:
    """names: of all columns, those of later records included."""
    late = ", which only later records have: --titles takes them from a file" if "title" in names else ""
    columns = ", ".join(map(repr, names))
    return f"no column 'title'{late}, found {columns}: titles are not read (--title_column names another column, --titles a file)"
