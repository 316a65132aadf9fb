"""Free text to items of the catalogue: the exact title, else the nearest by the base model's embedding.

Knows nothing of windows and scores.
"""

from functools import cached_property
from pathlib import Path

import torch

from denoise_code.data_set.titles import fold_title
from denoise_code.language_model.loading import choose_dtype
from denoise_code.language_model.title_vectors import load_or_make, mean_over_title, read_title_states, standardise, title_vectors
from denoise_code.reading.options import ModelOptions


class Grounder:
    """Finds the items that texts name. What it needs of the catalogue is read when it is first asked for, and once."""

    def __init__(self, model, tokenizer, catalogue: list[str], data_set: Path, options: ModelOptions, by_title_vectors: bool):
        """by_title_vectors: nearest by title vectors; else by the state after a text's last token, as the release does."""
        self.model, self.tokenizer, self.catalogue = model, tokenizer, catalogue
        self.data_set, self.options, self.by_title_vectors = data_set, options, by_title_vectors

    @cached_property
    def title_vectors(self) -> tuple[dict, dict]:
        """Tensors of the title vectors, and the record of how they were made (title_vectors.py)."""
        precision, base_model = self.options.precision, self.options.base_model
        return title_vectors(self.model, self.tokenizer, self.catalogue, self.data_set, precision, base_model)

    @cached_property
    def last_token_table(self) -> torch.Tensor:
        """Last-token states (n_items, D) of the titles of items 1..n."""
        return last_token_table(self.model, self.tokenizer, self.catalogue, self.data_set, self.options)

    def ground(self, texts: list[str]) -> tuple[dict[str, int], float]:
        """{text: item id}, and the share of the texts that are no title; of items of one title, the first."""
        item_of_title = {fold_title(self.catalogue[item]): item for item in range(len(self.catalogue) - 1, 0, -1)}
        distinct = sorted(set(texts))
        items = {text: item_of_title[text] for text in distinct if text in item_of_title}
        no_titles = [text for text in distinct if text not in item_of_title]
        if no_titles:
            items |= dict(zip(no_titles, self.nearest(no_titles)))
        n_ungrounded = sum(text not in item_of_title for text in texts)
        return items, n_ungrounded / max(len(texts), 1)

    def nearest(self, texts: list[str]) -> list[int]:
        """The item (1..n) whose title is most like each text."""
        if not self.by_title_vectors:
            return nearest_items(last_token_states(self.model, self.tokenizer, texts), self.last_token_table)
        tensors, record = self.title_vectors
        with self.model.disable_adapter():
            (states,) = read_title_states(self.model, self.tokenizer, texts, [record["layer"]], mean_over_title)  # (N, D)
        return nearest_items(standardise(states, tensors["mean"], tensors["std"]), tensors["vectors"].float())


def last_token_states(model, tokenizer, texts: list[str]) -> torch.Tensor:
    """Last-token hidden states (N, D) of the base model for each text, in float32 on the CPU; no logits are computed."""
    with model.disable_adapter():
        return read_title_states(model, tokenizer, texts, [], lambda states, mask: states[:, -1])[0]


def last_token_table(model, tokenizer, catalogue: list[str], data_set: Path, options: ModelOptions) -> torch.Tensor:
    """Last-token states (n_items, D) of items 1..n, from the release's file or our cache beside the data set, else computed."""
    released = data_set / "item_embedding.pt"
    if released.exists():
        table = torch.load(released, weights_only=True, map_location="cpu")
        if getattr(table, "shape", None) == (len(catalogue), model.config.get_text_config().hidden_size):
            return table[1:].float()
        print(f"{released}: does not fit this model and catalogue, computing our own")
    precision = options.precision
    made_by = [options.base_model, str(choose_dtype(precision.dtype)), precision.load_in_8bit, catalogue]

    def compute():
        return {"embedding": last_token_states(model, tokenizer, catalogue[1:])}, {}

    return load_or_make(data_set, "item_embedding", made_by, compute)[0]["embedding"]


def nearest_items(queries: torch.Tensor, table: torch.Tensor) -> list[int]:
    """Item ids (1..n) of the rows of table (n, D) closest to queries (N, D) by L2 distance."""
    closest = [torch.cdist(chunk, table).argmin(1) for chunk in queries.split(256)]  # (256,) each
    return (torch.cat(closest) + 1).tolist()
