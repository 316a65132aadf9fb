r"""Compare kinds of evidence, edits and recommenders: settings chosen on valid, then each once on test beside noisy, random and clean.

Reads   data/<dataset>/: a data set folder, or one that generate_denoised.py made of it
Writes  SASRec_code/output/<dataset>/sweep_<settings>/: sweep.csv (a row a setting, valid only), report.json, report.md,
        gap.png (share of the way from noisy to clean)

A model is trained once for each train setting and seed. Its epoch is chosen by the NDCG@20 of valid with the histories as
they are, noisy or, of clean rows, clean, as in main.py: that gives for a row's settings what stands in the row. Every test
setting is then evaluated with this model on valid. The best mean over seeds goes to test, and beside it, where other places
can be edited alike, the same with the probabilities at random places, drawn anew for each seed, its settings chosen in the
same way. Trained models are kept and shared with other sweeps and main.py: a killed sweep goes on where it was.

    python sweep.py --dataset ML100K_denoise_user0.1_0 --evidence collaborative --edit delete --train_thresholds 0.3 --seeds 3
    python sweep.py --dataset Toy_denoise_user0.1_0 --evidence collaborative semantic fused --edit delete replace \
        --model SASRec GRU4Rec --loss ce --batchsize 1024 --lr 0.002
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where denoise_code lies
from options import (
    NO_CAP,
    FilterOptions,
    RecommenderOptions,
    RowsOptions,
    TrainingOptions,
    check_args,
    make_parser,
    models_folder,
    output_folder,
    settings,
    with_settings,
)

from denoise_code.common.errors import input_errors
from denoise_code.common.files import save_figure, write_atomically, write_json
from denoise_code.common.options import positive, ranged

SHARES, PROBABILITIES = [0.5, 0.7, 0.9], [0.1, 0.2, 0.3, 0.5]  # grids of thresholds for raw and for calibrated evidence
CAPS_OF_RAW, CAPS = [1, 3], [NO_CAP]  # grids of most edits a row; the language model lists three suspects a row
DECIDED_HERE = (
    "--clean",
    "--denoise_category",
    "--select_on",
    "--state_dict_path",
    "--test_max_denoise_num",
    "--test_noise_filter_threshold",
    "--train_max_denoise_num",
    "--train_noise_filter_threshold",
)


def parse_args(argv=None) -> argparse.Namespace:
    parser = make_parser(__doc__, several=True)
    parser.epilog = f"Decided by sweep.py, and refused where they are given: {', '.join(DECIDED_HERE)}."
    add = parser.add_argument_group("grids").add_argument
    for part in ("train", "test"):
        add(
            f"--{part}_thresholds",
            type=ranged(float, 0, 1),
            nargs="*",
            help=f"thresholds to try for {part} rows; no value: they stay as they are (default: 0.5 0.7 0.9 of raw, else 0.1 0.2 0.3 0.5)",
        )
        add(
            f"--{part}_caps",
            type=positive,
            nargs="+",
            help=f"most edits in a row to try for {part} rows (default: 1 3 of raw, else no limit)",
        )
    args = parser.parse_args(argv)
    given = {argument.split("=")[0] for argument in (argv if argv is not None else sys.argv[1:])}
    for option in DECIDED_HERE:
        if option in given:
            parser.error(f"{option}: sweep.py decides it")
    if "raw" in args.evidence and len(args.evidence) > 1:
        parser.error("--evidence raw has shares for thresholds, the others have probabilities: sweep it by itself")
    if args.train_thresholds == [] and args.test_thresholds == []:
        parser.error("--train_thresholds and --test_thresholds without values: nothing would be edited")
    args = with_grids(args)
    for model in args.model:
        check_args(parser, with_settings(args, model=model))
    return args


def with_grids(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with the grids that stand where none is given."""
    is_raw = args.evidence == ["raw"]
    thresholds, caps = (SHARES, CAPS_OF_RAW) if is_raw else (PROBABILITIES, CAPS)
    defaults = {"train_thresholds": thresholds, "train_caps": caps, "test_thresholds": thresholds, "test_caps": caps}
    missing = {option: grid for option, grid in defaults.items() if getattr(args, option) is None}
    args = with_settings(args, **missing)
    return with_settings(args, denoise_category="all" if args.train_thresholds else "test", select_on="valid")


def main(argv=None) -> dict:
    args = parse_args(argv)
    with input_errors(__file__):
        return sweep(args)


def sweep(args: argparse.Namespace) -> dict:
    """Runs all arms of all models and returns what report.json holds."""
    from comparison import compare
    from experiment import describe_evidence
    from rows import load, rows_fingerprint, with_maxlen
    from training import choose_device, warn_of_busy_cores

    # 1. Rows
    device = choose_device(args.device, args.cuda)
    warn_of_busy_cores(device)
    args = with_maxlen(args)
    rows_options = RowsOptions.from_arguments(args)
    data_fingerprint = rows_fingerprint(rows_options)
    rows = load(rows_options)

    # 2. What is suspected in them by each kind of evidence
    probabilities = suspect(args, rows)

    # 3. What each model makes of them
    records, chosen, edits, compared = [], {}, {}, {}
    for model in args.model:
        results = run_model(args, model, rows, probabilities, device)
        chosen[model] = {arm: setting.as_options() for arm, setting in results.settings.items()}
        edits[model] = results.edits
        records += [{"model": model} | record for record in results.records]
        compared[model] = compare(rows.splits["test"].users, results.runs)

    # 4. Tables, a figure
    result = {
        "arguments": settings(args),
        "data_fingerprint": data_fingerprint,
        "evidence": {kind: describe_evidence(rows, FilterOptions.from_arguments(args, evidence=kind)) for kind in args.evidence},
        "chosen": chosen,
        "edits": edits,
        "seeds": list(range(args.seed, args.seed + args.seeds)),
        "report": [{"model": model} | run.as_row() for model, runs in compared.items() for run in runs],
    }
    folder = output_folder(args, data_fingerprint, "sweep_")
    write_results(folder, records, result)
    draw_arms(folder / "gap.png", compared)
    print_results(folder, result)
    return result


def suspect(args: argparse.Namespace, rows) -> dict:
    """{kind: probabilities by split}; refuses what the folder has not before anything is trained."""
    from filter import check_suggestions, weigh

    for edit in args.edit:
        for kind in args.evidence:
            check_suggestions(rows, FilterOptions.from_arguments(args, evidence=kind, edit=edit))
    noise_is_marked = any((split.items != split.clean).any() for split in rows.splits.values())
    kinds = [*args.evidence, *(["oracle"] if noise_is_marked else [])]
    return {kind: weigh(rows, FilterOptions.from_arguments(args, evidence=kind)) for kind in kinds}


def run_model(args: argparse.Namespace, model: str, rows, probabilities: dict, device):
    """bench.Results of one model."""
    from bench import Bench, Grids, grid, run_arms
    from training import Trainer

    recommender, training = RecommenderOptions.from_arguments(args, model), TrainingOptions.from_arguments(args)
    trainer = Trainer(rows.n_items, recommender, training, device, models_folder(args))
    grids = Grids(grid(args.train_thresholds, args.train_caps), grid(args.test_thresholds, args.test_caps))
    bench = Bench(rows, trainer, range(args.seed, args.seed + args.seeds), grids, probabilities)
    filtering = FilterOptions.from_arguments(args, evidence=args.evidence[0], edit=args.edit[0])
    return run_arms(bench, filtering, args.evidence, args.edit)


def write_results(folder: Path, records: list[dict], result: dict) -> None:
    """sweep.csv, report.json, report.md; records: a row a setting."""
    import pandas as pd
    from comparison import COMPARISONS, table

    folder.mkdir(parents=True, exist_ok=True)
    with write_atomically(folder / "sweep.csv") as file:
        pd.DataFrame(records).to_csv(file, index=False)
    write_json(folder / "report.json", result)
    with write_atomically(folder / "report.md") as file:
        columns = ("model", "rows", "HR@20", "NDCG@20", *COMPARISONS)
        file.write_text(table(result["report"], columns), encoding="utf-8")


def print_results(folder: Path, result: dict) -> None:
    from comparison import COMPARISONS, table

    for model, setting_of_arm in result["chosen"].items():
        print(f"{model}, chosen on valid:", *(f"{arm}: {setting}" for arm, setting in setting_of_arm.items()), sep="\n  ")
    columns = ("model", "rows", "NDCG@20", *COMPARISONS)
    print(table(result["report"], columns) + f"wrote {folder}")


def draw_arms(path: Path, compared: dict[str, list]) -> None:
    """Share of the gap between noisy and clean that each arm wins back, with its interval; no figure where no gap is shown.

    compared: {model: runs that `comparison.compare` compared}.
    """
    arms = [(model, run) for model, runs in compared.items() for run in runs if run.gap_won_back is not None][::-1]
    if not arms:
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from comparison import colour_of

    figure, axes = plt.subplots(figsize=(6.4, 0.9 + 0.3 * len(arms)))
    for height, (_, run) in enumerate(arms):
        mean, (low, high) = run.gap_won_back["mean"], run.gap_won_back["interval_95"]
        colour = colour_of(run.rows)
        axes.plot([100 * low, 100 * high], [height, height], color=colour, linewidth=2)
        axes.plot(100 * mean, height, "o", color=colour)
    axes.axvline(0, color="0.8", linewidth=1)
    axes.axvline(100, color="0.8", linewidth=1, linestyle=":")
    axes.set_yticks(range(len(arms)), [f"{model}: {run.rows}" for model, run in arms], fontsize=8)
    axes.set_ylim(-0.5, len(arms) - 0.5)
    axes.set_xlabel("share of the gap from noisy to clean rows, %")
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(path, figure)


if __name__ == "__main__":
    main()
