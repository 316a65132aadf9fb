"""The last act of stage 2: evidence and replacements for all rows of a data set, into files that stage 3 reads.

Reads rows and catalogue of a data set folder and, from the denoised folder, what there is of title vectors, of the language model's
scores and of the windows that were planted for it. It can be made later for a finished folder; evidence that was made of the same
inputs is kept.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from denoise_code.common.errors import InputError
from denoise_code.common.files import fingerprint_of_array, fingerprint_of_files, fingerprint_of_json
from denoise_code.common.resources import peak_resident_gib
from denoise_code.common.text_table import text_table
from denoise_code.data_set.catalogue import fingerprint_of_catalogue, read_catalogue
from denoise_code.data_set.evidence_files import (
    BOUND_CONFIDENCE,
    FUSED,
    VERSION,
    fingerprint_of_rows,
    read_evidence,
    write_evidence,
)
from denoise_code.data_set.folder import SPLITS, file_of_split
from denoise_code.data_set.interactions import DataSet, Rows, build_data_set
from denoise_code.data_set.padded_rows import Split, read_split, read_vectors, resize
from denoise_code.data_set.planting import BY_POPULARITY, PLANTED_MARK
from denoise_code.data_set.rows import check_columns, read_as_text, whole_numbers
from denoise_code.evidence import detector
from denoise_code.evidence.calibration import CannotPlant
from denoise_code.evidence.features import Planted
from denoise_code.evidence.figures import injected_probabilities
from denoise_code.evidence.fit import GivenScores
from denoise_code.evidence.options import EvidenceOptions
from denoise_code.judging import (
    JudgedDataSet,
    NoEvidence,
    check_rows_can_teach,
    judge_interactions,
    replace_what_is_noise,
    share_taken,
)
from denoise_code.replacement import NothingToReplaceFrom
from denoise_code.stored_evidence import MadeOf, judged_before, make_record, options_of, stored_form, stored_record

# Uniformly planted windows that a language model's scores are calibrated on at least: half to fit, half for the bound.
LEAST_PLANTED = 20
FEW_PLANTED = 200  # with fewer the bound is far above the share: half of 30 say little with 90 % confidence


@dataclass(frozen=True)
class RowsOfFolder:
    """What evidence is made of: splits {file name without .csv: rows}, train rows as `train` whatever their file is called."""

    titles: list[str]
    splits: dict[str, Split]
    keys_of_users: dict[str, str]  # of the log, by user id; empty where the folder has no users.csv

    @property
    def evaluated(self) -> dict[str, Split]:
        return {file: split for file, split in self.splits.items() if file != "train"}


def make_evidence(folder: Path, data_set: Path, options: EvidenceOptions) -> dict | None:
    """Make evidence in the denoised folder, of its rows and, where it has none, of the data set's.

    What was made of the same inputs is kept. Where only the share of noise or --replace_all is another one, r is kept and
    replacements are made anew. Returns evidence.json, None where there can be none, and says which of these happened.
    """
    started = time.perf_counter()
    try:
        # 1. What is there already
        rows = read_rows(folder, data_set)
        sources = fingerprint_of_sources(folder, rows, options.seed)
        stored = stored_record(folder)
        is_judged = stored is not None and stored["sources"] == sources
        if is_judged and stored["options"] == options_of(options):
            print(f"the evidence in {folder} is complete")
            return stored
        # 2. The table of interactions, and r of each by every kind of evidence
        data = data_set_of(rows)
        halvings = data.interactions.halvings(user_keys(rows, data))
        check_rows_can_teach(data, halvings)
        vectors = read_vectors(folder, rows.titles)
        if is_judged:
            interactions = judged_before(read_evidence(folder))
        else:
            scores = given_scores(folder, rows, data, np.random.default_rng([options.seed, 5]))
            interactions = judge_interactions(data, vectors, scores, halvings, options.seed)
        # 3. One replacement for each
        share = share_taken(interactions, options)
        fused_of_histories = {file: r_by_kind[FUSED] for file, r_by_kind in interactions.histories.items()}
        replacements = replace_what_is_noise(
            data, interactions.train[FUSED], fused_of_histories, vectors, halvings, share, options
        )
    except (NoEvidence, CannotPlant, NothingToReplaceFrom) as error:
        print(f"no evidence in {folder}, so stage 3 has the paper's noise_prob alone: {error}")
        return None
    # 4. All of it in two files
    judged = JudgedDataSet(interactions, share, replacements)
    fingerprints = {file: row_fingerprint(file, split) for file, split in rows.splits.items()}
    record = make_record(data, judged, MadeOf(fingerprints, fingerprint_of_catalogue(rows.titles), sources), options)
    record |= {"seconds": round(time.perf_counter() - started, 1), "peak_memory_gib": round(peak_resident_gib(), 3)}
    if record["detection"]["injected"]:
        record["detection"]["injected"]["probability"] = injected_probabilities(data, interactions.histories, share)
    write_evidence(folder, stored_form(data, judged, record))
    print_evidence(record)
    return record


def read_rows(folder: Path, data_set: Path) -> RowsOfFolder:
    """The rows that stage 3 reads for the denoised folder: all train rows, and the files of valid and test rows that there are.

    Raises NoEvidence where there are no train rows.
    """
    titles = read_catalogue(data_set, allow_untitled=True)
    splits = {}
    for split in SPLITS:
        path = file_of_split([folder, data_set], split)
        if path is None and split == "train":
            raise NoEvidence(f"{data_set} has no train.csv")
        if path is not None:
            splits["train" if split == "train" else path.stem] = read_split(path, titles, columns="optional")
    width = max(split.items.shape[1] for split in splits.values())  # the longest row may be one of any file
    return RowsOfFolder(titles, {file: resize(split, width) for file, split in splits.items()}, read_user_keys(data_set))


def read_user_keys(folder: Path) -> dict[str, str]:
    """{user id: key in the log} of users.csv; {} where there is none, as in released folders."""
    path = folder / "users.csv"
    if not path.exists():
        return {}
    remedy = "write it as data/README.md says, or remove it: then the names in the rows count"
    table = read_columns(path, ["user_id", "key"], remedy)
    return dict(zip(table["user_id"], table["key"]))


def read_columns(path: Path, names: list[str], remedy: str) -> pd.DataFrame:
    """These columns of a CSV file, as text. InputError, with what to do, where it cannot be read or lacks one of them."""
    table = read_as_text(path, remedy=f"; {remedy}")
    check_columns(path, table, names, f"; {remedy}")
    return table[names]


def fingerprint_of_sources(folder: Path, rows: RowsOfFolder, seed: int) -> str:
    """SHA-256 of all that r and its figures are made of. Of the code it holds VERSION and the settings of the detector alone."""
    files = [folder / "planted.csv", folder / "title_vectors.safetensors"]
    content = [VERSION, asdict(detector.DetectorSettings()), seed, fingerprint_of_catalogue(rows.titles)]
    content += [fingerprint_of_files(files), sorted(rows.keys_of_users.items())]
    for file, split in rows.splits.items():
        columns = slice(None) if file == "train" else slice(None, -1)  # no target has a part in it
        cells = [array[:, columns] for array in (split.mask, split.places, split.noise_prob) if array is not None]
        times = [] if split.times is None else [split.times]
        content += [file, row_fingerprint(file, split), *(fingerprint_of_array(array) for array in cells + times)]
    return fingerprint_of_json(content)


def row_fingerprint(file: str, split: Split) -> str:
    """Of all items of train rows, of the histories of others: no target shapes what is made."""
    return fingerprint_of_rows(split.users, split.items if file == "train" else split.items[:, :-1])


def data_set_of(rows: RowsOfFolder) -> DataSet:
    """The table of interactions."""
    evaluated = {file: as_rows(split) for file, split in rows.evaluated.items()}
    return build_data_set(as_rows(rows.splits["train"]), evaluated, len(rows.titles) - 1)


def user_keys(rows: RowsOfFolder, data: DataSet) -> list[str]:
    """Keys (U,) in the log of the users of the table; their names in the folder where it has no users.csv."""
    return [rows.keys_of_users.get(name, name) for name in data.interactions.user_names]


def as_rows(split: Split) -> Rows:
    """The columns of a file as the table of interactions takes them."""
    lengths = (split.items != 0).sum(1)
    first_place = None if split.places is None else split.places[:, -1] - lengths + 1
    return Rows(split.users.astype(str), split.items, split.mask, split.times, first_place)


def given_scores(folder: Path, rows: RowsOfFolder, data: DataSet, rng: np.random.Generator) -> GivenScores | None:
    """What a language model said of all rows and of planted windows, as log-odds; None, and why, where that is not all there.

    Too few planted windows to fit on are a reason, too. Planted windows are of users that fine-tuning never saw, the log's
    own windows of all users. What an adapter memorised of the users that it was trained on lowers their r; nothing here takes
    that out.
    """
    path = folder / "planted.csv"
    if not path.exists():
        if any(split.noise_prob is not None for split in rows.splits.values()):
            print(f"no evidence of the kind llm: {folder} has no planted.csv to calibrate on (--planted)")
        return None
    unread = [file for file, split in rows.splits.items() if split.noise_prob is None]
    if unread:
        print(f"no evidence of the kind llm: the language model did not read {', '.join(unread)}")
        return None
    planted = resize(read_split(path, rows.titles, columns="needed"), data.train.shape[1])
    check_log_probabilities([*rows.splits.values(), planted])
    train_row, by_popularity = read_how_planted(path)
    row, column = np.nonzero(planted.mask == PLANTED_MARK)
    train = rows.splits["train"]
    if len(row) != len(train_row):
        print(
            f"no evidence of the kind llm: {path} has {len(row)} planted items in {len(train_row)} rows, one in each is expected"
        )
        return None
    has_row = train_row < len(train.items)
    differs = planted.items[has_row] != train.items[train_row[has_row]]  # (M, W)
    if not has_row.all() or (differs.sum(1) != 1).any() or not differs[row, column].all():
        print(f"no evidence of the kind llm: {path} was made from other train rows than {train.path}")
        return None
    n_uniform = int((~by_popularity).sum())
    if n_uniform < LEAST_PLANTED:
        print(
            f"no evidence of the kind llm: {path} has {n_uniform} uniformly planted windows, {LEAST_PLANTED} are needed (--planted)"
        )
        return None
    if n_uniform < FEW_PLANTED:
        print(
            f"llm is calibrated on {n_uniform} uniformly planted windows alone: its bound, and that of fused, are loose (--planted)"
        )
    of_cells = log_odds(train.noise_prob)
    return GivenScores(
        train=mean_by_interaction(data, of_cells),
        one_window=one_cell_of_interactions(data, of_cells, rng),
        histories={file: log_odds(split.noise_prob[:, :-1]) for file, split in rows.evaluated.items()},
        planted=Planted(data.train[train_row, column], planted.items[row, column]),
        planted_scores=log_odds(planted.noise_prob[row, column]),
        by_popularity=by_popularity,
    )


def read_how_planted(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Of the rows of planted.csv: the number (M,) int64 of the train row that each was made from, by_popularity (M,) bool."""
    remedy = "without it evidence is made without the kind llm; without run.json generate_denoised.py reads all anew"
    table = read_columns(path, ["train_row", "drawn"], remedy)
    return whole_numbers(path, table, "train_row", f"; {remedy}"), (table["drawn"] == BY_POPULARITY).to_numpy()


def check_log_probabilities(splits: list[Split]) -> None:
    """InputError for a noise_prob that is none."""
    for split in splits:
        row, place = np.nonzero(split.noise_prob > 0)
        if len(row):
            value = split.noise_prob[row[0], place[0]]
            raise InputError(
                f"{split.path} row {row[0] + 1}: noise_prob {value:g} is no natural log-probability, which is at most 0"
            )


def log_odds(log_prob: np.ndarray) -> np.ndarray:
    """logit(p) of natural logarithms log p."""
    log_prob = np.minimum(log_prob, -1e-15)  # a probability of 1 has no odds
    return log_prob - np.log(-np.expm1(log_prob))


def mean_by_interaction(data: DataSet, of_cells: np.ndarray) -> np.ndarray:
    """(n,) means over the train rows that hold an interaction, of cells (N, W); NaN where none was scored."""
    scored = (data.train >= 0) & ~np.isnan(of_cells)
    rows = data.train[scored]
    sums = np.bincount(rows, of_cells[scored], minlength=len(data.interactions))
    counts = np.bincount(rows, minlength=len(data.interactions))
    with np.errstate(invalid="ignore"):
        return sums / counts


def one_cell_of_interactions(data: DataSet, of_cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) of cells (N, W) of train rows that of one scored cell of each interaction, drawn at random; NaN where none was scored."""
    cells = rng.permutation(np.flatnonzero((data.train >= 0) & ~np.isnan(of_cells)))
    values = np.full(len(data.interactions), np.nan)
    values[data.train.ravel()[cells]] = of_cells.ravel()[cells]  # the last cell of an interaction stays
    return values


def print_evidence(record: dict) -> None:
    """What was made: kinds with their figures, the bound on the share of noise, time and memory."""
    figures = record["detection"]
    injected = figures["injected"]
    header = ["evidence", "noise at most", "auc_context", *(["AUC", "avg. prec."] if injected else [])]
    lines = []
    for kind in record["kinds"]:
        context = figures["auc_context"].get(kind)
        line = [kind, f"{record['share_bound'][kind]:.1%}", f"{context['auc']:.3f}" if context else "-"]
        if injected:
            found = (injected["by kind"][kind][name] for name in ("AUC", "AP"))
            line += ["-" if value is None else f"{value:.3f}" for value in found]
        lines.append(line)
    print(text_table(header, lines))
    if injected:
        print(f"AUC and average precision: of the injected noise in the histories of {injected['file']}.csv")
    print(
        f"share of noise taken: {record['noise_share']:.3f} (--noise_share); bounds hold with {BOUND_CONFIDENCE:.0%} "
        f"confidence; {record['seconds']:.0f} s, peak memory {record['peak_memory_gib']:.1f} GiB"
    )
