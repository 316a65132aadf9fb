"""Show people how well the noise of a data set is found, what would be replaced by what, and what it is worth.

Reads   data/<dataset>/, a folder that generate_denoised.py made; --runs: folders of main.py
Writes  data/<dataset>/report.html, self-contained, report.json and the figures report_*.png

    python report.py --dataset ML100K_denoise_user0.1_2400_600
    python report.py --dataset Toy_denoise_user0.1_0 --windows 200 --runs output/X/none_1a2b3c4d5e output/X/all_6f7a8b9c0d
"""

import argparse
import sys
from functools import cache
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where denoise_code lies
from options import ROOT

from denoise_code.common.errors import Parser, input_errors
from denoise_code.common.files import write_atomically, write_json
from denoise_code.common.options import ranged


def build(folder: Path, measured, titles: list[str], replacer, args, compared: list[dict]) -> dict:
    """Writes the figures and report.html into the folder; returns the figures of the report. replacer: () -> Replacer."""
    import sections
    from measured import figures
    from page import answer, images, page

    checks = measured.checks()
    result = figures(measured, checks, replacer, compared)
    parts = [
        answer(sections.facts(measured, args.threshold, compared)),
        *sections.worth(compared),
        *sections.injected(measured, result),
        *sections.natural(measured, result),
        *sections.foundations(result),
        "<h2>Figures</h2>" + images(sections.draw(folder, measured, checks)),
        *sections.windows(measured, titles, replacer, args),
    ]
    with write_atomically(folder / "report.html") as partial:
        partial.write_text(page(folder.name, parts), encoding="utf-8")
    return result


def main(argv=None) -> dict:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--dataset", required=True, help="denoised folder below --data_root")
    parser.add_argument("--data_root", type=Path, default=ROOT.parent / "data")
    parser.add_argument("--maxlen", type=ranged(int, 1), default=10, help="longest history")
    parser.add_argument("--windows", type=ranged(int, 1), default=60, help="windows to show, evenly spaced")
    parser.add_argument(
        "--threshold", type=ranged(float, 0, 1), default=0.3, help="of the fused probability, in words and windows"
    )
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="folders of main.py, the noisy one first")
    args = parser.parse_args(argv)
    from comparison import compare, read_runs
    from filter import read_sources
    from measured import Measured
    from sections import facts

    from denoise_code.data_set.catalogue import read_titles
    from denoise_code.data_set.folder import find_split, scored
    from denoise_code.data_set.padded_rows import read_split
    from denoise_code.neighbours import Replacer

    with input_errors(__file__):
        folder = args.data_root / args.dataset
        titles, with_llm = read_titles(folder), scored(folder)
        n_items, columns = len(titles) - 1, {True: "needed", False: "ignored"}
        train, test = (
            read_split(find_split(args.data_root, args.dataset, split, needed), titles, args.maxlen, columns[needed])
            for split, needed in (("train", False), ("test", with_llm))
        )
        measured = Measured(test, read_sources(folder, train, n_items, args.maxlen))
        replacer = cache(lambda: Replacer(train, n_items, measured.sources.vectors))
        compared = compare(*read_runs(args.runs)) if args.runs else []
        result = build(folder, measured, titles, replacer, args, compared)
    write_json(folder / "report.json", result)
    for figure, text in facts(measured, args.threshold, compared)[:3]:
        print(f"{figure:>10s} {text}")
    print(f"wrote {folder / 'report.html'}")
    return result


if __name__ == "__main__":
    main()
