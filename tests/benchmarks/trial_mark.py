"""Does a language model that reads the window know more than counts and title vectors? A trial, for a GPU, and its control.

One text lists the titles of a window twice, so that each is read, the second time, after all others. A linear head over the
hidden state that ends a title says whether it does not belong. LoRA and head learn it on train windows with one item planted
by popularity, for each half of the users on the other half, so that nothing was learned from the rows that are scored.
The control learns the same, but for the language model: a small transformer over untrained title vectors, in minutes on a CPU.

Reads   a data set folder, and the one that generate_denoised.py made of it without an adapter (title vectors)
Writes  <that folder, its _0 as _titles or _vectors>: the same with noise_prob in its rows, and planted.csv
Prints  what the marks add to counts and title vectors

    python tests/benchmarks/trial_mark.py data/Industrial_noise_user0.1 titles --epochs 10       # Toy: 6
    python tests/benchmarks/trial_mark.py data/Industrial_noise_user0.1 vectors --epochs 40
"""

import argparse
import json
import shutil
import sys
import time
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from denoise_code.common.errors import InputError, input_errors
from denoise_code.common.files import write_atomically as beside
from denoise_code.data_set.catalogue import read_catalogue
from denoise_code.data_set.folder import find_train_file, output_name
from denoise_code.data_set.padded_rows import half_of, read_vectors
from denoise_code.data_set.planted_rows import plant_rows
from denoise_code.data_set.planting import DRAWN, draw_planted, noise_pools, put_planted
from denoise_code.data_set.titles import fold_title as clean_title
from denoise_code.data_set.windows import read_scored_windows as read_split
from denoise_code.language_model.loading import EMBEDDED_MODEL, load_tokenizer, locate_model
from denoise_code.reading.assembling import NEW_COLUMNS

FIRST, AGAIN = "Items of one person, oldest first:\n", "Which of them does not belong? Again:\n"
LONGEST_TITLE = 40  # tokens
PLANTED = 2000  # rows
VECTORS = "title_vectors.safetensors"
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
    """From windows (B lists of items) to log-odds (B, W) that each item does not belong, and where there is one (B, W)."""

    @torch.inference_mode()
    def score(self, windows: list) -> list[np.ndarray]:
        """Log-odds (n,) of each window, those of like length read together."""
        self.eval()
        order = sorted(range(len(windows)), key=lambda row: self.length(windows[row]))
        result = [None] * len(windows)
        for start in range(0, len(order), 2 * self.batch):
            part = order[start : start + 2 * self.batch]
            for row, scores, real in zip(part, *self([windows[row] for row in part])):
                result[row] = scores[real].cpu().numpy()
        return result


class TitleMarker(Marker):
    batch, learning_rate = 64, 4e-4

    def __init__(self, base_model: str, texts: Texts):
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModel

        super().__init__()
        self.texts = texts
        self.length = lambda items: sum(len(texts.titles[item]) for item in items)
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
        read = states.gather(1, ends[..., None].expand(-1, -1, states.shape[-1])).float()
        return self.head(read)[..., 0].masked_fill(~real, -1e4), real


class VectorMarker(Marker):
    """The control. vectors (n_items + 1, D): untrained title vectors; what stands where in a window is not told."""

    batch, learning_rate, length = 256, 1e-3, staticmethod(len)

    def __init__(self, vectors: np.ndarray, width: int = 128):
        super().__init__()
        table = torch.from_numpy(vectors.astype(np.float32))
        self.register_buffer("table", (table - table[1:].mean(0)) / table[1:].std(0))
        self.narrow = torch.nn.Sequential(
            torch.nn.Dropout(0.2), torch.nn.Linear(table.shape[1], width), torch.nn.LayerNorm(width)
        )
        layer = torch.nn.TransformerEncoderLayer(width, 4, 2 * width, 0.3, "gelu", batch_first=True, norm_first=True)
        self.encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = torch.nn.Linear(width, 1)

    def forward(self, windows):
        items = torch.nn.utils.rnn.pad_sequence([torch.tensor(items) for items in windows], True).to(self.table.device)
        absent = items == 0
        states = self.encoder(self.narrow(self.table[items]), src_key_padding_mask=absent)
        return self.head(states)[..., 0].masked_fill(absent, -1e4), ~absent


def learn(marker: Marker, windows: list, pool: np.ndarray, epochs: float, rng) -> None:
    """Which item of a window is planted: the one among all (cross-entropy), and each by itself (binary cross-entropy)."""
    from torch.nn import functional as F
    from tqdm import trange

    trained = [parameter for parameter in marker.parameters() if parameter.requires_grad]
    steps = -(-int(epochs * len(windows)) // marker.batch)
    optimiser = torch.optim.AdamW(trained, marker.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, marker.learning_rate, max(steps, 2), pct_start=0.1)
    marker.train()
    order, losses = np.empty(0, dtype=int), []
    for _ in (bar := trange(steps, unit="step")):
        if len(order) < min(marker.batch, len(windows)):
            order = rng.permutation(len(windows))
        rows, order = order[: marker.batch], order[marker.batch :]
        planted = [draw_planted(windows[row], pool, rng) for row in rows]
        scores, real = marker([put_planted(windows[row], new) for row, new in zip(rows, planted)])
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


def write(path: Path, table, scores: list[np.ndarray]) -> None:
    """A split with noise_prob; suspects and replacements are left to stage 3."""
    probs = [torch.nn.functional.logsigmoid(torch.from_numpy(row)).clamp(max=-1e-6).tolist() for row in scores]
    columns = {"noise_prob": [json.dumps([round(prob, 6) for prob in row]) for row in probs]}
    lists = {name: table[name].map(json.dumps) for name in ("item_ids", "mask")}
    table.assign(**dict.fromkeys(NEW_COLUMNS, "[]") | lists | columns).to_csv(path, index=False)


def mark(folder: Path, reads: str, epochs: float, base_model: str = EMBEDDED_MODEL) -> Path:
    denoised = folder.with_name(output_name(folder.name, None, 0))
    output = denoised.with_name(denoised.name.removesuffix("_0") + f"_{reads}")
    if output.exists():
        raise InputError(f"{output} exists: remove it first")
    if not (denoised / VECTORS).exists():
        raise InputError(f"{denoised / VECTORS}: no such file; generate_denoised.py --noise_dataset_path {folder} makes it")
    rng, catalogue, source = np.random.default_rng(0), read_catalogue(folder), find_train_file(folder)
    tables, windows = {}, {}
    for name in (source.stem, "valid_5000", "test_5000"):
        tables[name], split = read_split(folder, name, catalogue, None, 0, {})
        windows[name] = [list(window.items) for window in split]  # no target among them
    train = tables[source.stem]
    pools = noise_pools(windows[source.stem], len(catalogue) - 1)
    chosen = np.sort(rng.choice(len(train), size=min(PLANTED, len(train)), replace=False))
    tables["planted"] = plant_rows(train, chosen, catalogue, pools, rng)
    windows["planted"] = tables["planted"]["item_ids"].tolist()
    halves = {name: half_of(table["user_id"].to_numpy()) for name, table in tables.items()}
    scores = {name: np.empty(len(table), dtype=object) for name, table in tables.items()}
    if reads == "titles":
        texts = Texts(load_tokenizer(base_model), catalogue)
        made = partial(TitleMarker, base_model, texts)
    else:
        made = partial(VectorMarker, read_vectors(denoised, len(catalogue) - 1))
    for half in (0, 1):
        torch.manual_seed(half)
        marker = made().to("cuda" if torch.cuda.is_available() else "cpu")
        learned = [items for items, other in zip(windows[source.stem], halves[source.stem] != half) if other]
        # planted from these windows alone: an item that only the other half has would be told by never having been met
        learn(marker, learned, noise_pools(learned, len(catalogue) - 1)["popularity"], epochs, rng)
        for name in tables:
            rows = np.flatnonzero(halves[name] == half)
            for row, found in zip(rows, marker.score([windows[name][row] for row in rows])):
                scores[name][row] = found
    with beside(output) as unfinished:
        unfinished.mkdir()
        for name in ("id2name.json", "id2name4Rec.json", VECTORS):
            shutil.copy(denoised / name, unfinished / name)
        for name, table in tables.items():
            write(unfinished / f"{name}.csv", table, list(scores[name]))
    return output


def show_added(made: Path) -> None:
    """AUC of counts and title vectors without the marks and with them; fitted on planted rows, those that are scored on other users'."""
    from filter import read_sources

    from denoise_code.data_set.catalogue import read_titles
    from denoise_code.data_set.folder import find_split
    from denoise_code.data_set.padded_rows import pick
    from denoise_code.data_set.padded_rows import read_split as read_scored
    from denoise_code.evidence.detection import bootstrap_aucs, detection_row, interval
    from denoise_code.evidence.fit import Evidence, halves

    def by_other_users(kind: str, planted) -> np.ndarray:
        one, other = (Evidence(kind, sources, half).probabilities(planted) for half in halves(planted))
        return np.where(half_of(planted.users)[:, None] == 0, other, one)

    titles, splits = read_titles(made), ("train", "valid", "test")
    train, valid, test = (read_scored(find_split(made.parent, made.name, split, True), titles, 10, "needed") for split in splits)
    sources = read_sources(made, train, len(titles) - 1, 10)
    uniform, popular = (pick(sources.planted, sources.planted.drawn == drawn) for drawn in DRAWN)
    kinds = without, fused = "collaborative+semantic", "fused"
    cases = {}
    for name, split in (("valid", valid), ("test", test)):
        cases[name] = (split, 1, {kind: Evidence(kind, sources, uniform).probabilities(split) for kind in kinds})
    for drawn, planted in zip(DRAWN, (uniform, popular)):
        cases[f"planted: {drawn}"] = (planted, 2, {kind: by_other_users(kind, planted) for kind in kinds})
    print(f"| rows | {without} | with the marks | difference | the marks alone |\n|---|---|---|---|---|")
    for name, (split, mark, scores) in cases.items():
        scores["alone"] = split.noise_prob
        auc = {kind: detection_row(split.mask == mark, score, split.editable)["AUC"] for kind, score in scores.items()}
        draws = bootstrap_aucs(split, mark, scores)
        less, more = interval(draws[fused] - draws[without])
        added = f"{auc[fused] - auc[without]:+.4f} [{less:+.4f}, {more:+.4f}]"
        print(f"| {name} ({len(split.items):,}) | {auc[without]:.4f} | {auc[fused]:.4f} | {added} | {auc['alone']:.4f} |")


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("reads", choices=["titles", "vectors"])
    parser.add_argument("--epochs", type=float, required=True)
    parser.add_argument("--base_model", default=EMBEDDED_MODEL)
    args, started = parser.parse_args(argv), time.perf_counter()
    with input_errors(__file__):
        made = mark(args.folder, args.reads, args.epochs, args.base_model)
        print(f"wrote {made} in {time.perf_counter() - started:.0f} s")
        show_added(made)


if __name__ == "__main__":
    main()
