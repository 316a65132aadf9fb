"""Put finished runs of main.py beside each other: metrics, and the difference to the first with a paired bootstrap.

Reads   the folders that main.py wrote: run.json, test_ranks.npz

    python compare.py output/ML100K_noise_user0.1/none_1a2b3c4d5e output/ML100K_noise_user0.1/all_6f7a8b9c0d
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where denoise_code lies
from denoise_code.common.errors import Parser, input_errors


def parse_args(argv=None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of main.py (two or more); differences are to the first")
    args = parser.parse_args(argv)
    if len(args.runs) < 2:
        parser.error("two runs or more are compared")
    return args


def main(argv=None) -> list:
    args = parse_args(argv)
    from comparison import compare, read_runs

    # 1. The ranks of all runs
    with input_errors(__file__):
        users, runs = read_runs(args.runs)
    # 2. Their differences
    compared = compare(users, runs)
    # 3. For people
    n_seeds = min(len(ranks) for ranks in runs.values())
    print_report(compared, len(users), len(set(users.tolist())), n_seeds)
    return compared


def print_report(compared: list, n_rows: int, n_users: int, n_seeds: int) -> None:
    from comparison import COMPARISONS, sentence, table

    seeds = f"{n_seeds} seeds" if n_seeds > 1 else "one seed: what another would give is in no interval"
    users = "1 user" if n_users == 1 else f"{n_users:,} users"
    print(f"{n_rows:,} test rows of {users}, {seeds}")
    rows = [run.as_row() for run in compared]
    comparisons = [name for name in COMPARISONS[:2] if any(name in row for row in rows)]  # without room for the gap
    print(table(rows, ("rows", "NDCG@20", *comparisons)))
    print("\n".join(sentence(run, compared[0]) for run in compared[1:]))


if __name__ == "__main__":
    main()
