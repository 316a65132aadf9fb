"""Show people how well the noise of a data set is found, what would be replaced by what, and what it is worth.

Reads   data/<dataset>/, a folder that generate_denoised.py made, with its evidence; --runs: folders of main.py
Writes  data/<dataset>/report.html, self-contained, and report.json

    python report.py --dataset ML100K_denoise_user0.1_2400_600
    python report.py --dataset Toy_denoise_user0.1_0 --suspects 200 --runs output/X/none_1a2b3c4d5e output/X/all_6f7a8b9c0d
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where denoise_code lies
from options import RowsOptions

from denoise_code.common.errors import Parser, input_errors
from denoise_code.common.files import write_json
from denoise_code.common.options import ranged


def parse_args(argv=None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    RowsOptions.add_to(parser, "rows", dataset={"help": "denoised folder below --data_root (needed)"})
    add = parser.add_argument
    add("--suspects", type=ranged(int, 1), default=500, help="most suspicious interactions to show (default: 500)")
    add(
        "--threshold",
        type=ranged(float, 0, 1),
        default=0.5,
        help="probability of noise above which an interaction counts as flagged (default: 0.5)",
    )
    add("--runs", type=Path, nargs="*", default=[], help="folders of main.py, the noisy one first (default: none)")
    return parser.parse_args(argv)


def main(argv=None) -> dict:
    args = parse_args(argv)
    from comparison import compare, read_runs
    from findings import figures
    from sections import headlines

    with input_errors(__file__):
        # 1. The evidence on the test rows, and the recommenders that were trained on these
        folder = args.data_root / args.dataset
        findings = read_findings(args, compare(*read_runs(args.runs)) if args.runs else [])

        # 2. Figures, page
        result = figures(findings)
        write_report(folder, findings, args.suspects, args.threshold)
        write_json(folder / "report.json", result)

    # 3. The answer
    for figure, text in headlines(findings, args.threshold)[:3]:
        print(f"{figure:>12s} {text}")
    print(f"wrote {folder / 'report.html'}")
    return result


def read_findings(args: argparse.Namespace, compared: list):
    from findings import Findings
    from rows import load

    from denoise_code.data_set.evidence_files import FUSED, noise_probability

    rows = load(RowsOptions(args.dataset, args.data_root, args.maxlen, (FUSED,), ("test",)))
    evidence = rows.evidence["test"]
    prob = noise_probability(evidence.r[FUSED], rows.record["noise_share"])
    return Findings(rows.splits["test"], prob, evidence.replacements, rows.record, compared)


def write_report(folder: Path, findings, n_suspects: int, threshold: float) -> None:
    """report.html."""
    from sections import page_of

    from denoise_code.common.page import write_page
    from denoise_code.data_set.catalogue import read_catalogue

    titles = read_catalogue(findings.test.path.parent, allow_untitled=True)
    write_page(folder / "report.html", page_of(folder.name, findings, titles, n_suspects, threshold))


if __name__ == "__main__":
    main()
