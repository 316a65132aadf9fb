"""Title vectors: what a language model knows of each title by itself, read once a catalogue and not once a window.

Mean over a title's tokens of the hidden states of a middle layer, less the catalogue's mean, divided by its standard
deviation, of length 1: the cosine of two of them says how alike two items are. The first token is left out, since models
park attention there whatever it is. Knows nothing of prompts and of scores of windows.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from denoise_code.common.files import fingerprint_of_files, fingerprint_of_json, save_tensors
from denoise_code.data_set.catalogue import fingerprint_of_catalogue
from denoise_code.data_set.folder import find_train_file
from denoise_code.data_set.planting import BY_POPULARITY, draw_planted, noise_pools, put_planted
from denoise_code.data_set.rows import read_windows
from denoise_code.data_set.titles import fold_title
from denoise_code.evidence.detection import detection
from denoise_code.language_model.batches import pad_left, pad_texts, slices
from denoise_code.language_model.loading import Precision, check_length, choose_dtype, decoder_of, layer_outputs

LAYER_WINDOWS = 400  # with a planted item each, on which the layer is chosen
# Of the layers that are compared at once: with 4,400 titles all 30 of a model of 135 M, 14 of 32 of one of 8 B.
STATES_BYTES = 2**30
TOKENS_AT_ONCE = 2048  # of titles: little memory beside that of any model, and enough to keep a GPU busy


@dataclass(frozen=True)
class TitleBatches:
    """Titles as tokens, and which are read at once: the shortest first, so that there is little padding.

    tokens: ids of each title. order (N,): numbers of titles by length. runs: slices of `order`. The same titles give the same batches,
    and so the same states to the last bit, whether they are read at one go or not.
    """

    tokens: list[list[int]]
    order: list[int]
    runs: list[slice]


def title_batches(model, tokenizer, titles: list[str]) -> TitleBatches:
    """Raises InputError for a title that the model cannot read."""
    tokens = [tokenizer(fold_title(title))["input_ids"] or [tokenizer.eos_token_id] for title in titles]
    check_length(model.config, max(map(len, tokens)), "a title")
    order = sorted(range(len(titles)), key=lambda number: len(tokens[number]))
    return TitleBatches(tokens, order, slices([len(tokens[number]) for number in order], TOKENS_AT_ONCE))


def states_of_batches(
    model, tokenizer, batches: TitleBatches, runs: Iterable[slice], layers: list[int], pool
) -> Iterator[torch.Tensor]:
    """(K, B, D) float32 on the CPU for each of some runs of `batches`; layers and pool as of `read_title_states`."""
    inputs = {}

    def pooled(states):
        return pool(states, inputs["attention_mask"]).float()

    with torch.inference_mode(), layer_outputs(model, layers, pooled) as states_by_layer:
        for run in runs:
            inputs = pad_texts([batches.tokens[number] for number in batches.order[run]], tokenizer.pad_token_id)
            inputs = {name: values.to(model.device) for name, values in inputs.items()}
            last_states = decoder_of(model)(**inputs, use_cache=False)[0]  # (B, T, D)
            yield torch.stack(states_by_layer or [pooled(last_states)]).cpu()  # (K, B, D)


def read_title_states(model, tokenizer, titles: list[str], layers: list[int], pool) -> torch.Tensor:
    """`pool` of each title's hidden states after each of `layers`: (K, N, D) float32 on the CPU; later layers are not run.

    No layers: what the model gives out, normalised after the last; (1, N, D).
    pool: (states (B, T, D), mask (B, T), padded on the left) -> (B, D). Raises InputError for a title that the model
    cannot read.
    """
    from tqdm import tqdm

    batches, states_of_titles = title_batches(model, tokenizer, titles), None
    runs = tqdm(batches.runs, desc="read titles", unit="batch", leave=False)
    for run, of_batch in zip(batches.runs, states_of_batches(model, tokenizer, batches, runs, layers, pool)):  # (K, B, D)
        if states_of_titles is None:  # the first batch tells K and D
            states_of_titles = torch.empty(of_batch.shape[0], len(titles), of_batch.shape[2])
        states_of_titles[:, batches.order[run]] = of_batch
    return states_of_titles


def mean_over_title(states, mask):
    """Mean (B, D) float32 of states (B, T, D) over a title's tokens but the first, where it has more than one; mask (B, T)."""
    is_after_first = mask.cumsum(1) > 1  # (B, T)
    is_single_token = mask.sum(1, keepdim=True) == 1  # (B, 1)
    counted = mask * (is_after_first | is_single_token)  # (B, T)
    return (states.float() * counted[..., None]).sum(1) / counted.sum(1, keepdim=True)


def standardise(vectors, mean, std):
    """Vectors (N, D) of length 1, of mean 0 and deviation 1 in each dimension before that; mean and std (D,)."""
    return torch.nn.functional.normalize((vectors - mean) / std.clamp(min=1e-6), dim=-1)


def similarities(vectors, windows):
    """Similarity (B, W, W) between the items of windows (B, W) of rows of vectors (U, D); -inf to itself and padding (-1)."""
    items = vectors[windows.clamp(min=0)]  # (B, W, D)
    is_padding = windows < 0
    is_itself = torch.eye(windows.shape[1], dtype=torch.bool, device=windows.device)  # (W, W)
    left_out = is_itself | is_padding[:, None] | is_padding[:, :, None]  # (B, W, W)
    return (items @ items.mT).masked_fill(left_out, -torch.inf)


def strangeness(vectors, windows):
    """How little each item (B, W) resembles the others of its window: minus the largest and the mean similarity."""
    similarity = similarities(vectors, windows)  # (B, W, W)
    is_pair = similarity > -torch.inf
    mean = similarity.masked_fill(~is_pair, 0).sum(2) / is_pair.sum(2).clamp(min=1)  # (B, W)
    return -(similarity.amax(2) + mean)


def choose_layer(model, tokenizer, catalogue: list[str], windows: list[list[int]], rng) -> dict:
    """{layer, auc_context of each}: the layer that best tells items planted by popularity in train windows.

    catalogue: titles by item id (n_items + 1,). windows: their items. Layers count from 1.
    """
    noisy, truths = plant_one_each(windows, len(catalogue) - 1, rng)
    items = sorted(set().union(*noisy))
    layers = list(range(1, model.config.get_text_config().num_hidden_layers + 1))
    titles = [catalogue[item] for item in items]
    row_of_item = {item: row for row, item in enumerate(items)}
    rows = pad_left([[row_of_item[item] for item in window] for window in noisy], -1)  # (B, W) rows of states
    layers_at_once = max(1, STATES_BYTES // (len(items) * model.config.get_text_config().hidden_size * 4))
    auc_by_layer = {}
    for start in range(0, len(layers), layers_at_once):
        compared = layers[start : start + layers_at_once]  # K of them
        states = read_title_states(model, tokenizer, titles, compared, mean_over_title)  # (K, U, D)
        for layer, vectors in zip(compared, states):  # vectors (U, D)
            scores = strangeness(standardise(vectors, vectors.mean(0), vectors.std(0)), rows)  # (B, W)
            without_padding = [row[-len(window) :].tolist() for row, window in zip(scores, noisy)]
            auc_by_layer[layer] = round(detection(truths, without_padding)["auc"], 4)
    return {"layer": max(auc_by_layer, key=auc_by_layer.get), "auc_context": auc_by_layer}


def plant_one_each(windows: list[list[int]], n_items: int, rng) -> tuple[list[list[int]], list[list[int]]]:
    """(windows with one item each planted by popularity, 1 where it stands): up to LAYER_WINDOWS of them, drawn at random."""
    pool = noise_pools(windows, n_items)[BY_POPULARITY]
    rows = rng.choice(len(windows), size=min(LAYER_WINDOWS, len(windows)), replace=False)
    sample = [windows[row] for row in rows]
    planted = [draw_planted(items, pool, rng) for items in sample]
    noisy = [put_planted(items, by_position) for items, by_position in zip(sample, planted)]
    truths = [[int(position in by_position) for position in range(len(items))] for items, by_position in zip(sample, planted)]
    return noisy, truths


def title_vectors(
    model, tokenizer, catalogue: list[str], folder: Path, precision: Precision, base_model: str
) -> tuple[dict, dict]:
    """({vectors (n_items, D) float16 of items 1..n, mean, std (D,)}, {layer, auc_context of each}), kept beside the data set.

    Of the base model, whatever the adapter, at the layer chosen on train windows. catalogue: titles by item id (n_items + 1,).
    """
    train_file = find_train_file(folder)
    made_by = [
        base_model,
        str(choose_dtype(precision.dtype)),
        precision.load_in_8bit,
        catalogue,
        fingerprint_of_files([train_file]),
    ]

    def make():
        with model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext():
            windows = read_windows(train_file, len(catalogue) - 1)["item_ids"].tolist()
            choice = choose_layer(model, tokenizer, catalogue, windows, np.random.default_rng(0))
            (states,) = read_title_states(model, tokenizer, catalogue[1:], [choice["layer"]], mean_over_title)  # (n_items, D)
        mean, std = states.mean(0), states.std(0)
        return {"vectors": standardise(states, mean, std).half(), "mean": mean, "std": std}, choice

    return load_or_make(folder, "title_vectors", made_by, make)


def load_or_make(folder: Path, name: str, made_by: list, make) -> tuple[dict, dict]:
    """What make() returns, (tensors, a record), kept beside the data set as <name>_<digest of made_by>.safetensors.

    made_by: all that the tensors depend on. A folder that cannot be written keeps nothing.
    """
    path = folder / f"{name}_{fingerprint_of_json(made_by)[:16]}.safetensors"
    if path.exists():
        return load_with_record(path)
    tensors, record = make()
    record = json.loads(json.dumps(record))  # as it will be read: its keys become texts
    if os.access(folder, os.W_OK):
        save_with_record(path, tensors, record)
    return tensors, record


def load_with_record(path: Path) -> tuple[dict, dict]:
    """What save_with_record wrote; an empty record where there is none."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no dict
        metadata = file.metadata() or {"made": "{}"}
    return tensors, json.loads(metadata["made"])


def save_with_record(path: Path, tensors: dict, record: dict, catalogue: list[str] | None = None) -> None:
    """Tensors of torch as a safetensors file; its metadata say how they were made, and for which catalogue."""
    metadata = {"made": json.dumps(record)}
    if catalogue is not None:
        metadata["catalogue"] = fingerprint_of_catalogue(catalogue)
    save_tensors(path, {name: tensor.numpy() for name, tensor in tensors.items()}, metadata)
