"""Show people how well the noise of a data set is found, what would be replaced by what, and what it is worth.

Reads   data/<dataset>/, a folder that generate_denoised.py made; --runs: folders of main.py
Writes  data/<dataset>/report.html, self-contained, report.json and the figure report_reliability.png

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


def parse_args(argv=None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("--dataset", required=True, help="denoised folder below --data_root (needed)")
    add("--data_root", type=Path, default=ROOT.parent / "data", help="where data sets lie (default: data/ of the project)")
    add(
        "--maxlen",
        type=ranged(int, 1),
        help="longest history, of a longer one the latest items (default: that of the data set's rows; 10 in the release)",
    )
    add("--windows", type=ranged(int, 1), default=60, help="windows to show, evenly spaced (default: 60)")
    add(
        "--threshold",
        type=ranged(float, 0, 1),
        default=0.3,
        help="of the fused probability, in words and windows (default: 0.3)",
    )
    add("--runs", type=Path, nargs="*", default=[], help="folders of main.py, the noisy one first (default: none)")
    return parser.parse_args(argv)


def main(argv=None) -> dict:
    args = parse_args(argv)
    from comparison import compare, read_runs
    from measured import Measured, figures
    from sections import headlines

    from denoise_code.neighbours import Replacer

    with input_errors(__file__):
        # 1. Rows, and the evidence on them
        folder = args.data_root / args.dataset
        train, test, titles, sources = read(folder, args.maxlen)
        measured = Measured(test, sources)
        replacer = cache(lambda: Replacer(train, len(titles) - 1, sources.vectors))  # fitted where it is asked for

        # 2. The recommenders that were trained on them
        compared = compare(*read_runs(args.runs)) if args.runs else []

        # 3. Figures, page
        checks = measured.checks()
        result = figures(measured, checks, replacer, compared)
        write_page(folder, measured, checks, titles, replacer, args.windows, args.threshold, result)
    write_json(folder / "report.json", result)

    # 4. The answer
    for figure, text in headlines(measured, args.threshold, compared)[:3]:
        print(f"{figure:>10s} {text}")
    print(f"wrote {folder / 'report.html'}")
    return result


def read(folder: Path, maxlen: int | None) -> tuple:
    """Train and test rows, titles by item id, and what evidence can come from."""
    from filter import read_sources
    from rows import choose_maxlen

    from denoise_code.data_set.catalogue import read_titles
    from denoise_code.data_set.folder import find_split, scored
    from denoise_code.data_set.padded_rows import read_split

    titles, with_llm = read_titles(folder), scored(folder)
    paths = {split: find_split(folder.parent, folder.name, split, with_llm and split == "test") for split in ("train", "test")}
    maxlen = choose_maxlen(paths, maxlen)
    train = read_split(paths["train"], titles, maxlen, "ignored")
    test = read_split(paths["test"], titles, maxlen, "needed" if with_llm else "ignored")
    return train, test, titles, read_sources(folder, train, len(titles) - 1, maxlen)


def write_page(
    folder: Path, measured, checks: dict, titles: list[str], replacer, n_windows: int, threshold: float, result: dict
) -> None:
    """report.html and its figure in the folder. replacer: () -> Replacer."""
    import sections
    from page import headline, images, page

    compared = result["runs"]
    parts = [
        headline(sections.headlines(measured, threshold, compared)),
        *sections.worth(compared),
        *sections.injected_noise(measured, result),
        *sections.foundations(result),
        "<h2>Figures</h2>" + images(sections.draw(folder, checks)),
        *sections.windows(measured, titles, replacer, n_windows, threshold),
    ]
    with write_atomically(folder / "report.html") as partial:
        partial.write_text(page(folder.name, parts), encoding="utf-8")


if __name__ == "__main__":
    main()
