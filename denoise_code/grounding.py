"""Free text to items of the catalogue: the exact title, else the nearest by the base model's embedding.

Knows nothing of windows and scores.
"""

import hashlib
import json
import os
from pathlib import Path

from denoise_code.command_line import partial_path
from denoise_code.examples import pad_left
from denoise_code.language_model import choose_dtype
from denoise_code.prompt import clean_title


def embed(model, tokenizer, texts: list[str], batch_size: int):
    """Last-token hidden states (N, D) of the base model for each text, in float32 on the CPU; no logits are computed."""
    import torch
    from tqdm import tqdm

    tokens = [tokenizer(text)["input_ids"] or [tokenizer.eos_token_id] for text in texts]
    order = sorted(range(len(texts)), key=lambda place: len(tokens[place]))
    rows = torch.empty(len(texts), model.config.get_text_config().hidden_size)
    decoder = model.get_base_model().base_model
    with torch.inference_mode(), model.disable_adapter():
        for start in tqdm(range(0, len(order), batch_size), desc="embed titles", unit="batch", leave=False):
            chosen = order[start : start + batch_size]
            ids = pad_left([tokens[place] for place in chosen], tokenizer.pad_token_id).to(model.device)
            mask = pad_left([[1] * len(tokens[place]) for place in chosen], 0).to(model.device)
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            hidden = decoder(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)[0]
            rows[chosen] = hidden[:, -1].float().cpu()
    return rows


def title_table(model, tokenizer, catalogue: list[str], folder: Path, args, base_model: str):
    """Embeddings (n_items, D) of items 1..n, from the release's file or our cache beside the data set, else computed."""
    import torch
    from safetensors.torch import load_file, save_file

    released = folder / "item_embedding.pt"
    if released.exists():
        table = torch.load(released, weights_only=True, map_location="cpu")
        if getattr(table, "shape", None) == (len(catalogue), model.config.get_text_config().hidden_size):
            return table[1:].float()
        print(f"{released}: does not fit this model and catalogue, computing our own")
    made_by = [base_model, str(choose_dtype(args.dtype)), args.load_in_8bit, catalogue]
    key = hashlib.sha256(json.dumps(made_by).encode()).hexdigest()[:16]
    cached = folder / f"item_embedding_{key}.safetensors"
    if cached.exists():
        return load_file(cached)["embedding"]
    table = embed(model, tokenizer, [clean_title(title) for title in catalogue[1:]], 4 * args.batch_size)
    if os.access(folder, os.W_OK):
        partial = partial_path(cached)
        save_file({"embedding": table}, partial)
        partial.replace(cached)
    return table


def ground(texts: list[str], catalogue: list[str], nearest) -> tuple[dict[str, int], float]:
    """{text: item id} and the share of texts that are no title; `nearest` maps the distinct ones to ids by embedding."""
    exact = {clean_title(title): item for item, title in reversed(list(enumerate(catalogue))) if item}
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
