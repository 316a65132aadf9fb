"""Compare kinds of evidence, edits and recommenders: settings chosen on valid, then each once on test beside noisy, random and clean.

Reads   data/<dataset>/: a data set folder, or one that generate_denoised.py made of it
Writes  SASRec_code/output/<dataset>/sweep_<settings>/: sweep.csv (a row a setting, valid only), report.json, report.md,
        gap.png (share of the way from noisy to clean)

A model is trained once for each train setting and seed. Its epoch is chosen by the NDCG@20 of valid with the histories as
they are, noisy or, of clean rows, clean, as in main.py: that gives for a row's settings what stands in the row. Every test
setting is then evaluated with this model on valid. The best mean over seeds goes to test, and beside it, where other places
can be edited alike, the same with the probabilities at random places, drawn anew for each seed, its settings chosen in the
same way. Trained models are kept and shared with other sweeps and main.py: a killed sweep goes on where it was.

    python sweep.py --dataset ML100K_noise_user0.1 --evidence collaborative --edit delete --train_thresholds 0.3 --seeds 3
    python sweep.py --dataset Toy_denoise_user0.1_0 --evidence collaborative semantic fused --edit delete replace \
        --replace_with neighbours --model SASRec GRU4Rec --loss ce --batchsize 1024 --lr 0.002
"""

import sys
from itertools import cycle, product
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where denoise_code lies
import numpy as np
from options import check_args, make_parser, of_model, output_folder, settings, with_settings

from denoise_code.common.errors import input_errors
from denoise_code.common.files import write_atomically, write_json
from denoise_code.common.options import ranged

SHARES, PROBABILITIES = [0.5, 0.7, 0.9], [0.05, 0.1, 0.2, 0.3]  # grids of thresholds for raw and for calibrated evidence
EVERYTHING = 10**6  # edits a row


def parse_args(argv=None):
    parser = make_parser(__doc__, several=True)
    parser.set_defaults(seeds=5)
    add, share, count = parser.add_argument, ranged(float, 0, 1), ranged(int, 1)
    for part in ("train", "test"):
        add(f"--{part}_thresholds", type=share, nargs="*", help=f"grid for {part} rows; none given: not edited")
        add(f"--{part}_caps", type=count, nargs="*", help=f"grid of most edits in {part} rows")
    args = parser.parse_args(argv)
    for model in args.model:
        check_args(parser, with_settings(args, model=model))
    fixed = {"--denoise_category", "--clean", "--state_dict_path", "--select_on"}
    fixed |= {f"--{name}" for part in ("train", "test") for name in (f"{part}_noise_filter_threshold", f"{part}_max_denoise_num")}
    given = fixed & {argument.split("=")[0] for argument in (argv if argv is not None else sys.argv[1:])}
    if given:
        parser.error(f"{sorted(given)[0]}: sweep.py decides it")
    if "raw" in args.evidence and len(args.evidence) > 1:
        parser.error("--evidence raw has shares for thresholds, the others have probabilities: sweep it by itself")
    raw = args.evidence == ["raw"]  # of which the language model lists three suspects a row
    grids = {"thresholds": SHARES if raw else PROBABILITIES, "caps": [1, 3] if raw else [6]}
    for part, (name, values) in product(("train", "test"), grids.items()):
        if getattr(args, f"{part}_{name}") is None:
            setattr(args, f"{part}_{name}", values)
    return args


def grid(args, part: str) -> list[dict]:
    """Settings of the filter for one part; the first edits nothing."""
    names = f"{part}_noise_filter_threshold", f"{part}_max_denoise_num"
    thresholds, caps = getattr(args, f"{part}_thresholds"), getattr(args, f"{part}_caps")
    return [dict(zip(names, values)) for values in [(1.0, 0), *product(thresholds, caps)]]


class Bench:
    """Rows, and what was trained on them: ranks of any edits by any model and seed."""

    def __init__(self, args, splits: dict, n_items: int):
        from training import choose_device

        self.args, self.splits, self.n_items, self.device = args, splits, n_items, choose_device(args)
        self.seeds = range(args.seed, args.seed + args.seeds)

    def edited(self, arm, weights: dict, replacer, names) -> dict:
        """{split: windows (N, L + 1)} of these splits, filtered as the arm says."""
        import torch
        from filter import denoise

        weights = {name: weight for name, weight in weights.items() if name in names}
        rows = denoise(self.splits, weights, arm, replacer)
        return {name: torch.from_numpy(rows[name]).to(self.device) for name in names}

    def selection(self, arm):
        """The windows (N, L + 1) that choose the epoch."""
        import torch
        from filter import selection_windows

        return torch.from_numpy(selection_windows(self.splits, {}, arm)).to(self.device)

    def ranks(self, train, chosen, evaluated, seed: int) -> list[np.ndarray]:
        """Ranks (N, 2) for each of some windows, by a model trained on train, its epoch chosen by the windows chosen."""
        from ranking import rank_targets
        from training import trained

        model, *_ = trained(train, chosen, self.n_items, self.args, seed, self.device)
        return [rank_targets(model, rows[:, :-1], rows[:, -1]) for rows in evaluated]

    def test(self, arm, draws: list[dict], replacer, train: list | None = None) -> np.ndarray:
        """Ranks (S, N, 2) of test at the one setting of the arm; draws: the weights of each seed, or one for all.

        train: the train windows of each draw, where `choose` has made them.
        """
        train, test = train or self.of_draws("train", arm, draws, replacer), self.of_draws("test", arm, draws, replacer)
        chosen = self.selection(arm)
        return np.stack(
            [self.ranks(one, chosen, [other], seed)[0] for seed, one, other in zip(self.seeds, cycle(train), cycle(test))]
        )

    def of_draws(self, part: str, arm, draws: list[dict], replacer) -> list:
        """The windows of one split, edited with each of these weights."""
        return [self.edited(arm, weights, replacer, (part,))[part] for weights in draws]


def choose(bench: Bench, arm, draws: list[dict], replacer) -> tuple[list[dict], dict, list]:
    """(a row a setting, with its NDCG@20 on valid; the best setting; its train windows by draw); draws as in `Bench.test`."""
    from ranking import ndcg_per_row

    rows, noisy, best = [], bench.selection(arm), -1.0
    tests = grid(arm, "test")
    valid = zip(*(bench.of_draws("valid", with_settings(arm, **test), draws, replacer) for test in tests))
    valid = list(valid)  # [draw][setting]
    for train in grid(arm, "train"):
        windows_of = bench.of_draws("train", with_settings(arm, **train), draws, replacer)
        each = zip(bench.seeds, cycle(windows_of), cycle(valid))
        by_seed = [bench.ranks(windows, noisy, evaluated, seed) for seed, windows, evaluated in each]
        for place, test in enumerate(tests):
            ndcg = float(np.mean([ndcg_per_row(ranks[place]).mean() for ranks in by_seed]))
            rows.append({**train, **test, "valid NDCG@20": ndcg})
            if ndcg > best:
                best, setting, chosen = ndcg, {**train, **test}, windows_of
    return rows, setting, chosen


def arms(bench: Bench, weights: dict, replacer) -> tuple[list[dict], dict, dict]:
    """(rows of `choose`, {arm: its setting}, {arm: ranks (S, N, 2) of test}) of every kind of evidence with every edit."""
    from comparison import AT_RANDOM
    from filter import shuffled

    args = bench.args
    tried, chosen, runs = [], {}, {"noisy": bench.test(args, [{}], None)}

    def elsewhere(evidence: str, edit: str) -> bool:
        """Other places can be edited in the same way: the language model lists its suspects and has replacements for these alone."""
        return evidence != "raw" and (replacer is not None or edit == "delete")

    # as the evidence says, and the same with its probabilities at random places: what edits alone are worth, chosen as well
    for evidence, edit in product(args.evidence, args.edit):
        arm, name = with_settings(args, evidence=evidence, edit=edit), f"{evidence}, {edit}"
        known = {name: [weights[evidence]]}
        if elsewhere(evidence, edit):
            known[name + AT_RANDOM] = [
                {split: shuffled(bench.splits[split], prob, draw) for split, prob in weights[evidence].items()}
                for draw in range(args.seeds)
            ]
        for name, draws in known.items():
            rows, chosen[name], train = choose(bench, arm, draws, replacer)
            tried += [{"rows": name} | row for row in rows]
            runs[name] = bench.test(with_settings(arm, **chosen[name]), draws, replacer, train)
    if "oracle" not in weights:
        return tried, chosen, runs
    # the right places, and clean rows
    thresholds = {f"{part}_noise_filter_threshold": 0.5 for part in ("train", "test")}
    everything = thresholds | {f"{part}_max_denoise_num": EVERYTHING for part in ("train", "test")}
    for edit in args.edit:
        if elsewhere("oracle", edit):
            oracle = with_settings(args, evidence="oracle", edit=edit, **everything)
            runs[f"oracle, {edit}"] = bench.test(oracle, [weights["oracle"]], replacer)
    runs["clean"] = bench.test(with_settings(args, clean=True), [{}], None)
    return tried, chosen, runs


def draw(path: Path, report: list[dict]) -> None:
    """Share of the gap between noisy and clean that each arm wins back, with its interval."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from page import save_figure

    rows = [row for row in reversed(report) if "gap won back" in row]
    figure, axes = plt.subplots(figsize=(6.4, 0.9 + 0.3 * len(rows)))
    for place, row in enumerate(rows):
        mean, (low, high) = row["gap won back"]["mean"], row["gap won back"]["interval_95"]
        colour = "0.6" if "random" in row["rows"] else "#d1495b" if "oracle" not in row["rows"] else "#3b6fb6"
        axes.plot([100 * low, 100 * high], [place, place], color=colour, linewidth=2)
        axes.plot(100 * mean, place, "o", color=colour)
    axes.axvline(0, color="0.8", linewidth=1)
    axes.axvline(100, color="0.8", linewidth=1, linestyle=":")
    axes.set_yticks(range(len(rows)), [f"{row['model']}: {row['rows']}" for row in rows], fontsize=8)
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_xlabel("share of the gap from noisy to clean rows, %")
    save_figure(figure, path)


def main(argv=None) -> dict:
    args = parse_args(argv)
    with input_errors(__file__):
        return sweep(args)


def sweep(args) -> dict:
    import pandas as pd
    from comparison import BESIDE, compare, table
    from filter import FILTERED, check_replacements, make_replacer, read_sources, weigh
    from rows import load
    from rows import rows_fingerprint as fingerprint
    from training import choose_device, warn_of_busy_cores

    # 1. rows, what is suspected in them by each kind of evidence, and what could stand there instead
    warn_of_busy_cores(choose_device(args))
    args = with_settings(args, denoise_category="all" if args.train_thresholds else "test", select_on="valid")
    data = fingerprint(args, FILTERED[args.denoise_category])
    splits, n_items = load(args, FILTERED[args.denoise_category])
    replacing = with_settings(args, edit="replace" if "replace" in args.edit else "delete")
    check_replacements(splits, replacing)
    known = any((split.items != split.clean).any() for split in splits.values())
    sources = None
    if args.evidence != ["raw"]:
        sources = read_sources(args.data_root / args.dataset, splits["train"], n_items, args.maxlen)
        for kind in args.evidence:
            sources.parts(kind)  # refuses what the folder has not, before the first kind is learned
    weights = {
        kind: weigh(splits, n_items, with_settings(args, evidence=kind), sources)
        for kind in (*args.evidence, *(["oracle"] if known else []))
    }
    replacer = make_replacer(splits, n_items, replacing)

    # 2. what each model makes of them
    tried, chosen, report = [], {}, []
    for model in args.model:
        rows, chosen[model], runs = arms(Bench(of_model(args, model), splits, n_items), weights, replacer)
        tried += [{"model": model} | row for row in rows]
        report += [{"model": model} | row for row in compare(splits["test"].users, runs)]

    # 3. a table, a figure
    folder = output_folder(args, data, "sweep_")
    folder.mkdir(parents=True, exist_ok=True)
    with write_atomically(folder / "sweep.csv") as file:
        pd.DataFrame(tried).to_csv(file, index=False)
    result = {
        "arguments": settings(args),
        "data_fingerprint": data,
        "chosen": chosen,
        "seeds": list(range(args.seed, args.seed + args.seeds)),
        "report": report,
    }
    write_json(folder / "report.json", result)
    with write_atomically(folder / "report.md") as file:
        file.write_text(table(report, ("model", "rows", "HR@20", "NDCG@20", *BESIDE)), encoding="utf-8")
    if any("gap won back" in row for row in report):
        draw(folder / "gap.png", report)
    for model, settings_of in chosen.items():
        print(f"{model}, chosen on valid:", *(f"{name}: {setting}" for name, setting in settings_of.items()), sep="\n  ")
    print(table(report, ("model", "rows", "NDCG@20", "difference", "gap won back")) + f"wrote {folder}")
    return result


if __name__ == "__main__":
    main()
