"""The options that the scripts share, errors that a user can act on, files that are whole or absent. Knows nothing of data and models."""

import argparse
import hashlib
import json
import os
import shutil
from pathlib import Path

from denoise_code.common.errors import Parser
from denoise_code.common.files import write_atomically
from denoise_code.common.options import ranged

ROOT = Path(__file__).resolve().parent
KINDS = ("raw", "llm", "collaborative", "semantic", "collaborative+semantic", "fused", "random", "oracle")
PAPER = {  # width, blocks, heads and dropout of each model's paper; SASRec as in the release
    "SASRec": {"hidden_units": 64, "num_blocks": 2, "num_heads": 1, "dropout_rate": 0.5},
    "GRU4Rec": {"hidden_units": 100, "num_blocks": 1, "num_heads": 1, "dropout_rate": 0.5},
    "BERT4Rec": {"hidden_units": 64, "num_blocks": 2, "num_heads": 2, "dropout_rate": 0.2},
}
CONTROLS = ("random", "oracle")
EDITS = ("replace", "delete")
PLACES = ("data_root", "output_root", "device", "cuda", "where")  # where it ran, not what


def filter_parser(description: str, several: bool = False) -> argparse.ArgumentParser:
    """Which rows, and what the filter makes of them: the options of export.py, and a part of everyone else's.

    several: of what sweep.py compares.
    """
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add, count, share = parser.add_argument, ranged(int, 0), ranged(float, 0, 1)
    add("--dataset", required=True, help="folder below --data_root")
    add("--data_root", type=Path, default=ROOT.parent / "data")
    add("--output_root", type=Path, default=ROOT / "output")
    add("--maxlen", type=ranged(int, 1), default=10, help="longest history")
    add("--denoise_category", choices=["none", "train", "test", "all"], default="none", help="rows to filter; test: valid too")
    add(
        "--train_noise_filter_threshold",
        type=share,
        default=0.9,
        help="train rows; raw: share of positions below the threshold, "
        "other evidence: the probability above which an item is edited (0.1 to 0.3; 0.9 is hardly ever reached)",
    )
    add("--test_noise_filter_threshold", type=share, default=0.9, help="the same for the histories of valid and test rows")
    add("--train_max_denoise_num", type=count, default=3, help="most edits in a train row")
    add("--test_max_denoise_num", type=count, default=3, help="most edits in a history of valid or test")
    add(
        "--threshold_from",
        choices=["valid", "split"],
        default="valid",
        help="raw: rows whose percentile is taken for test (release: split)",
    )
    kinds = [kind for kind in KINDS if not (several and kind in CONTROLS)]
    some = {"nargs": "+"} if several else {}
    add("--evidence", choices=kinds, default=["raw"] if several else "raw", **some, help="raw: noise_prob, thresholds are shares "
        "(paper); calibrated probabilities (denoise_code/evidence): llm, …, fused of all that the folder has; for comparison random: fused "
        "at random places, oracle: the injected noise itself")  # fmt: skip
    add(
        "--edit",
        choices=EDITS,
        default=["replace"] if several else "replace",
        **some,
        help="what has no replacement is deleted either way",
    )
    add(
        "--replace_with",
        choices=["suggested", "neighbours"],
        default="suggested",
        help="suggested: by the language model (paper); neighbours: what goes with the rest of the window (denoise_code/neighbours.py)",
    )
    add("--clean", action="store_true", help="the rows before noise was injected: the upper bound of denoising")
    return parser


def of_paper(name: str) -> str:
    return ", ".join(f"{values[name]} ({model})" for model, values in PAPER.items())


def make_parser(description: str, several: bool = False) -> argparse.ArgumentParser:
    """The same, and how the recommender is trained: the options of main.py and sweep.py."""
    parser = filter_parser(description, several)
    add, count = parser.add_argument, ranged(int, 0)
    add("--model", choices=[*PAPER], default=["SASRec"] if several else "SASRec", **({"nargs": "+"} if several else {}))
    add("--batchsize", type=ranged(int, 1), default=256)
    add("--lr", type=ranged(float, 1e-9), default=0.001)
    add("--hidden_units", type=ranged(int, 1), help=f"default: {of_paper('hidden_units')}")
    add("--num_blocks", type=ranged(int, 1), help=f"default: {of_paper('num_blocks')}")
    add("--num_heads", type=ranged(int, 1), help=f"default: {of_paper('num_heads')}")
    add("--num_epochs", type=ranged(int, 1), default=201)
    add("--dropout_rate", type=ranged(float, 0, 0.99), help=f"default: {of_paper('dropout_rate')}")
    add("--weight_decay", type=ranged(float, 0), default=0.0)
    add("--seed", type=count, default=2024)
    add("--seeds", type=ranged(int, 1), default=1, help="runs of consecutive seeds; mean and spread are reported")
    add("--loss", choices=["bce", "ce"], default="bce", help="bce: one negative a position (release); ce: whole catalogue")
    add("--select_on", choices=["valid", "test"], default="valid", help="split whose NDCG@20 picks the epoch (release: test)")
    add("--patience", type=ranged(int, 1), default=10, help="epochs without a better NDCG@20 before stopping")
    add("--state_dict_path", type=Path, help="evaluate these weights, train nothing")
    add("--device", help="cpu, cuda, cuda:1, … (default: the GPU --cuda where there is one)")
    add("--cuda", type=count, default=0, help="number of the GPU")
    return parser


def check_filter(parser, args) -> argparse.Namespace:
    """Refuse what contradicts itself before anything is read."""
    if args.clean and args.denoise_category != "none":
        parser.error("--clean has nothing to denoise: use it with --denoise_category none")
    if args.evidence in CONTROLS and args.edit == "replace" and args.replace_with == "suggested":
        parser.error(
            f"--evidence {args.evidence} edits other places than the language model suggested replacements for: use it with "
            "--edit delete or --replace_with neighbours"
        )
    return args


def with_settings(args, **changed) -> argparse.Namespace:
    return argparse.Namespace(**(vars(args) | changed))


def of_model(args, model: str) -> argparse.Namespace:
    """The arguments for this model, with what its paper sets where nothing is given."""
    return with_settings(args, model=model, **{key: value for key, value in PAPER[model].items() if getattr(args, key) is None})


def check_args(parser, args) -> argparse.Namespace:
    args = of_model(args, args.model)
    if args.model == "BERT4Rec" and args.loss == "bce":
        parser.error("--model BERT4Rec predicts masked items over the whole catalogue: use it with --loss ce")
    if args.hidden_units % args.num_heads:
        parser.error(f"--hidden_units {args.hidden_units} is not a multiple of --num_heads {args.num_heads}")
    if args.state_dict_path and not args.state_dict_path.is_file():
        parser.error(f"--state_dict_path {args.state_dict_path}: no such file")
    return check_filter(parser, args)


def settings(args) -> dict:
    """The arguments that shape the result."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items() if key not in PLACES}


def output_folder(args, data: str, kind: str) -> Path:
    """A folder for these settings on these rows: the same command writes the same results to the same place."""
    digest = hashlib.sha256(json.dumps([settings(args), data], sort_keys=True).encode()).hexdigest()[:10]
    return args.output_root / args.dataset / f"{kind}{'clean' if args.clean else args.denoise_category}_{digest}"


def link_or_copy(source: Path, target: Path) -> None:
    """`source` under a second name, which takes no space; a copy where the file system has no hard links.

    Both stay whole if one is removed, and neither is ever written to: files are made beside their name and renamed.
    """
    with write_atomically(target) as partial:
        try:
            os.link(source, partial)
        except OSError:
            shutil.copyfile(source, partial)
