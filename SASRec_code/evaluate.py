"""Full-catalogue ranking metrics, tie-aware, in memory that does not grow with rows x items; runs beside each other."""

import json
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from evidence import interval
from options import InputError, filter_parser
from torch import Tensor

AT_RANDOM = " at random places"  # what the name of a control ends with
MEASURED = ("HR@10", "HR@20", "NDCG@10", "NDCG@20")  # in tables
BESIDE = ("difference", "to random places", "gap won back")
CUTOFFS = (1, 5, 10, 20, 50)
LEAST_ROWS = 16  # of a batch, however large the catalogue: each batch reads all item embeddings once
SCORES_AT_ONCE = 2**21  # rows x items of a batch of scores: 8 MB, about what caches hold
DRAWN_AT_ONCE = 2**22  # draws x users of a block of the bootstrap: 32 MB, twice


@torch.inference_mode()
def rank_targets(model, histories: Tensor, targets: Tensor) -> np.ndarray:
    """(N, 2) int64 for each target among all items: how many score higher, how many score the same, itself included.

    So a target has one of the ranks better .. better + tied - 1, counted from 0. histories (N, L) left-padded, targets (N,).
    """
    model.eval()
    n_items = model.items.num_embeddings - 1
    rows = max(LEAST_ROWS, SCORES_AT_ONCE // (n_items + 1))
    ranks = []
    for start in range(0, len(histories), rows):
        scores = model.scores(histories[start : start + rows])  # (B, V)
        ranks.append(ranks_of(scores, targets[start : start + rows, None]))
    return torch.cat(ranks).cpu().numpy()


def ranks_of(scores: Tensor, target: Tensor) -> Tensor:
    """scores (B, V), target (B, 1) -> (B, 2) int64, as `rank_targets` returns them."""
    own = scores.gather(1, target)
    # Bytes add up several times faster than booleans. All that is neither less nor greater counts as equal: a score that is
    # not a number ties with everything, so it ranks at random, it does not win.
    greater, less = (part.view(torch.uint8).sum(1, dtype=torch.int64) for part in (scores > own, scores < own))
    return torch.stack([greater, scores.shape[1] - greater - less], dim=1)


def expected_gain(ranks: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """The gain (...,) to expect of ranks (..., 2) if ties are broken at random: the mean over the ranks that a target may have.

    gains (k,): what the ranks 0 .. k - 1 are worth; later ones are worth nothing.
    """
    better, tied = ranks[..., 0], ranks[..., 1]
    of_rank = np.append(gains, 0.0)  # (k + 1,)
    of_ranks_before = np.append(0.0, np.cumsum(gains))  # (k + 1,)
    first, after = np.minimum(better, len(gains)), np.minimum(better + tied, len(gains))
    of_tie = (of_ranks_before[after] - of_ranks_before[first]) / tied
    return np.where(tied == 1, of_rank[first], of_tie)  # without a tie the gain itself, not a rounded difference of sums


def hits_per_row(ranks: np.ndarray, k: int) -> np.ndarray:
    """HR@k: the probability (...,) that a target of ranks (..., 2) is among the first k."""
    return expected_gain(ranks, np.ones(k))


def ndcg_per_row(ranks: np.ndarray, k: int = 20) -> np.ndarray:
    """NDCG@k of one target: 1 / log2(rank + 2) within the first k, the expectation of it where there are ties; (...,)."""
    return expected_gain(ranks, 1 / np.log2(np.arange(k) + 2.0))


def metrics(ranks: np.ndarray) -> dict[str, float]:
    """HR@k, NDCG@k and MRR, 1 / (rank + 1), of ranks (N, 2) as `rank_targets` returns them."""
    result = {}
    for k in CUTOFFS:
        result[f"HR@{k}"] = float(hits_per_row(ranks, k).mean())
        result[f"NDCG@{k}"] = float(ndcg_per_row(ranks, k).mean())
    reciprocal = 1 / (np.arange(ranks.sum(1).max()) + 1.0)  # every rank that there is
    return result | {"MRR": float(expected_gain(ranks, reciprocal).mean())}


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
