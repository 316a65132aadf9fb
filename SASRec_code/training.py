"""Fits a recommender to windows, its best epoch chosen by one split. Windows (N, L + 1) int64 hold a history and its target."""

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from options import ROOT, RecommenderOptions, TrainingOptions
from ranking import metrics, rank_targets
from recommenders.base import Recommender, sample_negatives
from recommenders.bert4rec import BERT4Rec
from recommenders.gru4rec import GRU4Rec
from recommenders.sasrec import SASRec
from torch import Tensor

from denoise_code.common import dropout
from denoise_code.common.errors import InputError, one_line
from denoise_code.common.files import write_atomically

MODELS = {"SASRec": SASRec, "GRU4Rec": GRU4Rec, "BERT4Rec": BERT4Rec}  # --model
STEPS_OF_A_CHUNK = 32  # negatives are drawn for so many steps at once: drawing costs by the call


def choose_device(name: str | None, gpu: int) -> torch.device:
    """The device of --device, else the GPU of --cuda, else the CPU; InputError where it cannot be used."""
    name = name or (f"cuda:{gpu}" if torch.cuda.is_available() else "cpu")
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


def make_model(n_items: int, options: RecommenderOptions, seed: int, device: torch.device | str) -> Recommender:
    """A model with fresh weights."""
    torch.manual_seed(seed)
    model = MODELS[options.model](
        n_items, options.maxlen, options.hidden_units, options.num_blocks, options.num_heads, options.dropout_rate
    )
    return model.to(device)


def train_epoch(model, windows: Tensor, optimiser, options: TrainingOptions, generator: torch.Generator) -> float:
    """One pass over windows (N, L + 1) on the model's device; returns the mean loss of its steps."""
    model.train()
    n_items = model.items.num_embeddings - 1
    losses = []
    order = torch.randperm(len(windows), generator=generator, device=windows.device)
    for rows in order.split(STEPS_OF_A_CHUNK * options.batchsize):
        chunk = windows[rows]
        negatives = sample_negatives(chunk, n_items, generator) if options.loss == "bce" else None  # (chunk, L)
        for start in range(0, len(chunk), options.batchsize):
            batch = slice(start, start + options.batchsize)
            loss = model.ce_loss(chunk[batch]) if negatives is None else model.bce_loss(chunk[batch], negatives[batch])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
    return float(torch.stack(losses).mean())


class BestEpoch:
    """The epoch with the highest NDCG@20 so far, and its weights."""

    def __init__(self):
        self.ndcg, self.epoch, self.weights = -1.0, 0, None

    def update(self, model, epoch: int, ndcg: float) -> None:
        if ndcg > self.ndcg:
            self.ndcg, self.epoch = ndcg, epoch
            self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def fit(
    model, train: Tensor, selection: Tensor, options: TrainingOptions, seed: int, log_dir: Path | None = None
) -> dict[str, object]:
    """Train on windows (N, L + 1) until the NDCG@20 of the windows `selection` (M, L + 1) stops growing; keep the best weights.

    Which windows select is said by `filter.selection_windows`. Returns epochs, best epoch, seconds and the NDCG@20 of each
    epoch, as run.json holds them. InputError where negatives cannot be drawn or the loss is no number.
    """
    from torch.utils.tensorboard import SummaryWriter
    from tqdm import tqdm

    check_negatives(model, train.shape[1], options)
    generator = torch.Generator(device=train.device).manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), options.lr, betas=(0.9, 0.98), weight_decay=options.weight_decay, fused=True)
    best, curve = BestEpoch(), []
    writer = SummaryWriter(str(log_dir)) if log_dir else None
    started = time.perf_counter()
    epochs = tqdm(range(1, options.num_epochs + 1), desc=f"seed {seed}", unit="epoch")
    for epoch in epochs:
        loss = train_epoch(model, train, optimiser, options, generator)
        ndcg = metrics(rank_targets(model, selection[:, :-1], selection[:, -1]))["NDCG@20"]
        if not np.isfinite(loss):
            raise InputError(f"the loss of epoch {epoch} is {loss}: a smaller --lr keeps it finite")
        curve.append(ndcg)
        best.update(model, epoch, ndcg)
        epochs.set_postfix(loss=f"{loss:.4f}", NDCG20=f"{ndcg:.4f}", best=f"{best.ndcg:.4f}")
        if writer:
            writer.add_scalar("loss/train", loss, epoch)
            writer.add_scalar(f"NDCG@20/{options.select_on}", ndcg, epoch)
        if epoch - best.epoch >= options.patience:
            break
    epochs.close()
    if writer:
        writer.close()
    model.load_state_dict(best.weights)
    seconds = round(time.perf_counter() - started, 2)
    return {"epochs": len(curve), "best_epoch": best.epoch, "seconds": seconds, "selection_NDCG@20": curve}


def check_negatives(model, width: int, options: TrainingOptions) -> None:
    """InputError where a window of `width` items may leave no item outside it as a negative."""
    n_items = model.items.num_embeddings - 1
    if options.loss == "bce" and n_items <= width:
        raise InputError(f"{n_items} items are too few for negatives outside windows of {width}: use --loss ce")


@dataclass(frozen=True)
class Trained:
    """A trained model, what `fit` returned for it, and the file that keeps both."""

    model: Recommender
    record: dict[str, object]
    path: Path


@dataclass(frozen=True)
class Trainer:
    """Trains each model once: what was trained by this code with these settings on these windows is kept and loaded.

    folder/<key>.safetensors; the key is a hash of both arrays of windows, of the settings that shape a training and of the code.
    """

    n_items: int
    recommender: RecommenderOptions
    training: TrainingOptions
    device: torch.device
    folder: Path

    def train(self, train: Tensor, selection: Tensor, seed: int, log_dir: Path | None = None) -> Trained:
        """The model for these windows; arguments as those of `fit`."""
        from safetensors import safe_open

        path = self.folder / f"{self.key(train, selection, seed)}.safetensors"
        model = make_model(self.n_items, self.recommender, seed, self.device)
        if path.exists():
            print(f"seed {seed}: trained before, {path.name}")
            load_weights(model, path)
            with safe_open(path, "pt") as file:
                return Trained(model, json.loads(file.metadata()["fit"]), path)
        record = fit(model, train, selection, self.training, seed, log_dir)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_weights(model, path, record)
        return Trained(model, record, path)

    def key(self, train: Tensor, selection: Tensor, seed: int) -> str:
        """16 hexadecimal digits. The split that selects has no part in it: its windows have."""
        shaping = asdict(self.recommender) | asdict(self.training)
        del shaping["select_on"]
        settings = [seed, self.n_items, version("torch"), str(self.device), shaping]
        digest = hashlib.sha256(json.dumps(settings).encode() + own_code())
        for windows in (train, selection):
            digest.update(windows.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]


@cache
def own_code() -> bytes:
    """The files that a trained model depends on, as they are when first asked for."""
    files = [*(ROOT / "recommenders").glob("*.py"), ROOT / "training.py", ROOT / "ranking.py", Path(dropout.__file__)]
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
        raise InputError(f"{path}: does not fit this model ({one_line(error)})") from None
