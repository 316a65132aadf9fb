"""Does a language model that reads the window know more than counts and title vectors? A trial, for a GPU.

One text lists the titles of a window twice, so that each is read, the second time, after all others. A linear head over the
hidden state that ends a title says whether it does not belong. LoRA and head learn it on train windows with one item planted
by popularity, for each half of the users on the other half, so that nothing was learned from the rows that are scored.

Reads   a data set folder, and the one that generate_denoised.py made of it without an adapter (title vectors)
Writes  <that folder, its _0 as _mark>: the same with noise_prob in its rows, and planted.csv; report.py and sweep.py read it

    python tests/benchmarks/trial_mark.py data/Industrial_noise_user0.1 --epochs 10       # Toy: --epochs 6
    python SASRec_code/report.py --dataset Industrial_denoise_user0.1_mark
"""

import argparse
import json
import shutil
import sys
import time
from itertools import chain
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "SASRec_code")]
from dataloader import half_of  # noqa: E402

from denoise_code.command_line import InputError, beside, input_errors  # noqa: E402
from denoise_code.dataset import (  # noqa: E402
    DRAWN,
    find_train_file,
    noise_pools,
    output_name,
    plant,
    put,
    read_catalogue,
    read_windows,
)
from denoise_code.language_model import EMBEDDED_MODEL, load_tokenizer, locate_model  # noqa: E402
from denoise_code.prompt import clean_title  # noqa: E402

FIRST, AGAIN = "Items of one person, oldest first:\n", "Which of them does not belong? Again:\n"
LONGEST_TITLE = 40  # tokens
BATCH, LEARNING_RATE, PLANTED = 64, 4e-4, 2000
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": "all-linear"}


class Texts:
    """Windows of items as padded tokens, and where each title ends the second time."""

    def __init__(self, tokenizer, catalogue: list[str]):
        def tokens(text):
            return tokenizer(text, add_special_tokens=False)["input_ids"]

        self.first, self.again = tokens(FIRST), tokens(AGAIN)
        self.titles = [tokens(" " + clean_title(title))[:LONGEST_TITLE] + tokens("\n") for title in catalogue]

    def __call__(self, windows: list[list[int]]):
        """(tokens (B, T), ends (B, W), real (B, W)), padded on the right: under causal attention no mask is needed."""
        width = max(map(len, windows))
        rows, ends = [], torch.zeros(len(windows), width, dtype=torch.long)
        for number, items in enumerate(windows):
            listed = [self.titles[item] for item in items]
            before = len(self.first) + sum(map(len, listed)) + len(self.again)
            ends[number, : len(items)] = before + torch.tensor([len(title) for title in listed]).cumsum(0) - 1
            rows.append(torch.tensor([*self.first, *chain(*listed), *self.again, *chain(*listed)]))
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), ends, ends > 0


class Marker(torch.nn.Module):
    """Log-odds (B, W) that each title of a window does not belong."""

    def __init__(self, base_model: str, texts: Texts):
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModel

        super().__init__()
        self.texts = texts
        self.decoder = get_peft_model(
            AutoModel.from_pretrained(locate_model(base_model), dtype=torch.float32), LoraConfig(**LORA)
        )
        self.head = torch.nn.Linear(self.decoder.config.hidden_size, 1)
        torch.nn.init.zeros_(self.head.weight)

    def forward(self, windows):
        device = self.head.weight.device
        tokens, ends, real = (values.to(device) for values in self.texts(windows))
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            states = self.decoder(input_ids=tokens, use_cache=False)[0]  # (B, T, D)
            scores = self.head(states.gather(1, ends[..., None].expand(-1, -1, states.shape[-1])))[..., 0]
        return scores.float().masked_fill(~real, -1e4), real

    @torch.inference_mode()
    def score(self, windows: list) -> list[np.ndarray]:
        """Log-odds (n,) of each window, those of like length read together."""
        self.eval()
        order = sorted(range(len(windows)), key=lambda row: sum(len(self.texts.titles[item]) for item in windows[row]))
        result = [None] * len(windows)
        for start in range(0, len(order), 2 * BATCH):
            part = order[start : start + 2 * BATCH]
            for row, scores, real in zip(part, *self([windows[row] for row in part])):
                result[row] = scores[real].cpu().numpy()
        return result


def learn(marker: Marker, windows: list, pool: np.ndarray, epochs: float, rng) -> None:
    """Which item of a window is planted: the one among all (cross-entropy), and each by itself (binary cross-entropy)."""
    from torch.nn import functional as F
    from tqdm import trange

    trained = [parameter for parameter in marker.parameters() if parameter.requires_grad]
    steps = -(-int(epochs * len(windows)) // BATCH)
    optimiser = torch.optim.AdamW(trained, LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, max(steps, 2), pct_start=0.1)
    marker.train()
    order, losses = np.empty(0, dtype=int), []
    for _ in (bar := trange(steps, unit="step")):
        if len(order) < min(BATCH, len(windows)):
            order = rng.permutation(len(windows))
        rows, order = order[:BATCH], order[BATCH:]
        planted = [plant(windows[row], pool, rng) for row in rows]
        scores, real = marker([put(windows[row], new) for row, new in zip(rows, planted)])
        places = torch.tensor([next(iter(new)) for new in planted], device=scores.device)
        truth = F.one_hot(places, scores.shape[1]).float()
        loss = F.cross_entropy(scores, places) + F.binary_cross_entropy_with_logits(scores[real], truth[real])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{np.mean(losses[-50:]):.4f}")


def planted_rows(train, pools: dict, rng):
    """Train rows with one item planted, drawn in turn uniformly and by popularity, as planted.csv of stage 2."""
    chosen = np.sort(rng.choice(len(train), size=min(PLANTED, len(train)), replace=False))
    table = train.iloc[chosen].reset_index(drop=True).assign(train_row=chosen)
    table["drawn"] = [DRAWN[row % 2] for row in range(len(table))]
    for row in range(len(table)):
        new = plant(table.at[row, "item_ids"], pools[table.at[row, "drawn"]], rng)
        table.at[row, "item_ids"] = put(table.at[row, "item_ids"], new)
        table.at[row, "mask"] = put(table.at[row, "mask"], dict.fromkeys(new, 2))
    return table


def write(path: Path, table, scores: list[np.ndarray]) -> None:
    """A split with noise_prob; suspects and replacements are left to stage 3."""
    probs = [torch.nn.functional.logsigmoid(torch.from_numpy(row)).clamp(max=-1e-6).tolist() for row in scores]
    columns = {"noise_prob": [json.dumps([round(prob, 6) for prob in row]) for row in probs]}
    empty = ("noise_items", "noise_items_prob", "suggest_item_titles", "suggest_item_ids")
    lists = {name: table[name].map(json.dumps) for name in ("item_ids", "mask")}
    table.assign(**lists, **columns, **dict.fromkeys(empty, "[]")).to_csv(path, index=False)


def mark(folder: Path, epochs: float, base_model: str = EMBEDDED_MODEL) -> Path:
    denoised = folder.with_name(output_name(folder.name, None, 0))
    if not denoised.is_dir():
        raise InputError(f"{denoised}: no such folder; generate_denoised.py --noise_dataset_path {folder} makes it")
    output = denoised.with_name(denoised.name.removesuffix("_0") + "_mark")
    if output.exists():
        raise InputError(f"{output} exists: remove it first")
    rng, catalogue, source = np.random.default_rng(0), read_catalogue(folder), find_train_file(folder)
    train = read_windows(source, len(catalogue) - 1)
    pools = noise_pools(train["item_ids"].tolist(), len(catalogue) - 1)
    tables = {source.stem: train, "planted": planted_rows(train, pools, rng)}
    tables |= {name: read_windows(folder / f"{name}.csv", len(catalogue) - 1) for name in ("valid_5000", "test_5000")}
    halves = {name: half_of(table["user_id"].to_numpy()) for name, table in tables.items()}
    scores = {name: np.empty(len(table), dtype=object) for name, table in tables.items()}
    texts = Texts(load_tokenizer(base_model), catalogue)
    for half in (0, 1):
        torch.manual_seed(half)
        marker = Marker(base_model, texts).to("cuda" if torch.cuda.is_available() else "cpu")
        learn(marker, train["item_ids"][halves[source.stem] != half].tolist(), pools["popularity"], epochs, rng)
        for name, table in tables.items():
            hidden, rows = name.startswith(("valid", "test")), np.flatnonzero(halves[name] == half)
            windows = [items[: len(items) - hidden] for items in table["item_ids"].iloc[rows]]  # never the target
            for row, found in zip(rows, marker.score(windows)):
                scores[name][row] = found
    with beside(output) as partial:
        shutil.copytree(denoised, partial)
        for name, table in tables.items():
            write(partial / f"{name}.csv", table, list(scores[name]))
    return output


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--base_model", default=EMBEDDED_MODEL)
    args, started = parser.parse_args(argv), time.perf_counter()
    with input_errors(__file__):
        print(f"wrote {mark(args.folder, args.epochs, args.base_model)} in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
