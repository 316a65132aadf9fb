"""Put finished runs of main.py beside each other: metrics, and the difference to the first with a paired bootstrap.

Reads   the folders that main.py wrote: run.json, test_ranks.npz

    python compare.py output/ML100K_noise_user0.1/none_1a2b3c4d5e output/ML100K_noise_user0.1/all_6f7a8b9c0d
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where denoise_code lies
from denoise_code.common.errors import Parser, input_errors


def main(argv=None) -> list[dict]:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of main.py; differences are to the first")
    args = parser.parse_args(argv)
    if len(args.runs) < 2:
        parser.error("two runs or more are compared")
    from comparison import compare, read_runs, sentence, table

    with input_errors(__file__):
        users, runs = read_runs(args.runs)
    report = compare(users, runs)
    seeds = min(map(len, runs.values()))
    print(
        f"{len(users):,} test rows, " + (f"{seeds} seeds" if seeds > 1 else "one seed: what another would give is in no interval")
    )
    beside = [name for name in ("difference", "to random places") if any(name in row for row in report)]
    print(table(report, ("rows", "NDCG@20", *beside)))
    print("\n".join(sentence(row, report[0]) for row in report[1:]))
    return report


if __name__ == "__main__":
    main()
