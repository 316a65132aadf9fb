"""Title vectors of a log, kept by title and model: the next run reads new titles alone.

What is kept is the layer's own state of each title, before it is standardised over a catalogue. The layer is chosen once, for the first
log of a folder. While titles are read, what is finished is written every few seconds, so that a run that was killed goes on where it was;
titles stand in the same batches then, and so the states are the same to the last bit.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from tqdm import tqdm

from denoise_code.common.errors import InputError
from denoise_code.common.files import fingerprint_of_json, naming_tensors, read_json, write_json
from denoise_code.data_set.titles import fold_title
from denoise_code.language_model.loading import Precision, choose_dtype, load_model, load_tokenizer, quiet_libraries
from denoise_code.language_model.title_vectors import (
    TitleBatches,
    choose_layer,
    load_with_record,
    mean_over_title,
    save_with_record,
    standardise,
    states_of_batches,
    title_batches,
)

FILE, PARTS = "title_vectors.safetensors", "title_vectors.parts"
SECONDS_BETWEEN_PARTS = 20
WINDOWS_TO_CHOOSE_FROM = 20_000  # train windows among which `choose_layer` draws
TELL_AFTER = 3  # batches, how long the rest will take


@dataclass(frozen=True)
class TitleStates:
    """What a layer of a model says of titles.

    model: name and precision. layer: counted from 1, None before it was chosen; auc_context {layer: AUC} that chose it.
    titles: folded; states (T, D) float32 of them. mean, std (D,): of the catalogue that they were last used for.
    """

    model: list
    layer: int | None = None
    auc_context: dict = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)
    states: torch.Tensor | None = None
    mean: torch.Tensor | None = None
    std: torch.Tensor | None = None


@dataclass(frozen=True)
class CatalogueVectors:
    """vectors (n_items + 1, D) float16 of length 1, zero for padding and where there is no title; title_states: what they are made of."""

    vectors: np.ndarray
    title_states: TitleStates


def vectors_of_catalogue(
    titles: list[str | None], windows: np.ndarray, base_model: str, folder: Path | None, like: Path | None = None
) -> CatalogueVectors:
    """Title vectors of the items 1..n of a log, as `title_vectors` makes those of a data set; kept in `folder`.

    titles (n_items + 1,), the first for padding; None or "" where an item has none. windows (N, W) items, 0 where none: on them the
    layer is chosen. folder: None keeps nothing. like: the folder of another log, whose layer, mean and deviation are taken.
    """
    model_name = [base_model, str(choose_dtype(Precision().dtype))]
    folded_titles = [fold_title(title) if title else "" for title in titles]
    stored = stored_states(like or folder, model_name)
    if like is not None:
        if stored.layer is None:
            raise InputError(f"{like}/{FILE}: no title vectors of {base_model}, with which the log in {like} was judged")
        stored = with_titles_of(stored, stored_states(folder, model_name))
    n_stored = len(stored.titles)
    new_titles = sorted({title for title in folded_titles if title} - set(stored.titles))
    if new_titles or stored.layer is None:
        print(f"{len(new_titles):,} titles to read with {base_model}, {n_stored:,} are kept from before", flush=True)
        stored = with_new_titles(stored, new_titles, folded_titles, windows, base_model, folder)
    row_of_title = {title: row for row, title in enumerate(stored.titles)}
    items = [item for item, title in enumerate(folded_titles) if title]  # that have a title
    states = stored.states[[row_of_title[folded_titles[item]] for item in items]]  # (m, D)
    if like is None:
        mean, std = states.mean(0), states.std(0).nan_to_num(0)  # one title alone has no deviation
    else:
        mean, std = stored.mean, stored.std
    vectors = np.zeros((len(titles), states.shape[1]), dtype=np.float16)
    vectors[items] = standardise(states, mean, std).half().numpy()
    is_written = not new_titles and stored.mean is not None and torch.equal(mean, stored.mean) and torch.equal(std, stored.std)
    if folder is not None and not (is_written and like is None):
        stored = replace(stored, mean=mean, std=std)
        write_states(folder, stored)
    return CatalogueVectors(vectors, stored)


def with_titles_of(stored: TitleStates, other: TitleStates) -> TitleStates:
    """`stored`, and the titles that another folder has of the same layer."""
    if other.layer != stored.layer:
        return stored
    stored_titles = set(stored.titles)
    rows = [row for row, title in enumerate(other.titles) if title not in stored_titles]
    titles = stored.titles + [other.titles[row] for row in rows]
    return replace(stored, titles=titles, states=torch.cat([stored.states, other.states[rows]]))


# ---------------------------------------------------------------- reading titles


def with_new_titles(
    stored: TitleStates,
    new_titles: list[str],
    folded_titles: list[str],
    windows: np.ndarray,
    base_model: str,
    folder: Path | None,
) -> TitleStates:
    """What is kept, and the new titles read by the language model."""
    quiet_libraries()
    tokenizer = load_tokenizer(base_model)
    model = load_model(None, base_model, Precision())
    layer, aucs = stored.layer, stored.auc_context
    if layer is None:
        layer, aucs = chosen_layer(model, tokenizer, folded_titles, windows, stored.model, folder)
    if not new_titles:
        return replace(stored, layer=layer, auc_context=aucs)
    batches = title_batches(model, tokenizer, new_titles)
    key = fingerprint_of_json([stored.model, layer, new_titles])
    by_length = torch.cat(list(read_in_parts(model, tokenizer, batches, layer, folder, key)))  # (N, D)
    states = by_length[torch.tensor(batches.order).argsort()]
    if stored.states is not None:
        states = torch.cat([stored.states, states])
    return replace(stored, layer=layer, auc_context=aucs, titles=stored.titles + new_titles, states=states)


def chosen_layer(
    model, tokenizer, folded_titles: list[str], windows: np.ndarray, model_name: list, folder: Path | None
) -> tuple[int, dict]:
    """(layer, AUC of each) that `choose_layer` finds on windows of items with titles; kept in `folder` from then on."""
    rng = np.random.default_rng(0)
    sample = windows[np.sort(rng.permutation(len(windows))[:WINDOWS_TO_CHOOSE_FROM])]  # (M, W)
    lists = [[item for item in window if folded_titles[item]] for window in sample.tolist()]
    lists = [items for items in lists if len(items) > 1]
    path = None if folder is None else folder / PARTS / "layer.json"
    key = fingerprint_of_json([model_name, folded_titles, lists])
    stored = read_json(path) if path and path.exists() else {}
    if stored.get("key") != key:
        if not lists:
            raise InputError("no history holds two items with titles: --language_model none judges without them")
        print("choosing the layer that tells this log's titles best", flush=True)
        choice = choose_layer(model, tokenizer, folded_titles, lists, rng)
        stored = {"key": key, "layer": choice["layer"], "auc_context": choice["auc_context"]}
        if path:
            path.parent.mkdir(exist_ok=True)
            write_json(path, stored)
    return stored["layer"], {str(layer): auc for layer, auc in stored["auc_context"].items()}


def read_in_parts(model, tokenizer, batches: TitleBatches, layer: int, folder: Path | None, key: str) -> Iterator[torch.Tensor]:
    """States (B, D) of the titles of all batches in their order; finished ones are written every few seconds and never read again."""
    finished = read_parts(folder, key)
    n_done = len(finished)
    yield from finished
    runs = tqdm(batches.runs[n_done:], desc="read titles", initial=n_done, total=len(batches.runs), unit="batch", leave=False)
    unwritten, written_at, started = [], time.monotonic(), time.monotonic()
    for number, (states,) in enumerate(states_of_batches(model, tokenizer, batches, runs, [layer], mean_over_title), n_done + 1):
        unwritten.append(states)
        if number - n_done == TELL_AFTER:
            left = (time.monotonic() - started) / TELL_AFTER * (len(batches.runs) - number)
            tqdm.write(
                f"reading titles, layer {layer}: about {left / 60:.0f} minutes" if left > 90 else "reading titles: a minute or so"
            )
        if folder is not None and time.monotonic() - written_at > SECONDS_BETWEEN_PARTS:
            write_part(folder, key, number - len(unwritten), unwritten)
            unwritten, written_at = [], time.monotonic()
        yield states


def read_parts(folder: Path | None, key: str) -> list[torch.Tensor]:
    """States (B, D) of the first batches, as far as parts of this very job reach without a gap."""
    finished = []
    for path in sorted((folder / PARTS).glob("part_*.safetensors")) if folder else []:
        tensors, record = load_with_record(path)
        if record["key"] == key and record["first"] == len(finished):
            finished += [tensors[f"{number:06}"] for number in range(len(tensors))]
    return finished


def write_part(folder: Path, key: str, first: int, states: list[torch.Tensor]) -> None:
    (folder / PARTS).mkdir(exist_ok=True)
    path = folder / PARTS / f"part_{first:08}.safetensors"
    with naming_tensors(path):
        save_with_record(path, {f"{number:06}": batch for number, batch in enumerate(states)}, {"key": key, "first": first})


# ---------------------------------------------------------------- the file


def stored_states(folder: Path | None, model_name: list) -> TitleStates:
    """What a folder keeps of titles by this model; nothing where there is none, and where it is damaged or of another model."""
    if folder is None or not (folder / FILE).exists():
        return TitleStates(model_name)
    try:
        tensors, record = load_with_record(folder / FILE)
        titles = bytes(tensors["titles"].numpy()).decode().split("\n")
    except (OSError, KeyError, ValueError, SafetensorError):
        return TitleStates(model_name)
    if record["model"] != model_name:
        return TitleStates(model_name)
    return TitleStates(
        model_name, record["layer"], record["auc_context"], titles, tensors["states"], tensors["mean"], tensors["std"]
    )


def write_states(folder: Path, stored: TitleStates) -> None:
    """All titles in one file; the parts are not needed any more."""
    text = torch.frombuffer(bytearray("\n".join(stored.titles).encode()), dtype=torch.uint8)
    tensors = {"titles": text, "states": stored.states, "mean": stored.mean, "std": stored.std}
    with naming_tensors(folder / FILE):
        save_with_record(
            folder / FILE, tensors, {"model": stored.model, "layer": stored.layer, "auc_context": stored.auc_context}
        )
    shutil.rmtree(folder / PARTS, ignore_errors=True)
