"""Choose thresholds and edit caps on valid, then compare noisy, denoised and clean once on test.

Reads   data/<dataset>/, a folder that generate_denoised.py made
Writes  SASRec_code/output/<dataset>/sweep_<evidence>_<edit>/: sweep.csv (a row a setting), report.json, thresholds.png

A model is trained once for each train setting and seed, its epoch chosen by the NDCG@20 of valid with the noisy
histories; every test setting is then evaluated with it on valid. The best mean over seeds goes to test. Trained models
are kept and shared between sweeps, so that comparing kinds of evidence trains the noisy model once.

    python sweep.py --dataset ML100K_denoise_user0.1_2400_600 --train_thresholds --test_thresholds 0.5 0.9 --seeds 3
    python sweep.py --dataset Toy_denoise_user0.1_5000_2000 --seeds 5
"""

import copy
import hashlib
import json
import sys
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
from options import ROOT, check_args, input_errors, make_parser, partial_path, ranged, settings, write_json

SHARES, PROBABILITIES = [0.5, 0.7, 0.9], [0.2, 0.3, 0.5]  # grids of thresholds for raw and for calibrated evidence


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.set_defaults(seeds=5)
    for part in ("train", "test"):
        share, count = ranged(float, 0, 1), ranged(int, 1)
        parser.add_argument(f"--{part}_thresholds", type=share, nargs="*", help=f"grid for {part} rows; none given: not edited")
        parser.add_argument(f"--{part}_caps", type=count, nargs="*", default=[1, 3], help=f"grid of most edits in {part} rows")
    args = check_args(parser, parser.parse_args(argv))
    fixed = {"--denoise_category", "--clean", "--state_dict_path", "--select_on"}
    fixed |= {f"--{name}" for part in ("train", "test") for name in (f"{part}_noise_filter_threshold", f"{part}_max_denoise_num")}
    given = fixed & {argument.split("=")[0] for argument in (argv if argv is not None else sys.argv[1:])}
    if given:
        parser.error(f"{sorted(given)[0]}: sweep.py decides it")
    for part in ("train", "test"):
        if getattr(args, f"{part}_thresholds") is None:
            setattr(args, f"{part}_thresholds", SHARES if args.evidence == "raw" else PROBABILITIES)
    return args


def grid(args, part: str) -> list[dict]:
    """Settings of the filter for one part; the first edits nothing."""
    names = f"{part}_noise_filter_threshold", f"{part}_max_denoise_num"
    thresholds, caps = getattr(args, f"{part}_thresholds"), getattr(args, f"{part}_caps")
    return [dict(zip(names, values)) for values in [(1.0, 0), *product(thresholds, caps)]]


def with_settings(args, **settings):
    changed = copy.copy(args)
    for key, value in settings.items():
        setattr(changed, key, value)
    return changed


def evaluate_settings(args, splits: dict, weights: dict, replacer, n_items: int) -> dict:
    """{(train setting, test setting, seed): {split: ranks (N,)}} by their places in the grids."""
    from evaluate import rank_targets
    from train import choose_device

    device, ranks = choose_device(args), {}
    tests = [windows_of(splits, weights, replacer, with_settings(args, **setting), device) for setting in grid(args, "test")]
    for t, setting in enumerate(grid(args, "train")):
        train = windows_of(splits, weights, replacer, with_settings(args, **setting), device, ("train",))["train"]
        for seed in range(args.seed, args.seed + args.seeds):
            model = trained(args, {"train": train, "valid": tests[0]["valid"]}, n_items, seed, device)
            for e, evaluated in enumerate(tests):
                ranks[t, e, seed] = {
                    split: rank_targets(model, evaluated[split][:, :-1], evaluated[split][:, -1], args.exclude_history)
                    for split in ("valid", "test")
                }
    return ranks


def trained(args, tensors: dict, n_items: int, seed: int, device):
    """A model fitted to these windows, or its weights from an earlier sweep over the same windows and settings."""
    from safetensors.torch import save_file
    from train import fit, load_weights, make_model

    shaping = ("batchsize lr hidden_units num_blocks num_heads num_epochs dropout_rate weight_decay maxlen loss patience").split()
    options = [seed, n_items, version("torch"), str(device), args.model, args.exclude_history]
    digest = hashlib.sha256(json.dumps([*options, *(getattr(args, name) for name in shaping)]).encode())
    for code in ("model.py", "train.py"):
        digest.update((ROOT / code).read_bytes())
    for tensor in tensors.values():
        digest.update(tensor.cpu().numpy().tobytes())
    path = args.output_root / args.dataset / "models" / f"{digest.hexdigest()[:16]}.safetensors"
    model = make_model(n_items, args, seed, device)
    if path.exists():
        print(f"seed {seed}: trained before, {path.name}")
        load_weights(model, path)
        return model
    fit(model, tensors, args, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    save_file(model.state_dict(), partial)
    partial.replace(path)
    return model


def windows_of(splits: dict, weights: dict, replacer, args, device, names=("valid", "test")) -> dict:
    import torch
    from filter import denoise

    edited = denoise({name: splits[name] for name in names}, weights, args, replacer)
    return {name: torch.from_numpy(windows).to(device) for name, windows in edited.items()}


def clean_ranks(args, splits: dict, n_items: int) -> dict | None:
    """{split: {seed: ranks (N,)}} trained and evaluated on the rows before noise; None where they are not known."""
    from dataloader import SPLITS
    from evaluate import rank_targets
    from train import choose_device

    if all((split.items == split.clean).all() for split in splits.values()):
        return None
    device = choose_device(args)
    tensors = windows_of(splits, {}, None, with_settings(args, clean=True), device, SPLITS)
    ranks = {"valid": {}, "test": {}}
    for seed in range(args.seed, args.seed + args.seeds):
        model = trained(args, {name: tensors[name] for name in ("train", "valid")}, n_items, seed, device)
        for split, by_seed in ranks.items():
            by_seed[seed] = rank_targets(model, tensors[split][:, :-1], tensors[split][:, -1], args.exclude_history)
    return ranks


def compare(name: str, per_seed: list[np.ndarray], noisy: list[np.ndarray], users: np.ndarray) -> dict:
    """Metrics of one row of the report, and its difference to the noisy run with a paired bootstrap over users."""
    from evaluate import metrics, ndcg_per_row, paired_bootstrap, summarise

    ours, theirs = (np.mean([ndcg_per_row(ranks) for ranks in runs], axis=0) for runs in (per_seed, noisy))
    difference, low, high = paired_bootstrap(users, theirs, ours)
    return {
        "rows": name,
        **summarise([metrics(ranks) for ranks in per_seed]),
        "NDCG@20 difference": difference,
        "interval_95": [low, high],
        "relative_change": difference / max(theirs.mean(), 1e-12),
    }


def draw(path: Path, table, noisy: float, clean: float | None) -> None:
    """NDCG@20 of valid against the test threshold, one line a cap, with the spread over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.6, 3.8), dpi=200)
    best = table.loc[table["valid NDCG@20"].idxmax()]
    same_train = table[(table.train == best.train) & (table.test > 0)].sort_values("test_threshold")
    for place, (cap, line) in enumerate(same_train.groupby("test_cap")):
        beside = line.test_threshold + 0.004 * place  # bars of one threshold stand side by side
        label = f"at most {cap:.0f} edit{'s' if cap > 1 else ''}"
        axes.errorbar(beside, line["valid NDCG@20"], line["valid std"], marker="o", capsize=3, label=label)
    axes.axhline(noisy, color="0.4", linestyle="--", label="noisy")
    if clean is not None:
        axes.axhline(clean, color="0.4", linestyle=":", label="clean")
    axes.set(xlabel="threshold of the history filter", ylabel="valid NDCG@20, mean ± std over seeds")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=5, loc="lower center", bbox_to_anchor=(0.45, 1.0), columnspacing=1.0)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def main(argv=None) -> dict:
    args = parse_args(argv)
    with input_errors(__file__):
        return sweep(args)


def sweep(args) -> dict:
    import pandas as pd
    from dataloader import fingerprint, input_files, load
    from evaluate import ndcg_per_row
    from filter import FILTERED, make_replacer, weigh

    # 1. every setting on valid
    args = with_settings(args, denoise_category="all" if args.train_thresholds else "test", select_on="valid")
    splits, n_items = load(args, FILTERED[args.denoise_category])
    found = weigh(splits, n_items, args), make_replacer(splits, n_items, args)
    ranks = evaluate_settings(args, splits, *found, n_items)
    seeds = range(args.seed, args.seed + args.seeds)
    rows = []
    for (t, train), (e, test) in product(enumerate(grid(args, "train")), enumerate(grid(args, "test"))):
        ndcg = [ndcg_per_row(ranks[t, e, seed]["valid"]).mean() for seed in seeds]
        names = ("train_threshold", "train_cap", "test_threshold", "test_cap")
        rows.append(
            dict(zip(names, [*train.values(), *test.values()]))
            | {"valid NDCG@20": np.mean(ndcg), "valid std": np.std(ndcg, ddof=1) if len(ndcg) > 1 else 0.0, "train": t, "test": e}
        )
    table = pd.DataFrame(rows)

    # 2. the best of them once on test, beside the noisy rows and the clean ones
    best = table.loc[table["valid NDCG@20"].idxmax()]
    users = splits["test"].users
    noisy = [ranks[0, 0, seed]["test"] for seed in seeds]
    report = [
        compare("noisy", noisy, noisy, users),
        compare("denoised", [ranks[int(best.train), int(best.test), seed]["test"] for seed in seeds], noisy, users),
    ]
    clean = clean_ranks(args, splits, n_items)
    if clean:
        report.append(compare("clean", list(clean["test"].values()), noisy, users))

    # 3. a table, a figure
    folder = args.output_root / args.dataset / f"sweep_{args.evidence}_{args.edit}"
    folder.mkdir(parents=True, exist_ok=True)
    table.drop(columns=["train", "test"]).to_csv(folder / "sweep.csv", index=False)
    chosen = {key: float(best[key]) for key in ("train_threshold", "train_cap", "test_threshold", "test_cap")}
    clean_level = np.mean([ndcg_per_row(by_seed) for by_seed in clean["valid"].values()]) if clean else None
    draw(folder / "thresholds.png", table, table["valid NDCG@20"][0], clean_level)
    result = {
        "arguments": settings(args),
        "data_fingerprint": fingerprint(input_files(splits, args)),
        "chosen": chosen,
        "seeds": list(seeds),
        "report": report,
    }
    write_json(folder / "report.json", result)
    print("chosen on valid:", chosen)
    for row in report:
        ndcg, (low, high) = row["NDCG@20"], row["interval_95"]
        print(
            f"{row['rows']:9s} test NDCG@20 {ndcg['mean']:.4f}±{ndcg['std']:.4f}  HR@20 {row['HR@20']['mean']:.4f}  "
            f"difference {row['NDCG@20 difference']:+.4f} [{low:+.4f}, {high:+.4f}] ({row['relative_change']:+.1%})"
        )
    print(f"wrote {folder}")
    return result


if __name__ == "__main__":
    main()
