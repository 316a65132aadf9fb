"""Put finished runs of main.py beside each other: metrics, and the difference to the first with a paired bootstrap.

Reads   the folders that main.py wrote: run.json, test_ranks.npz

    python compare.py output/ML100K_noise_user0.1/none_1a2b3c4d5e output/ML100K_noise_user0.1/all_6f7a8b9c0d
"""

import argparse
import json
from pathlib import Path

from options import InputError, Parser, input_errors


def read_ranks(folder: Path) -> dict:
    """{users (N,), targets (N,), ranks (S, N)} of a run's test rows."""
    import numpy as np

    try:
        with np.load(folder / "test_ranks.npz", allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: no test_ranks.npz of main.py ({error})") from None


def verdict(found: dict) -> str:
    """What a difference with its interval says, in a sentence."""
    low, high = found["interval_95"]
    if low > 0:
        return "higher: the interval leaves zero"
    if high < 0:
        return "lower: the interval leaves zero"
    return "nothing is shown: the interval holds zero"


def main(argv=None) -> list[dict]:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of main.py; differences are to the first")
    args = parser.parse_args(argv)
    if len(args.runs) < 2:
        parser.error("two runs or more are compared")
    from evaluate import compare, table

    with input_errors(__file__):
        runs = {str(folder): read_ranks(folder) for folder in args.runs}
        first = next(iter(runs.values()))
        for folder, run in runs.items():
            if any(len(run[name]) != len(first[name]) or (run[name] != first[name]).any() for name in ("users", "targets")):
                raise InputError(f"{folder}: ranks other test rows than {args.runs[0]}")
        names = names_of([json.loads((folder / "run.json").read_text()) for folder in args.runs], args.runs)
        report = compare(first["users"], {name: run["ranks"] for name, run in zip(names, runs.values())})
    print(f"{len(first['users']):,} test rows, {len(first['ranks'])} seeds")
    print(table(report, ("rows", "HR@20", "NDCG@20", "difference")))
    for row in report[1:]:
        print(f"NDCG@20 of {row['rows']} against {report[0]['rows']}: {verdict(row['difference'])}")
    return report


def names_of(runs: list[dict], folders: list[Path]) -> list[str]:
    """What a run does to its rows; the folder's name too where that is not enough."""

    def says(arguments: dict) -> str:
        if arguments["clean"]:
            return "clean"
        if arguments["denoise_category"] == "none":
            return "noisy"
        return f"{arguments['evidence']}, {arguments['edit']}"

    names = [says(run["arguments"]) for run in runs]
    return [name if names.count(name) == 1 else f"{name} ({folder.name})" for name, folder in zip(names, folders)]


if __name__ == "__main__":
    main()
