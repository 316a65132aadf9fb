"""The file of a log: every cell of it, and the interactions that it holds."""

from dataclasses import dataclass, replace

from denoise_code.common.delimited import DelimitedTable, Dialect
from denoise_code.common.records import ParquetTable
from denoise_code.data_set.log.csv_source import log_of_table, open_log_table, title_column
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


def read_log_file(args) -> LogFile:
    """The file args.log as the options of `csv_source` describe it; items have no title where nothing gives them one."""
    whole, account = WholeTable(open_log_table(args.log, args)), Account()
    title = None if args.titles else title_column(whole, args)
    log = log_of_table(whole, args, account)
    if title is None and not args.titles:
        late = ", which only later records have: --titles takes them from a file" if "title" in whole.names else ""
        found = ", ".join(map(repr, whole.names))
        account.notes.append(
            f"no column 'title'{late}, found {found}: titles are not read (--title_column names another column, --titles a file)"
        )
        log = replace(log, titles=[None] * len(log.titles))
    places = [whole.names.index(name) for name in (args.user_column, args.item_column)]
    columns = LogColumns(*places, None if title is None else whole.names.index(title), not args.no_header)
    return LogFile(whole, log, account, columns)
