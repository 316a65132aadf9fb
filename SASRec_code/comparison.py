"""Full-catalogue ranking metrics, tie-aware, in memory that does not grow with rows x items; runs beside each other."""

import json
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from options import filter_parser
from ranking import metrics, ndcg_per_row

from denoise_code.common.errors import InputError
from denoise_code.evidence.detection import interval

AT_RANDOM = " at random places"  # what the name of a control ends with
MEASURED = ("HR@10", "HR@20", "NDCG@10", "NDCG@20")  # in tables
BESIDE = ("difference", "to random places", "gap won back")
DRAWN_AT_ONCE = 2**22  # draws x users of a block of the bootstrap: 32 MB, twice


def bootstrap(users: np.ndarray, runs: dict[str, np.ndarray], draws: int = 2000, seed: int = 0) -> dict[str, np.ndarray]:
    """{run: means (draws,)} of values (S, N) by seed and row: users drawn with all their rows, and seeds, the same for all runs.

    The spread of a mean of S drawn seeds is (S - 1) / S of what it should be, and is widened by that; one seed has none.
    Users are drawn in blocks of draws, which takes the memory of one block and gives the numbers that all at once would give.
    """
    codes = np.unique(users, return_inverse=True)[1]  # (N,)
    rng = np.random.default_rng(seed)
    rows_of_user = np.bincount(codes)  # (U,)
    sums_of_user = {name: [np.bincount(codes, per_row) for per_row in values] for name, values in runs.items()}  # S of (U,)
    means = {name: np.empty((draws, len(values))) for name, values in runs.items()}
    block = max(1, DRAWN_AT_ONCE // len(rows_of_user))
    for start in range(0, draws, block):
        size = min(block, draws - start)
        drawn = rng.integers(len(rows_of_user), size=(size, len(rows_of_user)))
        rows = rows_of_user[drawn].sum(1)  # (size,)
        for name, by_seed in sums_of_user.items():
            for place, sums in enumerate(by_seed):
                means[name][start : start + size, place] = sums[drawn].sum(1) / rows
    drawn_seeds, result = {}, {}
    for name, by_seed in means.items():
        seeds = by_seed.shape[1]
        chosen = drawn_seeds.setdefault(seeds, rng.integers(seeds, size=by_seed.shape))
        centre = by_seed.mean(1)
        of_seeds = np.take_along_axis(by_seed, chosen, 1).mean(1) - centre
        result[name] = centre + of_seeds * (seeds / max(seeds - 1, 1)) ** 0.5
    return result


def summarise(per_seed: list[dict]) -> dict[str, dict[str, float]]:
    """{metric: {mean, std}}; std is the sample standard deviation over seeds, 0 for one."""
    table = {name: [run[name] for run in per_seed] for name in per_seed[0]}
    return {
        name: {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0}
        for name, values in table.items()
    }


def compare(users: np.ndarray, runs: dict[str, np.ndarray]) -> list[dict]:
    """A row a run of ranks {name: (S, N, 2)}: metrics, and the NDCG@20 less that of the first run.

    Beside it, where there are such runs, less that of the same edits at random places, and as a share of the gap to clean.
    """
    values = {name: ndcg_per_row(ranks) for name, ranks in runs.items()}
    drawn, means, report = bootstrap(users, values), {name: value.mean() for name, value in values.items()}, []
    first = next(iter(runs))

    def difference(one: str, other: str) -> dict:
        return {"mean": float(means[one] - means[other]), "interval_95": interval(drawn[one] - drawn[other])}

    def share(one: str) -> dict:
        mean = (means[one] - means[first]) / (means["clean"] - means[first])
        return {"mean": float(mean), "interval_95": interval(share_of_gap(drawn, one, first))}

    gap = "clean" in runs and first != "clean" and difference("clean", first)["interval_95"][0] > 0  # else a share means nothing
    for name, ranks in runs.items():
        row = {"rows": name, **summarise([metrics(of_seed) for of_seed in ranks])}
        if name != first:
            row["difference"] = difference(name, first)
        if f"{name}{AT_RANDOM}" in runs:
            row["to random places"] = difference(name, f"{name}{AT_RANDOM}")
        if gap and name not in (first, "clean"):
            row["gap won back"] = share(name)
        report.append(row)
    return report


def share_of_gap(drawn: dict[str, np.ndarray], one: str, first: str) -> np.ndarray:
    """(one - first) / (clean - first) of each bootstrap draw (draws,), without the draws in which there is no gap."""
    gap = drawn["clean"] - drawn[first]
    there_is_one = gap != 0
    return (drawn[one] - drawn[first])[there_is_one] / gap[there_is_one]


def table(report: list[dict], columns: tuple[str, ...]) -> str:
    """Rows of `compare` for people: aligned, and Markdown as it is; a difference comes with its 95 % interval."""

    def cell(row: dict, column: str) -> str:
        found = row.get(column, "")
        if not isinstance(found, dict):
            return str(found)
        if "std" in found:
            return f"{found['mean']:.4f} ± {found['std']:.4f}"
        form = ".0%" if column == "gap won back" else "+.4f"
        return f"{found['mean']:{form}} [{', '.join(format(end, form) for end in found['interval_95'])}]"

    lines = [list(columns), *([cell(row, column) for column in columns] for row in report)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * width for width in widths])
    return "".join("| " + " | ".join(text.ljust(width) for text, width in zip(line, widths)) + " |\n" for line in lines)


def read_runs(folders: list[Path]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(users (N,), {what a run did to its rows: its test ranks (S, N, 2)}) of folders of main.py, which must rank the same rows.

    Evidence `random` is that of a `fused` run at random places, where there is one that differs in nothing else.
    """
    runs = []
    for folder in folders:
        if folders.count(folder) > 1:
            raise InputError(f"{folder}: is given twice")
        try:
            with np.load(folder / "test_ranks.npz", allow_pickle=False) as arrays:
                run = {name: arrays[name] for name in ("users", "targets", "ranks")}
            run["settings"] = arguments = json.loads((folder / "run.json").read_text())["arguments"]
            kind = "clean" if arguments["clean"] else f"{arguments['evidence']}, {arguments['edit']}"
            run["name"] = "noisy" if kind != "clean" and arguments["denoise_category"] == "none" else kind
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise InputError(f"{folder}: no run.json and test_ranks.npz of main.py ({error})") from None
        if run["ranks"].ndim != 3:
            raise InputError(
                f"{folder}/test_ranks.npz: ranks of shape {run['ranks'].shape}, expected (seeds, rows, 2); from before ties were "
                "kept: run main.py again"
            )
        runs.append(run)
        if any(not np.array_equal(run[rows], runs[0][rows]) for rows in ("users", "targets")):
            raise InputError(f"{folder}: ranks other test rows than {folders[0]}")
    of_rows = vars(filter_parser("").parse_args(["--dataset", ""])).keys() - {"maxlen"}
    for name in runs[0]["settings"]:
        values = {json.dumps(run["settings"].get(name)) for run in runs}
        if len(values) > 1 and name not in of_rows:
            print(f"not only their rows differ: --{name} is {' and '.join(sorted(values))}")
    names = [run["name"] for run in runs]
    for run, folder in zip(runs, folders):
        if names.count(run["name"]) > 1:
            run["name"] += f" ({folder})"
    for run in runs:
        as_fused = run["settings"] | {"evidence": "fused"}
        found = next((other["name"] for other in runs if other["settings"] == as_fused), None)
        if run["settings"]["evidence"] == "random" and found:
            run["name"] = found + AT_RANDOM
    return runs[0]["users"], {run["name"]: run["ranks"] for run in runs}


def sentence(row: dict, first: dict) -> str:
    """What a row of `compare` says against the first."""
    said = f"NDCG@20 of {row['rows']} against {first['rows']}: {verdict(row['difference'])}"
    if "to random places" in row:
        said += f"; against as many edits at random places: {verdict(row['to random places'])}"
    return said


def verdict(difference: dict) -> str:
    low, high = difference["interval_95"]
    if low > 0 or high < 0:
        return f"{'higher' if low > 0 else 'lower'}: the interval leaves zero"
    return "nothing is shown: the interval holds zero"
