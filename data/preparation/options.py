"""The options of prepare_noise_data.py: what is made of a log, and which files the log is read from."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from denoise_code.common.errors import Parser
from denoise_code.common.options import Options, finite, option, positive, probability_below_one, ranged, switch
from denoise_code.data_set.log.csv_source import add_table_options, check_table_options, read_csv_log
from denoise_code.data_set.log.log import Account, Log
from preparation.sources import read_amazon, read_ml_100k, read_movielens, read_recbole

DATA_ROOT = Path(__file__).resolve().parents[1]
DEFAULT_NAMES = {"ml-100k": "ML100K"}  # of sources that are one data set


@dataclass(frozen=True)
class DataSetOptions(Options):
    """What is made of a log."""

    name: str = option(None, "data set name, the <Name> of the folder (default: the source's)")
    noise: float = option(0.0, "probability that an interaction is replaced, below 1 (default: 0.0)", type=probability_below_one)
    min_rating: float | None = option(None, "drop interactions rated less, before all else (default: none)", type=finite)
    title_words: int = option(0, "keep this many words of each title (default: 0, all)", type=ranged(int, 0))
    k_core: int = option(5, "fewest interactions of a user and of an item (default, release: 5; of Movie 11)", type=positive)
    sample_items: int | None = option(
        None, "keep this many random items first (default: all; release: of Movie 20000)", type=positive
    )
    window: int = option(11, "longest window: the history and its target (default, release: 11)", type=ranged(int, 2))
    seed: int = option(2024, "seed of the noise and of every sample (default: 2024)", type=ranged(int, 0))
    output_root: Path = option(DATA_ROOT, "folder in which the data set folder is made (default: data/ of the project)")
    overwrite: bool = switch("replace a data set of the same name (default: refuse)")

    @property
    def folder(self) -> Path:
        return self.output_root / f"{self.name}_noise_user{self.noise}"


def add_sources(parser: argparse.ArgumentParser) -> None:
    """A subcommand for each source, with the options of its files and of the data set."""
    data_set = argparse.ArgumentParser(add_help=False)
    DataSetOptions.add_to(data_set, "what is made of the log")
    sources = parser.add_subparsers(dest="source", required=True, metavar="source", parser_class=Parser)

    def source(name: str, help: str) -> argparse.ArgumentParser:
        return sources.add_parser(name, parents=[data_set], help=help, description=help, allow_abbrev=False)

    years = {"action": "store_true", "help": "titles without their year: fewer tokens, a few coincide (default: with it)"}
    source("ml-100k", "MovieLens-100k from the wheel recbole").add_argument("--no_year", **years)
    add = source("movielens", "a MovieLens folder: ml-100k, ml-1m, ml-10M100K, ml-20m, ml-32m").add_argument
    add("--folder", required=True, help="the unpacked folder with ratings.* and movies.*, or u.data and u.item (needed)")
    add("--no_year", **years)
    add = source("recbole", "a folder DATASET of RecBole's atomic files, DATASET.inter and DATASET.item").add_argument
    add("--folder", required=True, help="the folder of DATASET.inter and DATASET.item (needed)")
    add("--title_column", help="field of the titles (default: the first text field named like one)")
    add = source("amazon", "Amazon reviews of 2014, 2018 or 2023, JSON or Python lines, .gz or not").add_argument
    add("--reviews", required=True, help="the file of reviews (needed)")
    add("--metadata", required=True, help="the file of products, for their titles (needed)")
    table = source("csv", "a delimited file, JSON lines or Parquet, told apart by content")
    table.add_argument("--interactions", required=True, help="the file of interactions (needed)")
    table.add_argument(
        "--rating_column", help="name of the rating column, for --min_rating (default: rating, where there is one)"
    )
    add_table_options(table)


def reader_of(parser: Parser, args: argparse.Namespace) -> Callable[[Account], Log]:
    """What reads the source; its options that contradict each other are refused."""
    with_ratings = args.min_rating is not None
    if args.source == "ml-100k":
        return partial(read_ml_100k, args.no_year, with_ratings)
    if args.source == "movielens":
        return partial(read_movielens, Path(args.folder), args.no_year, with_ratings)
    if args.source == "recbole":
        return partial(read_recbole, Path(args.folder), args.title_column, with_ratings)
    if args.source == "amazon":
        return partial(read_amazon, Path(args.reviews), Path(args.metadata))
    table_options = check_table_options(parser, args)
    if args.rating_column and not with_ratings:
        parser.error("--rating_column needs --min_rating: ratings are read for nothing else")
    return partial(read_csv_log, Path(args.interactions), table_options, args.rating_column, with_ratings)
