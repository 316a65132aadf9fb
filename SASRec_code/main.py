"""Stage 3: train SASRec on noisy or threshold-filtered windows and rank the whole catalogue.

Reads   data/<dataset>/: a data set folder, or the denoised folder that generate_denoised.py made of it
Writes  SASRec_code/output/<dataset>/<settings>/: run.json, seed<seed>.safetensors, TensorBoard curves

    python main.py --dataset ML100K_noise_user0.1 --denoise_category none --num_epochs 3
    python main.py --dataset Toy_denoise_user0.1_5000_2000 --denoise_category all --train_noise_filter_threshold 0.6 \
        --test_noise_filter_threshold 0.9 --train_max_denoise_num 2 --test_max_denoise_num 1
"""

import argparse
import hashlib
import json
import os
import resource
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent
SPLITS = ("train", "valid", "test")
FILTERED = {"none": (), "train": ("train",), "test": ("valid", "test"), "all": SPLITS}  # --denoise_category
PLACES = ("data_root", "output_root", "device", "cuda")  # where it ran, not what


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}\n")


def ranged(kind, low, high=float("inf")):
    def number(text: str):
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not in {low}..{high}")
        return value

    return number


def make_parser() -> argparse.ArgumentParser:
    """The options of the release and ours; sweep.py takes them too."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add, count, share = parser.add_argument, ranged(int, 0), ranged(float, 0, 1)
    add("--dataset", required=True, help="folder below --data_root")
    add("--data_root", type=Path, default=ROOT.parent / "data")
    add("--output_root", type=Path, default=ROOT / "output")
    add("--model", choices=["SASRec"], default="SASRec")
    add("--batchsize", type=ranged(int, 1), default=256)
    add("--lr", type=ranged(float, 1e-9), default=0.001)
    add("--hidden_units", type=ranged(int, 1), default=64)
    add("--num_blocks", type=ranged(int, 1), default=2)
    add("--num_heads", type=ranged(int, 1), default=1)
    add("--num_epochs", type=ranged(int, 1), default=201)
    add("--dropout_rate", type=ranged(float, 0, 0.99), default=0.5)
    add("--weight_decay", type=ranged(float, 0), default=0.0)
    add("--maxlen", type=ranged(int, 1), default=10, help="longest history")
    add("--seed", type=count, default=2024)
    add("--seeds", type=ranged(int, 1), default=1, help="runs of consecutive seeds; mean and spread are reported")
    add("--loss", choices=["bce", "ce"], default="bce", help="bce: one negative a position (release); ce: whole catalogue")
    add("--select_on", choices=["valid", "test"], default="valid", help="split whose NDCG@20 picks the epoch (release: test)")
    add("--patience", type=ranged(int, 1), default=10, help="epochs without a better NDCG@20 before stopping")
    add("--exclude_history", action="store_true", help="rank without the items of the history")
    add("--state_dict_path", type=Path, help="evaluate these weights, train nothing")
    add("--device", help="cpu, cuda, cuda:1, … (default: the GPU --cuda where there is one)")
    add("--cuda", type=count, default=0, help="number of the GPU")
    add("--denoise_category", choices=["none", "train", "test", "all"], default="none", help="rows to filter; test: valid too")
    add("--train_noise_filter_threshold", type=share, default=0.9, help="train rows: share of positions below the threshold")
    add("--test_noise_filter_threshold", type=share, default=0.9, help="the same for the histories of valid and test rows")
    add("--train_max_denoise_num", type=count, default=3, help="most edits in a train row")
    add("--test_max_denoise_num", type=count, default=3, help="most edits in a history of valid or test")
    add(
        "--threshold_from",
        choices=["valid", "split"],
        default="valid",
        help="rows of test's percentile (release: split)",
    )
    kinds = ["raw", "llm", "collaborative", "fused", "oracle"]
    add("--evidence", choices=kinds, default="raw", help="raw: noise_prob, thresholds are shares (paper); llm, collaborative, "
        "fused: calibrated probabilities (evidence.py); oracle: the injected noise itself, for analysis")  # fmt: skip
    add("--edit", choices=["replace", "delete"], default="replace", help="what has no replacement is deleted either way")
    add("--clean", action="store_true", help="the rows before noise was injected: the upper bound of denoising")
    return parser


def parse_args(argv=None) -> argparse.Namespace:
    parser = make_parser()
    return check_args(parser, parser.parse_args(argv))


def check_args(parser, args) -> argparse.Namespace:
    """Refuse what contradicts itself before anything is read."""
    if args.clean and args.denoise_category != "none":
        parser.error("--clean has nothing to denoise: use it with --denoise_category none")
    if args.hidden_units % args.num_heads:
        parser.error(f"--hidden_units {args.hidden_units} is not a multiple of --num_heads {args.num_heads}")
    if args.state_dict_path and not args.state_dict_path.exists():
        parser.error(f"--state_dict_path {args.state_dict_path}: no such file")
    return args


# ---------------------------------------------------------------- data


def load(args) -> tuple[dict, int]:
    """{split: Split} of the rows as they are, and the number of items."""
    from dataloader import find_split, read_split, read_titles

    filtered = FILTERED[args.denoise_category]
    needed = args.evidence in ("raw", "llm", "fused")  # the other kinds take suggestions where there are any
    paths = {split: find_split(args.data_root, args.dataset, split, needed and split in filtered) for split in SPLITS}
    for path in paths.values():
        if path.parent.name != args.dataset:
            print(f"{args.dataset} has no {path.name}: reading {path.parent.name}")
    titles, columns = read_titles(paths["train"].parent), {True: "needed" if needed else "optional", False: "ignored"}
    splits = {split: read_split(path, titles, args.maxlen, columns[split in filtered]) for split, path in paths.items()}
    return splits, len(titles) - 1


def weigh(splits: dict, n_items: int, args) -> dict[str, np.ndarray]:
    """{split: how strongly each position (N, W) is suspected}, NaN where nothing is scored, for the rows to filter."""
    from dataloader import read_split, read_titles
    from evidence import Evidence

    filtered = FILTERED[args.denoise_category]
    chosen = {name: split for name, split in splits.items() if name in filtered}
    if args.evidence == "raw" or not chosen:
        return {name: split.noise_prob for name, split in chosen.items()}
    if args.evidence == "oracle":
        return {name: np.where(split.editable, split.mask == 1, np.nan) for name, split in chosen.items()}
    folder, planted = chosen[filtered[-1]].path.parent, None
    if (folder / "planted.csv").exists() and args.evidence != "collaborative":
        planted = read_split(folder / "planted.csv", read_titles(folder), args.maxlen, "needed")
    evidence = Evidence(args.evidence, splits["train"], planted, n_items)
    print(f"evidence {args.evidence}: " + ", ".join(f"{name} {value:+.2f}" for name, value in evidence.coefficients().items()))
    return {name: evidence.probabilities(split) for name, split in chosen.items()}


def denoise(splits: dict, weights: dict, args) -> dict[str, np.ndarray]:
    """{split: windows (N, W)} after the threshold filter, or before noise with --clean."""
    from dataloader import apply_edits, flag_probable, flag_suspects, percentile, replacements

    windows = {name: split.clean if args.clean else split.items for name, split in splits.items()}
    for name, weight in weights.items():
        if name not in splits:
            continue
        split = splits[name]
        part = "train" if name == "train" else "test"
        threshold, most = getattr(args, f"{part}_noise_filter_threshold"), getattr(args, f"{part}_max_denoise_num")
        if args.evidence == "raw":
            reference = splits.get("valid", split) if name == "test" and args.threshold_from == "valid" else split
            flagged = flag_suspects(split, percentile(reference, threshold), most)
        else:
            flagged = flag_probable(weight, threshold, most)
        windows[name] = apply_edits(split.items, flagged, replacements(split), weight, args.edit)
        print(f"{name}: {flagged.sum():,} of {split.editable.sum():,} positions flagged ({describe_edits(split, flagged)})")
    return windows


def describe_edits(split, flagged: np.ndarray) -> str:
    noise = (split.mask == 1) & split.editable
    if not noise.any():
        return "no injected noise is marked"
    hits = (flagged & noise).sum()
    return f"{hits / max(flagged.sum(), 1):.1%} of them injected noise, {hits / noise.sum():.1%} of the injected noise"


# ---------------------------------------------------------------- training


def train_epoch(model, windows, optimiser, args, generator) -> float:
    """One pass over windows (N, L + 1) on the model's device; returns the mean loss."""
    import torch
    from model import bce_loss, ce_loss, sample_negatives

    model.train()
    n_items, losses = model.items.num_embeddings - 1, []
    order = torch.randperm(len(windows), generator=generator, device=windows.device)
    for rows in order.split(32 * args.batchsize):  # negatives for many steps at once: drawing costs by the call
        chunk = windows[rows]
        negatives = sample_negatives(chunk, n_items, generator) if args.loss == "bce" else chunk
        for batch, negative in zip(chunk.split(args.batchsize), negatives.split(args.batchsize)):
            loss = bce_loss(model, batch, negative) if args.loss == "bce" else ce_loss(model, batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
    return float(torch.stack(losses).mean())


def fit(model, tensors: dict, args, seed: int, log_dir: Path | None = None) -> dict:
    """Train until the NDCG@20 of --select_on stops growing; the model ends with its best weights.

    tensors: {split: windows (N, L + 1)}; only train and the selecting split are read. Returns epochs, best epoch,
    seconds and the NDCG@20 of each epoch.
    """
    import torch
    from dataloader import InputError
    from evaluate import metrics, rank_targets
    from torch.utils.tensorboard import SummaryWriter
    from tqdm import tqdm

    generator = torch.Generator(device=tensors["train"].device).manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), args.lr, betas=(0.9, 0.98), weight_decay=args.weight_decay, fused=True)
    chosen, best, best_epoch, weights, curve = tensors[args.select_on], -1.0, 0, None, []
    writer = SummaryWriter(str(log_dir)) if log_dir else None
    started = time.perf_counter()
    epochs = tqdm(range(1, args.num_epochs + 1), desc=f"seed {seed}", unit="epoch")
    for epoch in epochs:
        loss = train_epoch(model, tensors["train"], optimiser, args, generator)
        ndcg = metrics(rank_targets(model, chosen[:, :-1], chosen[:, -1], args.exclude_history))["NDCG@20"]
        if not np.isfinite(loss):
            raise InputError(f"the loss of epoch {epoch} is {loss}: a smaller --lr keeps it finite")
        curve.append(ndcg)
        epochs.set_postfix(loss=f"{loss:.4f}", NDCG20=f"{ndcg:.4f}", best=f"{max(best, ndcg):.4f}")
        if writer:
            writer.add_scalar("loss/train", loss, epoch)
            writer.add_scalar(f"NDCG@20/{args.select_on}", ndcg, epoch)
        if ndcg > best:
            best, best_epoch = ndcg, epoch
            weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        elif epoch - best_epoch >= args.patience:
            break
    epochs.close()
    if writer:
        writer.close()
    model.load_state_dict(weights)
    seconds = round(time.perf_counter() - started, 2)
    return {"epochs": len(curve), "best_epoch": best_epoch, "seconds": seconds, "selection_NDCG@20": curve}


def make_model(n_items: int, args, seed: int, device):
    import model as models
    import torch

    torch.manual_seed(seed)
    return getattr(models, args.model)(
        n_items, args.maxlen, args.hidden_units, args.num_blocks, args.num_heads, args.dropout_rate
    ).to(device)


def load_weights(model, path: Path) -> None:
    from dataloader import InputError
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        model.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError) as error:
        raise InputError(f"--state_dict_path {path}: does not fit this model ({' '.join(str(error).split())[:200]})") from None


def choose_device(args):
    import torch

    return torch.device(args.device or (f"cuda:{args.cuda}" if torch.cuda.is_available() else "cpu"))


def summarise(per_seed: list[dict]) -> dict[str, dict[str, float]]:
    """{metric: {mean, std}}; std is the sample standard deviation over seeds, 0 for one."""
    table = {name: [run[name] for run in per_seed] for name in per_seed[0]}
    return {
        name: {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0}
        for name, values in table.items()
    }


def print_results(results: dict) -> None:
    for split, values in results.items():
        print(f"{split}  " + "  ".join(f"{name} {value['mean']:.4f}±{value['std']:.4f}" for name, value in values.items()))


def partial_path(path: Path) -> Path:
    """Where this process writes what it will rename to `path`."""
    return path.with_name(f".{path.name}.partial-{os.uname().nodename}-{os.getpid()}")


def write_json(path: Path, content) -> None:
    partial = partial_path(path)
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def input_files(splits: dict) -> list[Path]:
    """All files that a result depends on."""
    folders = {split.path.parent for split in splits.values()}
    beside = [folder / name for folder in sorted(folders) for name in ("id2name4Rec.json", "planted.csv")]
    return [*(split.path for split in splits.values()), *(path for path in beside if path.exists())]


def settings(args) -> dict:
    """The arguments that shape the result."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items() if key not in PLACES}


def output_folder(args, data: str) -> Path:
    """A folder for these settings on these rows: the same command writes the same results to the same place."""
    digest = hashlib.sha256(json.dumps([settings(args), data], sort_keys=True).encode()).hexdigest()[:10]
    return args.output_root / args.dataset / f"{'clean' if args.clean else args.denoise_category}_{digest}"


def main(argv=None) -> dict:
    args = parse_args(argv)
    from dataloader import InputError

    try:
        return experiment(args)
    except InputError as error:
        Parser(prog=Path(__file__).name).error(str(error))


def experiment(args) -> dict:
    """Runs all seeds and returns what run.json holds."""
    import torch
    from dataloader import InputError, fingerprint
    from evaluate import metrics, rank_targets
    from safetensors.torch import save_file

    # 1. rows, filtered
    splits, n_items = load(args)
    if args.loss == "bce" and n_items <= args.maxlen + 1:
        raise InputError(f"{n_items} items are too few for negatives outside windows of {args.maxlen + 1}: use --loss ce")
    device = choose_device(args)
    edited = denoise(splits, weigh(splits, n_items, args), args)
    tensors = {name: torch.from_numpy(windows).to(device) for name, windows in edited.items()}
    data = fingerprint(input_files(splits))
    folder = output_folder(args, data)
    folder.mkdir(parents=True, exist_ok=True)

    # 2. one model a seed; test is looked at once, with the weights that valid chose
    fits, results = [], {"valid": [], "test": []}
    for seed in range(args.seed, args.seed + args.seeds):
        model = make_model(n_items, args, seed, device)
        if args.state_dict_path:
            load_weights(model, args.state_dict_path)
        else:
            fits.append({"seed": seed} | fit(model, tensors, args, seed, folder / f"tensorboard_seed{seed}"))
            save_file(model.state_dict(), folder / f"seed{seed}.safetensors")
        for split, values in results.items():
            windows = tensors[split]
            values.append(metrics(rank_targets(model, windows[:, :-1], windows[:, -1], args.exclude_history)))
        if args.state_dict_path:
            break

    # 3. what came of it
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
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
    }
    write_json(folder / "run.json", run)
    print_results(run["metrics"])
    print(f"wrote {folder}; {sum(fit['seconds'] for fit in fits):.0f} s of training, peak memory {run['peak_memory_gib']} GiB")
    return run


if __name__ == "__main__":
    main()
