"""Fits a recommender to windows, its best epoch chosen by one split. Knows nothing of files of data and of noise."""

import hashlib
import json
import os
import resource
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from options import ROOT
from ranking import metrics, rank_targets
from recommenders.base import sample_negatives
from recommenders.bert4rec import BERT4Rec
from recommenders.gru4rec import GRU4Rec
from recommenders.sasrec import SASRec
from torch import Tensor

from denoise_code.common.errors import InputError
from denoise_code.common.files import write_atomically

MODELS = {"SASRec": SASRec, "GRU4Rec": GRU4Rec, "BERT4Rec": BERT4Rec}  # --model


def choose_device(args) -> torch.device:
    name = args.device or (f"cuda:{args.cuda}" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from None


def warn_of_busy_cores(device: torch.device, loadavg: Path = Path("/proc/loadavg")) -> None:
    """Say how to share the cores where others keep them busy: threads that wait for each other make an epoch eight times as long.

    loadavg: Linux's file (man proc_loadavg): the load of the last minute first, as fourth how many threads run right now, this
    one among them. Both are asked: the load alone also counts a process that ended a moment ago.
    """
    if device.type != "cpu" or torch.get_num_threads() == 1 or not loadavg.exists():
        return
    fields, cores = loadavg.read_text().split(), os.cpu_count()
    load, running = float(fields[0]), int(fields[3].split("/")[0]) - 1
    if min(load, running) >= cores:
        print(f"other processes keep the {cores} cores busy (load {load}): with OMP_NUM_THREADS=1 for each all are faster")


def peak_memory_gib(device: torch.device) -> float:
    """Most memory taken so far: what PyTorch allocated of a GPU, else what this process took of main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def make_model(n_items: int, args, seed: int, device):
    """A model of --model with fresh weights."""
    torch.manual_seed(seed)
    return MODELS[args.model](n_items, args.maxlen, args.hidden_units, args.num_blocks, args.num_heads, args.dropout_rate).to(
        device
    )


def train_epoch(model, windows, optimiser, args, generator) -> float:
    """One pass over windows (N, L + 1) on the model's device; returns the mean loss."""
    model.train()
    n_items, losses = model.items.num_embeddings - 1, []
    order = torch.randperm(len(windows), generator=generator, device=windows.device)
    for rows in order.split(32 * args.batchsize):  # negatives for many steps at once: drawing costs by the call
        chunk = windows[rows]
        negatives = sample_negatives(chunk, n_items, generator) if args.loss == "bce" else chunk
        for batch, negative in zip(chunk.split(args.batchsize), negatives.split(args.batchsize)):
            loss = model.bce_loss(batch, negative) if args.loss == "bce" else model.ce_loss(batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
    return float(torch.stack(losses).mean())


def fit(model, train: Tensor, selection: Tensor, args, seed: int, log_dir: Path | None = None) -> dict:
    """Train on windows (N, L + 1) until the NDCG@20 of the windows `selection` (M, L + 1) stops growing; keep the best weights.

    Which windows select is said by `filter.selection_windows`. Returns epochs, best epoch, seconds and the NDCG@20 of each
    epoch.
    """
    from torch.utils.tensorboard import SummaryWriter
    from tqdm import tqdm

    n_items, width = model.items.num_embeddings - 1, train.shape[1]
    if args.loss == "bce" and n_items <= width:
        raise InputError(f"{n_items} items are too few for negatives outside windows of {width}: use --loss ce")
    generator = torch.Generator(device=train.device).manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), args.lr, betas=(0.9, 0.98), weight_decay=args.weight_decay, fused=True)
    best, best_epoch, weights, curve = -1.0, 0, None, []
    writer = SummaryWriter(str(log_dir)) if log_dir else None
    started = time.perf_counter()
    epochs = tqdm(range(1, args.num_epochs + 1), desc=f"seed {seed}", unit="epoch")
    for epoch in epochs:
        loss = train_epoch(model, train, optimiser, args, generator)
        ndcg = metrics(rank_targets(model, selection[:, :-1], selection[:, -1]))["NDCG@20"]
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


def trained(train: Tensor, selection: Tensor, n_items: int, args, seed: int, device, log_dir: Path | None = None):
    """(model, what `fit` returned, its file) for these windows and settings: trained once by this code, kept in models/.

    The file is output/<dataset>/models/<key>.safetensors; the key is a hash of both arrays of windows, of the settings that
    shape a training and of the code.
    """
    from safetensors import safe_open

    shaping = "model batchsize lr hidden_units num_blocks num_heads num_epochs dropout_rate weight_decay maxlen loss patience"
    options = [seed, n_items, version("torch"), str(device), *(getattr(args, name) for name in shaping.split())]
    digest = hashlib.sha256(json.dumps(options).encode() + own_code())
    for windows in (train, selection):
        digest.update(windows.cpu().numpy().tobytes())
    path = args.output_root / args.dataset / "models" / f"{digest.hexdigest()[:16]}.safetensors"
    model = make_model(n_items, args, seed, device)
    if path.exists():
        print(f"seed {seed}: trained before, {path.name}")
        load_weights(model, path)
        with safe_open(path, "pt") as file:
            return model, json.loads(file.metadata()["fit"]), path
    record = fit(model, train, selection, args, seed, log_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(model, path, record)
    return model, record, path


@cache
def own_code() -> bytes:
    """The files that a trained model depends on, as they are when first asked for."""
    files = [*(ROOT / "recommenders").glob("*.py"), ROOT / "training.py", ROOT / "ranking.py"]
    return b"".join(file.read_bytes() for file in sorted(files))


def save_weights(model, path: Path, record: dict) -> None:
    """record: what `fit` returned."""
    from safetensors.torch import save_file

    with write_atomically(path) as partial:
        save_file(model.state_dict(), partial, metadata={"fit": json.dumps(record)})


def load_weights(model, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        model.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError) as error:
        raise InputError(f"{path}: does not fit this model ({' '.join(str(error).split())[:200]})") from None
