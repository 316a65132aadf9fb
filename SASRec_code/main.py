r"""Stage 3: train a recommender on noisy or threshold-filtered windows and rank the whole catalogue.

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
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where denoise_code lies
from options import (
    FilterOptions,
    RecommenderOptions,
    RowsOptions,
    TrainingOptions,
    check_args,
    make_parser,
    models_folder,
    output_folder,
    settings,
)

from denoise_code.common.errors import input_errors
from denoise_code.common.files import fingerprint


def parse_args(argv=None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--where", action="store_true", help="print the output folder and stop (default: run)")
    return check_args(parser, parser.parse_args(argv))


def main(argv=None) -> dict:
    args = parse_args(argv)
    with input_errors(__file__):
        return run(args)


def run(args: argparse.Namespace) -> dict:
    """Runs all seeds and returns what run.json holds."""
    from experiment import Experiment, read_rows, write_results
    from rows import rows_fingerprint, with_maxlen
    from training import Trainer, choose_device, warn_of_busy_cores

    # 1. Where the results go
    args = with_maxlen(args)
    rows_options = RowsOptions.from_arguments(args)
    data_fingerprint = rows_fingerprint(rows_options)
    fingerprint_of_weights = fingerprint(args.state_dict_path) if args.state_dict_path else ""
    folder = output_folder(args, data_fingerprint + fingerprint_of_weights, "")
    if args.where:
        print(folder)
        return {}
    device = choose_device(args.device, args.cuda)
    warn_of_busy_cores(device)

    # 2. The rows, and what the filter knows of them
    rows = read_rows(rows_options, FilterOptions.from_arguments(args))
    folder.mkdir(parents=True, exist_ok=True)

    # 3. One model a seed; test is looked at once, with the weights that valid chose
    recommender, training = RecommenderOptions.from_arguments(args, args.model), TrainingOptions.from_arguments(args)
    experiment = Experiment(rows, Trainer(rows.loaded.n_items, recommender, training, device, models_folder(args)), folder)
    if args.state_dict_path:
        outcomes = [experiment.evaluate(args.state_dict_path, args.seed)]
    else:
        outcomes = [experiment.train_and_rank(seed, draw) for draw, seed in enumerate(range(args.seed, args.seed + args.seeds))]

    # 4. What came of it
    return write_results(folder, settings(args), data_fingerprint, rows, device, outcomes)


if __name__ == "__main__":
    main()
