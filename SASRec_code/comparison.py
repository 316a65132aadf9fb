"""Runs beside each other: means over seeds, differences and their intervals by a paired bootstrap over users and seeds."""

import json
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from options import OPTIONS_OF_ROWS
from ranking import metrics, ndcg_per_row

from denoise_code.common.errors import InputError
from denoise_code.common.statistics import interval

AT_RANDOM = " at random places"  # what the name of a control ends with
METRICS_OF_TABLES = ("HR@10", "HR@20", "NDCG@10", "NDCG@20")
GAP = "gap won back"
COMPARISONS = ("difference", "to random places", GAP)  # columns that compare a run with others
# In figures, of rows by the first of these words that their name holds.
COLOURS = {"oracle": "#3b6fb6", "random": "0.6", "collaborative": "#e2a43b", "fused": "#d1495b"}
DRAWS = 2000  # of users and seeds, for intervals
DRAWN_AT_ONCE = 2**22  # draws x users of a block of the bootstrap: 32 MB, twice


def bootstrap(users: np.ndarray, runs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{run: means (DRAWS,)} of values (S, N) by seed and row: users drawn with all their rows, and seeds, the same for all runs.

    users (N,): whose row it is. The spread of a mean of S drawn seeds is (S - 1) / S of what it should be, and is widened by
    that; one seed has none.
    """
    rng = np.random.default_rng(0)  # the same users are drawn whenever runs are compared
    means_by_seed = draw_users(users, runs, rng)
    seed_choices, result = {}, {}
    for name, means in means_by_seed.items():
        n_seeds = means.shape[1]
        choice = seed_choices.setdefault(n_seeds, rng.integers(n_seeds, size=means.shape))  # (DRAWS, S)
        centre = means.mean(1)  # (DRAWS,)
        deviation = np.take_along_axis(means, choice, 1).mean(1) - centre
        result[name] = centre + deviation * (n_seeds / max(n_seeds - 1, 1)) ** 0.5
    return result


def draw_users(users: np.ndarray, runs: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """{run: means (DRAWS, S)} of values (S, N), users (N,) being drawn with all their rows.

    Users are drawn in blocks of draws, which takes the memory of one block and gives the numbers that all at once would give.
    """
    user_index = np.unique(users, return_inverse=True)[1]  # (N,)
    rows_of_user = np.bincount(user_index)  # (U,)
    n_users = len(rows_of_user)
    sums_of_user = {name: [np.bincount(user_index, per_row) for per_row in values] for name, values in runs.items()}  # S of (U,)
    means = {name: np.empty((DRAWS, len(values))) for name, values in runs.items()}
    block_size = max(1, DRAWN_AT_ONCE // n_users)
    for start in range(0, DRAWS, block_size):
        block = slice(start, min(start + block_size, DRAWS))
        drawn_users = rng.integers(n_users, size=(block.stop - block.start, n_users))  # (block, U)
        n_rows = rows_of_user[drawn_users].sum(1)  # (block,)
        for name, sums_by_seed in sums_of_user.items():
            for seed_number, sums in enumerate(sums_by_seed):
                means[name][block, seed_number] = sums[drawn_users].sum(1) / n_rows
    return means


def summarise(per_seed: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """{metric: {mean, std}}; std is the sample standard deviation over seeds, 0 for one."""
    summary = {}
    for metric in per_seed[0]:
        values = [of_seed[metric] for of_seed in per_seed]
        std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        summary[metric] = {"mean": float(np.mean(values)), "std": std}
    return summary


def colour_of(rows: str) -> str:
    """The colour in figures of rows with this name."""
    return next((colour for word, colour in COLOURS.items() if word in rows), "0.3")


@dataclass(frozen=True)
class ComparedRun:
    """A run beside others, its figures on test.

    rows: what was done to its rows. metrics {metric: {mean, std}} over seeds. The others are {mean, interval_95}, of NDCG@20, and None
    where there is nothing to compare with: difference, to the first run; to_random_places, to the same edits at random places;
    gap_won_back, (run - first) / (clean - first).
    """

    rows: str
    metrics: dict[str, dict[str, float]]
    difference: dict | None = None
    to_random_places: dict | None = None
    gap_won_back: dict | None = None

    def as_row(self) -> dict:
        """{column: text or figure}, as files and tables have it; without a column for what is None."""
        compared = dict(zip(COMPARISONS, (self.difference, self.to_random_places, self.gap_won_back)))
        return {"rows": self.rows, **self.metrics, **{name: value for name, value in compared.items() if value is not None}}

    @classmethod
    def of_row(cls, row: dict) -> "ComparedRun":
        """What `as_row` made a row of; other columns than metrics are left out."""
        metrics = {name: value for name, value in row.items() if isinstance(value, dict) and "std" in value}
        return cls(row["rows"], metrics, *(row.get(name) for name in COMPARISONS))


class Differences:
    """The mean NDCG@20 of runs {name: ranks (S, N, 2)}, and differences between them with intervals.

    One user, and so one row, tells nothing of others: there is no interval (None).
    """

    def __init__(self, users: np.ndarray, runs: dict[str, np.ndarray]):
        ndcg = {name: ndcg_per_row(ranks) for name, ranks in runs.items()}  # (S, N)
        self.draws = bootstrap(users, ndcg)
        self.has_intervals = len(np.unique(users)) > 1
        self.means = {name: values.mean() for name, values in ndcg.items()}

    def difference(self, name: str, reference: str) -> dict:
        """Mean and 95 % interval of a run less a reference."""
        mean = float(self.means[name] - self.means[reference])
        return {"mean": mean, "interval_95": self.interval(self.draws[name] - self.draws[reference])}

    def interval(self, draws: np.ndarray) -> list[float] | None:
        """The middle 95 % of bootstrap draws (draws,)."""
        return interval(draws) if self.has_intervals else None

    def share_of_gap(self, name: str, noisy: str) -> dict:
        """Mean and 95 % interval of (run - noisy) / (clean - noisy): how much of the gap a run wins back."""
        mean = (self.means[name] - self.means[noisy]) / (self.means["clean"] - self.means[noisy])
        return {"mean": float(mean), "interval_95": self.interval(share_of_gap(self.draws, name, noisy))}

    def has_gap(self, noisy: str) -> bool:
        """Whether clean is shown to be above noisy: else a share of the gap means nothing."""
        if "clean" not in self.means or noisy == "clean":
            return False
        gap = self.difference("clean", noisy)["interval_95"]
        return gap is not None and gap[0] > 0


def compare(users: np.ndarray, runs: dict[str, np.ndarray]) -> list[ComparedRun]:
    """Each of the runs of ranks {name: (S, N, 2)}; users (N,): whose row it is."""
    differences, first = Differences(users, runs), next(iter(runs))
    has_gap = differences.has_gap(first)
    return [
        ComparedRun(
            rows=name,
            metrics=summarise([metrics(of_seed) for of_seed in ranks]),
            difference=differences.difference(name, first) if name != first else None,
            to_random_places=differences.difference(name, f"{name}{AT_RANDOM}") if f"{name}{AT_RANDOM}" in runs else None,
            gap_won_back=differences.share_of_gap(name, first) if has_gap and name not in (first, "clean") else None,
        )
        for name, ranks in runs.items()
    ]


def share_of_gap(draws: dict[str, np.ndarray], name: str, noisy: str) -> np.ndarray:
    """(run - noisy) / (clean - noisy) of each bootstrap draw (draws,), without the draws in which there is no gap."""
    gap = draws["clean"] - draws[noisy]
    has_gap = gap != 0
    return (draws[name] - draws[noisy])[has_gap] / gap[has_gap]


def table(rows: list[dict], columns: tuple[str, ...]) -> str:
    """Rows {column: text or figure} for people: aligned, and Markdown as it is; a difference comes with its 95 % interval."""
    lines = [list(columns), *([cell(row.get(column, ""), column) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * width for width in widths])
    return "".join("| " + " | ".join(text.ljust(width) for text, width in zip(line, widths)) + " |\n" for line in lines)


def cell(value: dict | str, column: str) -> str:
    """A figure with its spread or its interval, as text."""
    if not isinstance(value, dict):
        return str(value)
    if "std" in value:
        return f"{value['mean']:.4f} ± {value['std']:.4f}"
    form = ".0%" if column == GAP else "+.4f"
    if value["interval_95"] is None:
        return f"{value['mean']:{form}} (no interval)"
    ends = ", ".join(format(end, form) for end in value["interval_95"])
    return f"{value['mean']:{form}} [{ends}]"


@dataclass
class Run:
    """What main.py wrote of a run. users, targets (N,): its test rows; ranks (S, N, 2); settings: its options."""

    folder: Path
    settings: dict
    users: np.ndarray
    targets: np.ndarray
    ranks: np.ndarray

    @property
    def kind(self) -> str:
        """What was done to its rows."""
        if self.settings["clean"]:
            return "clean"
        if self.settings["denoise_category"] == "none":
            return "noisy"
        return f"{self.settings['evidence']}, {self.settings['edit']}"


def read_run(folder: Path) -> Run:
    """InputError where the folder is none of main.py's."""
    try:
        with np.load(folder / "test_ranks.npz", allow_pickle=False) as arrays:
            users, targets, ranks = (arrays[name] for name in ("users", "targets", "ranks"))
        settings = json.loads((folder / "run.json").read_text())["arguments"]
        if missing := {"clean", "denoise_category", "evidence", "edit"} - settings.keys():
            raise KeyError(", ".join(sorted(missing)))
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(f"{folder}: no run.json and test_ranks.npz of main.py ({error})") from None
    if ranks.ndim != 3:
        raise InputError(
            f"{folder}/test_ranks.npz: ranks of shape {ranks.shape}, expected (seeds, rows, 2); from before ties were kept: run "
            "main.py again"
        )
    return Run(folder, settings, users, targets, ranks)


def read_runs(folders: list[Path]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(users (N,), {what a run did to its rows: its test ranks (S, N, 2)}) of folders of main.py, which must rank the same rows.

    Says which options differ beside those of the rows.
    """
    runs = []
    for folder in folders:
        if folders.count(folder) > 1:
            raise InputError(f"{folder}: is given twice")
        run = read_run(folder)
        runs.append(run)
        if not (np.array_equal(run.users, runs[0].users) and np.array_equal(run.targets, runs[0].targets)):
            raise InputError(f"{folder}: ranks other test rows than {folders[0]}")
    for option in runs[0].settings:
        values = {json.dumps(run.settings.get(option)) for run in runs}
        if len(values) > 1 and option not in OPTIONS_OF_ROWS:
            print(f"not only their rows differ: --{option} is {' and '.join(sorted(values))}")
    return runs[0].users, {name: run.ranks for name, run in name_runs(runs).items()}


def name_runs(runs: list[Run]) -> dict[str, Run]:
    """{name: run}: what was done to its rows, with its folder where several did the same.

    Evidence `random` is that of a `fused` run at random places, where there is one that differs in nothing else; a second run of
    the same keeps its folder's name.
    """
    kinds = [run.kind for run in runs]
    names = [run.kind if kinds.count(run.kind) == 1 else f"{run.kind} ({run.folder})" for run in runs]
    for number, run in enumerate(runs):
        if run.settings["evidence"] == "random":
            as_fused = run.settings | {"evidence": "fused"}
            fused = next((name for other, name in zip(runs, names) if other.settings == as_fused), None)
            if fused and fused + AT_RANDOM not in names:
                names[number] = fused + AT_RANDOM
    return dict(zip(names, runs))


def sentence(run: ComparedRun, first: ComparedRun) -> str:
    """What the difference of a run to the first says."""
    text = f"NDCG@20 of {run.rows} against {first.rows}: {verdict(run.difference)}"
    if run.to_random_places is not None:
        text += f"; against as many edits at random places: {verdict(run.to_random_places)}"
    return text


def verdict(difference: dict) -> str:
    """Whether a difference's interval leaves zero; no word on what rests on one user."""
    if difference["interval_95"] is None:
        return "nothing is shown: one user has no interval"
    low, high = difference["interval_95"]
    if low > 0 or high < 0:
        return f"{'higher' if low > 0 else 'lower'}: the interval leaves zero"
    return "nothing is shown: the interval holds zero"
