"""Stage 3: train a recommender on noisy or threshold-filtered windows and rank the whole catalogue.

Reads   data/<dataset>/: a data set folder, or the denoised folder that generate_denoised.py made of it
Writes  SASRec_code/output/<dataset>/<settings>/: run.json, seed<seed>.safetensors, test_ranks.npz
        (what compare.py compares), TensorBoard curves. Trained models are kept in models/ beside that: a killed run goes on

The epoch is chosen by the NDCG@20 of valid with the histories as they are, noisy or with --clean clean, as in sweep.py:
a row of a sweep's table is what its settings give here. What is edited in valid and test histories trains nothing.

    python main.py --dataset ML100K_noise_user0.1 --denoise_category none --num_epochs 3
    python main.py --dataset Toy_denoise_user0.1_5000_2000 --denoise_category all --train_noise_filter_threshold 0.6 \
        --test_noise_filter_threshold 0.9 --train_max_denoise_num 2 --test_max_denoise_num 1
"""

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where denoise_code lies
from options import check_args, link_or_copy, make_parser, output_folder, settings

from denoise_code.common.errors import input_errors
from denoise_code.common.files import save_arrays, write_json


def parse_args(argv=None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--where", action="store_true", help="print the output folder and stop")
    return check_args(parser, parser.parse_args(argv))


def main(argv=None) -> dict:
    args = parse_args(argv)
    with input_errors(__file__):
        return experiment(args)


def experiment(args) -> dict:
    """Runs all seeds and returns what run.json holds."""
    import numpy as np
    import torch
    from comparison import MEASURED, summarise, table
    from filter import FILTERED, check_replacements, denoise, make_replacer, selection_windows, weigh
    from ranking import metrics, rank_targets
    from rows import load
    from rows import rows_fingerprint as fingerprint
    from training import choose_device, load_weights, make_model, peak_memory_gib, trained, warn_of_busy_cores

    # 1. rows, filtered
    data = fingerprint(args, FILTERED[args.denoise_category])
    folder = output_folder(args, data, "")
    if args.where:
        print(folder)
        return {}
    device = choose_device(args)
    warn_of_busy_cores(device)
    splits, n_items = load(args, FILTERED[args.denoise_category])
    check_replacements(splits, args)
    weights, replacer = weigh(splits, n_items, args), make_replacer(splits, n_items, args)
    folder.mkdir(parents=True, exist_ok=True)

    # 2. one model a seed; test is looked at once, with the weights that valid chose
    fits, ranks = [], {"valid": [], "test": []}
    for draw, seed in enumerate(range(args.seed, args.seed + args.seeds)):
        if draw == 0 or args.evidence == "random":  # other places for each seed
            edited = denoise(splits, weights, args, replacer, draw)
            tensors = {name: torch.from_numpy(windows).to(device) for name, windows in edited.items()}
            selection = torch.from_numpy(selection_windows(splits, edited, args)).to(device)  # (N, L + 1)
        if args.state_dict_path:
            model = make_model(n_items, args, seed, device)
            load_weights(model, args.state_dict_path)
        else:
            curves = folder / f"tensorboard_seed{seed}"
            model, record, kept = trained(tensors["train"], selection, n_items, args, seed, device, curves)
            fits.append({"seed": seed} | record)
            link_or_copy(kept, folder / f"seed{seed}.safetensors")
        for split, by_seed in ranks.items():
            windows = tensors[split]
            by_seed.append(rank_targets(model, windows[:, :-1], windows[:, -1]))
        if args.state_dict_path:
            break

    # 3. what came of it
    results = {split: [metrics(of_seed) for of_seed in by_seed] for split, by_seed in ranks.items()}
    run = {
        "arguments": settings(args),
        "data_fingerprint": data,
        "rows": {name: len(windows) for name, windows in tensors.items()},
        "n_items": n_items,
        "versions": {name: version(name) for name in ("torch", "numpy")},
        "device": str(device),
        "fits": fits,
        "per_seed": results,
        "metrics": {split: summarise(values) for split, values in results.items()},
        "peak_memory_gib": round(peak_memory_gib(device), 3),  # of the device
    }
    test = splits["test"]
    save_arrays(folder / "test_ranks.npz", users=test.users.astype(str), targets=test.items[:, -1], ranks=np.stack(ranks["test"]))
    write_json(folder / "run.json", run)
    print(table([{"rows": split, **measured} for split, measured in run["metrics"].items()], ("rows", *MEASURED)))
    print(
        f"wrote {folder}; {sum(fit['seconds'] for fit in fits):.0f} s of training, peak memory {run['peak_memory_gib']} GiB ({device})"
    )
    return run


if __name__ == "__main__":
    main()
