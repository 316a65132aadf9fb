"""Free text to items of the catalogue: the exact title, else the nearest by the base model's embedding.

Knows nothing of windows and scores.
"""

from pathlib import Path

from denoise_code.data_set.titles import fold_title
from denoise_code.language_model.loading import choose_dtype
from denoise_code.language_model.title_vectors import load_or_make, mean_over_title, read_title_states, standardise


def embed(model, tokenizer, texts: list[str]):
    """Last-token hidden states (N, D) of the base model for each text, in float32 on the CPU; no logits are computed."""
    with model.disable_adapter():
        return read_title_states(model, tokenizer, texts, [], lambda states, mask: states[:, -1])[0]


def nearest_by_vectors(model, tokenizer, texts: list[str], tensors: dict, made: dict) -> list[int]:
    """Item ids whose title vectors (title_vectors.py) are most like those of the texts."""
    with model.disable_adapter():
        (states,) = read_title_states(model, tokenizer, texts, [made["layer"]], mean_over_title)
    return nearest_items(standardise(states, tensors["mean"], tensors["std"]), tensors["vectors"].float())


def title_table(model, tokenizer, catalogue: list[str], folder: Path, args, base_model: str):
    """Embeddings (n_items, D) of items 1..n, from the release's file or our cache beside the data set, else computed."""
    import torch

    released = folder / "item_embedding.pt"
    if released.exists():
        table = torch.load(released, weights_only=True, map_location="cpu")
        if getattr(table, "shape", None) == (len(catalogue), model.config.get_text_config().hidden_size):
            return table[1:].float()
        print(f"{released}: does not fit this model and catalogue, computing our own")
    made_by = [base_model, str(choose_dtype(args.dtype)), args.load_in_8bit, catalogue]

    def make():
        return {"embedding": embed(model, tokenizer, catalogue[1:])}, {}

    return load_or_make(folder, "item_embedding", made_by, make)[0]["embedding"]


def ground(texts: list[str], catalogue: list[str], nearest) -> tuple[dict[str, int], float]:
    """{text: item id} and the share of texts that are no title; `nearest` maps the distinct ones to ids by embedding."""
    exact = {fold_title(title): item for item, title in reversed(list(enumerate(catalogue))) if item}
    distinct = sorted(set(texts))
    unknown = [text for text in distinct if text not in exact]
    found = {text: exact[text] for text in distinct if text in exact} | dict(zip(unknown, nearest(unknown) if unknown else []))
    strangers = set(unknown)
    return found, sum(text in strangers for text in texts) / max(len(texts), 1)


def nearest_items(queries, table) -> list[int]:
    """Item ids (1..n) of the rows of table (n, D) closest to queries (N, D) by L2 distance."""
    import torch

    closest = [torch.cdist(chunk, table).argmin(1) for chunk in queries.split(256)]
    return (torch.cat(closest) + 1).tolist()
