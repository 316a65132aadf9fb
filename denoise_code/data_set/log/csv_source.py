"""The source `csv`: any one table of columns as a log (delimited text, JSON lines, Parquet), and the options that describe it."""

import argparse
import re
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from denoise_code.common.delimited import DelimitedTable, Dialect
from denoise_code.common.errors import InputError, Parser
from denoise_code.common.opening import is_pipe
from denoise_code.common.options import Options, option, switch
from denoise_code.common.records import ParquetTable, RecordTable, open_table
from denoise_code.data_set.log.log import Account, Log
from denoise_code.data_set.log.tables import Columns, read_log, with_titles


@dataclass(frozen=True)
class TableOptions(Options):
    """How a table of interactions is read: for the functions below and cleaning/log_file.py. Columns are names or, without a header,
    positions from 1."""

    titles: str | None = option(None, "a file of items and titles, where the interactions carry none (default: none)")
    separator: str = option(",", "what stands between two columns; tab for tabs (default: a comma)")
    encoding: str = option("utf-8", "encoding of the file, e.g. latin-1; a byte order mark overrules utf-8 (default: utf-8)")
    quoting: str | None = option(
        None,
        "what quotation marks do; none: they are text (default: standard, but none where tabs separate)",
        choices=["standard", "none"],
    )
    no_header: bool = switch("the interactions have no header: --…_column are positions from 1 (default: they have one)")
    in_order: bool = switch("there are no times: the order of the file counts (default: times)")
    user_column: str = option("user", "name of the user column (default: user)", default=None)
    item_column: str = option("item", "name of the item column (default: item)", default=None)
    time_column: str | None = option("timestamp", "name of the time column (default: timestamp)", default=None)  # None: in_order
    title_column: str | None = option(None, "name of the title column (default: title, where there is one)")
    titles_separator: str | None = option(None, "what stands between two columns of --titles (default: as --separator)")
    titles_encoding: str | None = option(None, "encoding of --titles (default: as --encoding)")
    titles_item_column: str | None = option(None, "name of the item column of --titles (default: as --item_column)")
    titles_title_column: str | None = option(None, "name of the title column of --titles (default: as --title_column, or title)")

    def dialect(self, has_header: bool = True) -> Dialect:
        return Dialect(self.separator, self.encoding, has_header, self.quoting, "--separator")

    def dialect_of_titles(self) -> Dialect:
        """Of --titles: as the interactions where nothing else is said; with a separator of its own its quotation marks are its own, too."""
        quoting = self.quoting if self.titles_separator is None else None
        return Dialect(
            self.titles_separator or self.separator, self.titles_encoding or self.encoding, True, quoting, "--titles_separator"
        )

    def title_column_among(self, names: list[str]) -> str | None:
        """The column of the interactions, whose columns have these names, that holds titles; None where there is none."""
        return self.title_column or ("title" if "title" in names else None)


def add_table_options(parser: argparse.ArgumentParser) -> None:
    """All options but the file itself and --rating_column."""
    TableOptions.add_to(parser, "how the table of interactions is read")


def check_table_options(parser: Parser, args: argparse.Namespace) -> TableOptions:
    """Refuses what contradicts itself, and fills in the default names of columns: in `args` too, which run.json records."""
    for name in ("separator", "titles_separator"):
        setattr(args, name, checked_separator(parser, name, getattr(args, name)))
    for name in ("encoding", "titles_encoding"):
        check_encoding(parser, name, getattr(args, name))
    if args.in_order and args.time_column:
        parser.error("--in_order and --time_column: one of them says what the order is")
    of_titles = ("titles_separator", "titles_encoding", "titles_item_column", "titles_title_column")
    for name in of_titles if not args.titles else ():
        if getattr(args, name) is not None:
            parser.error(f"--{name} says how --titles is read, which is not given")
    if args.no_header:
        check_positions(parser, args)
    roles = ("user_column", "item_column", *([] if args.in_order else ["time_column"]))
    for name in roles:
        setattr(args, name, getattr(args, name) or getattr(TableOptions, name))
    for first, second in combinations(roles, 2):
        if getattr(args, first) == getattr(args, second):
            parser.error(f"--{first} and --{second} name the same column, {getattr(args, first)!r}")
    return TableOptions.from_arguments(args)


def checked_separator(parser: Parser, name: str, separator: str | None) -> str | None:
    """A separator as it stands in a file, of an option of this name; None where it is not given."""
    if separator is None:
        return None
    if not separator:
        parser.error(f"--{name} is empty")
    if any(character in separator for character in '"\r\n'):
        parser.error(f"--{name} holds a quotation mark or a line end")
    return {"tab": "\t", "\\t": "\t"}.get(separator, separator)


def check_encoding(parser: Parser, name: str, encoding: str | None) -> None:
    try:
        "".encode(encoding or "utf-8")
    except (LookupError, UnicodeError):
        parser.error(f"--{name} {encoding}: no encoding of text")


def check_positions(parser: Parser, args: argparse.Namespace) -> None:
    """Without a header every column that is read needs a position."""
    needed = ["user", "item", *([] if args.in_order else ["time"])]
    for column in ("user", "item", "time", "title", "rating"):
        position = getattr(args, f"{column}_column", None)
        if position is None and column in needed:
            parser.error(f"--no_header: --{column}_column is needed, a position from 1")
        if position is not None and not re.fullmatch("[1-9][0-9]*", position):
            parser.error(f"--no_header: --{column}_column {position}: a position from 1 is wanted")
    if args.titles and not args.titles_item_column:
        parser.error("--no_header: --titles_item_column is needed, the name in --titles")


def read_csv_log(path: Path, options: TableOptions, rating_column: str | None, with_ratings: bool, account: Account) -> Log:
    """Any table of interactions. Titles are from a column of its own, from the table --titles, or the items' keys.

    rating_column: None for `rating`, where there is one.
    """
    table = open_log_table(path, options)
    rating = rating_column or ("rating" if with_ratings and "rating" in table.names else None)
    log = log_of_table(table, options, account, rating)
    if not options.titles and options.title_column_among(table.names) in (None, options.item_column):
        account.notes.append("no column of titles: a language model reads the items' keys in their place")
    return log


def open_log_table(path: Path, options: TableOptions) -> DelimitedTable | RecordTable | ParquetTable:
    """The file of interactions as the options describe it."""
    if options.titles and Path(options.titles).resolve() == path.resolve() and is_pipe(path):
        raise InputError(f"--titles {options.titles}: a pipe is read once, for the interactions")
    table = open_table(path, options.dialect(has_header=not options.no_header))
    if options.no_header and not isinstance(table, DelimitedTable):
        raise InputError(f"{path}: --no_header: the columns of this file have names")
    return table


def log_of_table(table, options: TableOptions, account: Account, rating: str | None = None) -> Log:
    """The interactions of an open table; without a column of titles and without --titles the items' keys are titles."""
    title = None if options.titles else options.title_column_among(table.names)
    log = read_log(table, Columns(options.user_column, options.item_column, options.time_column, rating, title), account)
    if not options.titles:
        note_encoding(log.titles, options.encoding, "--encoding", account)
        return log
    title = options.titles_title_column or (None if options.no_header else options.title_column) or "title"
    titles = open_table(Path(options.titles), options.dialect_of_titles())
    log = with_titles(log, titles, [options.titles_item_column or options.item_column, title], account)
    note_encoding(log.titles, options.titles_encoding or options.encoding, "--titles_encoding", account)
    return log


def note_encoding(titles: list[str | None], encoding: str, option: str, account: Account) -> None:
    """A note where titles that were read in one of the old encodings of one byte a character are UTF-8 to the last one."""
    read = [title for title in titles if title and not title.isascii()]
    try:
        meant = [title.encode(encoding).decode() for title in read] if len("\u00e9".encode(encoding)) == 1 else []
    except UnicodeError:
        return
    if meant:
        account.notes.append(
            f"titles that were read as {encoding} are UTF-8, as {meant[0]!r} in place of {read[0]!r}: {option} utf-8"
        )
