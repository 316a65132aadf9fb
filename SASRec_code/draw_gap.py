"""Draw how much of the gap between noisy and clean rows is won back, by level of noise: a panel a data set and recommender.

Reads   folders of sweep.py (report.json) and of main.py (run.json, test_ranks.npz). Of main.py: of each data set and level of noise the
        noisy rows and what they are compared with, and the clean rows of each data set once
Writes  the figure --out

    python draw_gap.py output/ML100K_*/* output/ToyLog_denoise_user0.2_0/sweep_* --out gap.png
"""

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where denoise_code lies
from denoise_code.common.errors import InputError, Parser, input_errors
from denoise_code.common.files import read_json, save_figure
from denoise_code.data_set.folder import noisy_name


@dataclass(frozen=True)
class Level:
    """Runs (`comparison.ComparedRun`) at one share of noise (0.1, say). panel: the data set, and the model if not SASRec."""

    panel: str
    noise: float
    runs: list


def parse_args(argv=None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("folders", type=Path, nargs="+", help="folders of sweep.py and of main.py")
    parser.add_argument("--out", type=Path, default=Path("gap.png"), help="the figure, as PNG (default: gap.png)")
    return parser.parse_args(argv)


def main(argv=None) -> list[Level]:
    args = parse_args(argv)
    with input_errors(__file__):
        # 1. What was measured at each level of noise
        levels = [*levels_of_sweeps(args.folders), *levels_of_runs(args.folders)]
        levels = [level for level in levels if any(run.gap_won_back for run in level.runs)]
        if not levels:
            raise InputError("no gap between noisy and clean rows is shown in these folders")
        # 2. The figure
        draw(levels, args.out)
    print(f"wrote {args.out}: " + ", ".join(f"{level.panel} {level.noise:.0%}" for level in levels))
    return levels


def levels_of_sweeps(folders: list[Path]) -> list[Level]:
    from comparison import ComparedRun

    levels = []
    for folder in folders:
        if (folder / "report.json").exists():
            result = read_json(folder / "report.json")
            for model in dict.fromkeys(row["model"] for row in result["report"]):
                runs = [ComparedRun.of_row(row) for row in result["report"] if row["model"] == model]
                levels.append(Level(*panel_and_noise(result["arguments"]["dataset"], model), runs))
    return levels


def levels_of_runs(folders: list[Path]) -> list[Level]:
    """Runs of main.py grouped by panel and share of noise; the clean rows of a panel belong to each of its groups."""
    from comparison import compare, read_run, read_runs

    runs = [read_run(folder) for folder in folders if (folder / "test_ranks.npz").exists()]
    groups: dict[tuple[str, float], list[Path]] = {}
    clean: dict[str, list[Path]] = {}
    for run in sorted(runs, key=lambda run: run.kind != "noisy"):  # stable: differences are to the noisy rows
        panel, noise = panel_and_noise(run.settings["dataset"], run.settings["model"])
        if run.kind == "clean":
            clean.setdefault(panel, []).append(run.folder)
        else:
            groups.setdefault((panel, noise), []).append(run.folder)
    levels = []
    for (panel, noise), of_group in sorted(groups.items()):
        levels.append(Level(panel, noise, compare(*read_runs([*of_group, *clean.get(panel, [])[:1]]))))
    return levels


def panel_and_noise(dataset: str, model: str) -> tuple[str, float]:
    """Toy_denoise_user0.1_0 -> (Toy, 0.1); of another recommender than SASRec ("Toy, GRU4Rec", 0.1): its gap is another one."""
    match = re.fullmatch(r"(.+)_noise_user(\d+(?:\.\d+)?)", noisy_name(dataset))
    if match is None:
        raise InputError(f"{dataset}: its name does not tell its share of noise, as <Name>_noise_user<rate> does")
    return match[1] if model == "SASRec" else f"{match[1]}, {model}", float(match[2])


def draw(levels: list[Level], path: Path) -> None:
    """Points with 95 % intervals, those of one kind joined by a line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from comparison import colour_of

    names = list(dict.fromkeys(level.panel for level in levels))
    figure, panels = plt.subplots(1, len(names), figsize=(1.2 + 3.4 * len(names), 3.8), sharex=True, sharey=True, squeeze=False)
    for axes, name in zip(panels[0], names):
        of_panel = sorted((level for level in levels if level.panel == name), key=lambda level: level.noise)
        kinds = list(dict.fromkeys(run.rows for level in of_panel for run in level.runs if run.gap_won_back))
        for number, kind in enumerate(kinds):
            points = [(level.noise, run.gap_won_back) for level in of_panel for run in level.runs if run.rows == kind]
            shift = 0.4 * (number - (len(kinds) - 1) / 2)  # so that intervals stand side by side
            places = [100 * noise + shift for noise, _ in points]
            colour = colour_of(kind)
            axes.plot(places, [100 * share["mean"] for _, share in points], "o-", color=colour, label=kind, markersize=4)
            for place, (_, share) in zip(places, points):
                axes.plot([place, place], [100 * end for end in share["interval_95"]], color=colour, linewidth=1)
        axes.axhline(0, color="0.8", linewidth=1)
        axes.axhline(100, color="0.8", linewidth=1, linestyle=":")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("injected noise, %")
        axes.set_xticks(sorted({100 * level.noise for level in levels}))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0, 0].set_ylabel("share of the gap won back, %")
    lines = {kind: line for axes in panels[0] for line, kind in zip(*axes.get_legend_handles_labels())}
    figure.legend(lines.values(), lines.keys(), fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=4)
    save_figure(path, figure)


if __name__ == "__main__":
    main()
