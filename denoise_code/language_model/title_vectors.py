"""Title vectors: what a language model knows of each title by itself, read once a catalogue and not once a window.

Mean over a title's tokens of the hidden states of a middle layer, less the catalogue's mean, divided by its standard
deviation, of length 1: the cosine of two of them says how alike two items are. The first token is left out, since models
park attention there whatever it is. Knows nothing of prompts and of scores of windows.
"""

import hashlib
import json
import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from denoise_code.common.files import fingerprint_of_files, write_atomically
from denoise_code.data_set.folder import find_train_file
from denoise_code.data_set.planting import draw_planted, noise_pools, put_planted
from denoise_code.data_set.rows import read_windows
from denoise_code.data_set.titles import fold_title
from denoise_code.evidence.detection import detection
from denoise_code.language_model.batches import pad_left, pad_texts, slices
from denoise_code.language_model.loading import check_length, choose_dtype, decoder_of, layer_outputs

LAYER_WINDOWS = 400  # with a planted item each, on which the layer is chosen
TOKENS_AT_ONCE = 2048  # of titles: little memory beside that of any model, and enough to keep a GPU busy


def read_title_states(model, tokenizer, titles: list[str], layers: list[int], pool) -> torch.Tensor:
    """`pool` of each title's hidden states after each of `layers`: (K, N, D) float32 on the CPU; later layers are not run.

    No layers: what the model gives out, normalised after the last; (1, N, D).
    pool: (states (B, T, D), mask (B, T), padded on the left) -> (B, D).
    """
    from tqdm import tqdm

    tokens = [tokenizer(fold_title(title))["input_ids"] or [tokenizer.eos_token_id] for title in titles]
    check_length(model.config, max(map(len, tokens)), "a title")
    order = sorted(range(len(titles)), key=lambda place: len(tokens[place]))
    rows, inputs = [], {}

    def kept(state):
        return pool(state, inputs["attention_mask"]).float()

    with torch.inference_mode(), layer_outputs(model, layers, kept) as states:
        parts = slices([len(tokens[place]) for place in order], TOKENS_AT_ONCE)
        for part in tqdm(parts, desc="read titles", unit="batch", leave=False):
            inputs = pad_texts([tokens[place] for place in order[part]], tokenizer.pad_token_id)
            inputs = {name: values.to(model.device) for name, values in inputs.items()}
            out = decoder_of(model)(**inputs, use_cache=False)[0]
            rows.append(torch.stack(states or [kept(out)]).cpu())
    return torch.cat(rows, dim=1)[:, torch.tensor(order).argsort()]


def mean_over_title(hidden, mask):
    """Mean (B, D) of hidden (B, T, D) over a title's tokens but the first, where it has more than one."""
    kept = mask * ((mask.cumsum(1) > 1) | (mask.sum(1, keepdim=True) == 1))
    return (hidden.float() * kept[..., None]).sum(1) / kept.sum(1, keepdim=True)


def standardise(vectors, mean, std):
    """Vectors (N, D) of length 1, of mean 0 and deviation 1 in each dimension before that."""
    return torch.nn.functional.normalize((vectors - mean) / std.clamp(min=1e-6), dim=-1)


def similarities(vectors, windows):
    """Similarity (B, W, W) between the items of windows (B, W) of rows of vectors (U, D); -inf to itself and padding (-1)."""
    own = vectors[windows.clamp(min=0)]
    absent = windows < 0
    same = torch.eye(windows.shape[1], dtype=torch.bool, device=windows.device) | absent[:, None] | absent[:, :, None]
    return (own @ own.mT).masked_fill(same, -torch.inf)


def strangeness(vectors, windows):
    """How little each item (B, W) resembles the others of its window: minus the largest and the mean similarity."""
    similar = similarities(vectors, windows)
    there = similar > -torch.inf
    mean = similar.masked_fill(~there, 0).sum(2) / there.sum(2).clamp(min=1)
    return -(similar.amax(2) + mean)


def choose_layer(model, tokenizer, catalogue: list[str], windows: list[list[int]], rng) -> dict:
    """{layer, auc_context of each}: the layer that best tells items planted by popularity in train windows."""
    pool = noise_pools(windows, len(catalogue) - 1)["popularity"]
    chosen = [windows[row] for row in rng.choice(len(windows), size=min(LAYER_WINDOWS, len(windows)), replace=False)]
    planted = [draw_planted(items, pool, rng) for items in chosen]
    noisy = [put_planted(items, new) for items, new in zip(chosen, planted)]
    truths = [[int(place in new) for place in range(len(items))] for items, new in zip(chosen, planted)]
    read = sorted(set().union(*noisy))
    titles = [catalogue[item] for item in read]
    layers = list(range(1, model.config.get_text_config().num_hidden_layers + 1))
    states = read_title_states(model, tokenizer, titles, layers, mean_over_title)  # (K, N, D)
    place = {item: number for number, item in enumerate(read)}
    rows = pad_left([[place[item] for item in items] for items in noisy], -1)
    figures = {}
    for layer, vectors in zip(layers, states):
        scores = strangeness(standardise(vectors, vectors.mean(0), vectors.std(0)), rows)
        found = [row[-len(items) :].tolist() for row, items in zip(scores, noisy)]
        figures[layer] = round(detection(truths, found)["auc"], 4)
    return {"layer": max(figures, key=figures.get), "auc_context": figures}


def title_vectors(model, tokenizer, catalogue: list[str], folder: Path, args, base_model: str) -> tuple[dict, dict]:
    """({vectors (n_items, D) float16 of items 1..n, mean, std (D,)}, {layer, auc_context of each}), kept beside the data set.

    Of the base model, whatever the adapter, at the layer chosen on train windows.
    """
    source = find_train_file(folder)
    made_by = [base_model, str(choose_dtype(args.dtype)), args.load_in_8bit, catalogue, fingerprint_of_files([source])]

    def make():
        with model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext():
            windows = read_windows(source, len(catalogue) - 1)["item_ids"].tolist()
            made = choose_layer(model, tokenizer, catalogue, windows, np.random.default_rng(0))
            (states,) = read_title_states(model, tokenizer, catalogue[1:], [made["layer"]], mean_over_title)
        mean, std = states.mean(0), states.std(0)
        return {"vectors": standardise(states, mean, std).half(), "mean": mean, "std": std}, made

    return load_or_make(folder, "title_vectors", made_by, make)


def load_or_make(folder: Path, name: str, made_by: list, make) -> tuple[dict, dict]:
    """What make() returns, (tensors, a record), kept beside the data set as <name>_<digest of made_by>.safetensors."""
    key = hashlib.sha256(json.dumps(made_by).encode()).hexdigest()[:16]
    path = folder / f"{name}_{key}.safetensors"
    if path.exists():
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads((file.metadata() or {"made": "{}"})["made"])  # noqa: SIM118
    tensors, made = make()
    made = json.loads(json.dumps(made))  # as it will be read
    if os.access(folder, os.W_OK):
        save_tensors(path, tensors, made)
    return tensors, made


def save_tensors(path: Path, tensors: dict, made: dict) -> None:
    with write_atomically(path) as partial:
        save_file(tensors, partial, metadata={"made": json.dumps(made)})
